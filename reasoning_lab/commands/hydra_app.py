"""A recipe, or each recipe of a multirun, as a Hydra app: the command without a subcommand."""

import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from reasoning_lab.commands.arguments import is_multirun, to_sweep
from reasoning_lab.commands.compose import compose
from reasoning_lab.commands.preflight import check_data
from reasoning_lab.commands.sweep import recipes
from reasoning_lab.config.folder import CONF
from reasoning_lab.config.hydra_errors import one_sentence
from reasoning_lab.system.gc_frozen_imports import gc_frozen_imports
from reasoning_lab.types import UserError


def main(arguments: Sequence[str]) -> None:
    """Let Hydra read the arguments and run the recipe, or each recipe of a multirun."""
    if is_multirun(arguments):
        # Before the first one runs; sweepers that search, and other flags, are left to Hydra.
        try:
            overrides = to_sweep(arguments)
        except UserError:
            pass
        else:
            check_data(list(recipes(overrides)))
    sys.argv[1:] = arguments
    hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(_run)()


def _run(config: DictConfig) -> float | None:
    """Run one recipe; the returned value is the objective of a sweeper."""
    try:
        recipe = compose(config)
        with gc_frozen_imports():
            from reasoning_lab.commands.run import run

        logging.captureWarnings(True)
        hydra_config = HydraConfig.get()
        out_dir = Path(hydra_config.runtime.output_dir)
        recipe = dataclasses.replace(recipe, overrides=list(hydra_config.overrides.task))
        return run(recipe, out_dir).pass_at_1
    except (UserError, OmegaConfBaseException) as error:
        # In a multirun Hydra adds a line that names the combination.
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            raise
        sentence = str(error) if isinstance(error, UserError) else one_sentence(error)
        print(sentence, file=sys.stderr)
        sys.exit(2)
