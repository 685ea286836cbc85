"""The `reasoning-lab` command: a Hydra app with a few words in front of it.

Nothing heavy is imported until a recipe really runs, so `--help` and completion are quick.
"""

import errno
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from reasoning_lab.compose import CONF, Recipe, compose, register_schemas
from reasoning_lab.mistakes import is_composition_error, one_sentence
from reasoning_lab.store import Store
from reasoning_lab.types import UserError

# Hydra would make a folder and a log file for every run, and planning is none.
_PLANNING = ("hydra.output_subdir=null", "hydra.run.dir=.", "hydra/job_logging=none")
_HELP = """\
reasoning-lab: turn a small language model into a reasoning model, stage by stage.

  reasoning-lab [key=value …]                 run the recipe; what exists is reused
  reasoning-lab plan [key=value …]            what would run and what is reused; runs nothing
  reasoning-lab -m key=a,b …                  one run for each combination
  reasoning-lab report key=a,b …              one report over those runs; runs nothing

Examples:
  reasoning-lab experiment=smoke              every stage with a minimal budget
  reasoning-lab stages.rl.optimization.learning_rate=1e-4
  reasoning-lab '~stages.rl'                  leave a stage out
  reasoning-lab -m ablate=none,dpo,rl seed=0,1
  reasoning-lab --cfg job                     every key with its value
  reasoning-lab --hydra-help                  Hydra's own flags

Options of each group, chosen by group=option:
{groups}
"""
_Task = TypeVar("_Task")
_RESUME = "Stopped; run the same command again to go on where it was."


def main() -> None:
    """Entry point of the console script; exit code 0 means a complete run."""
    arguments = sys.argv[1:]
    if "--help" in arguments or "-h" in arguments:
        print(_help())
        return
    task: Callable[[DictConfig], None] = _run
    if arguments and arguments[0] == "plan":
        as_json = "format=json" in arguments
        task = _plan_json if as_json else _plan_table
        words = [word for word in arguments[1:] if word not in ("format=json", "format=table")]
        arguments = [*words, *_PLANNING]
    surveying = bool(arguments) and arguments[0] == "report"
    sys.argv[1:] = arguments
    # Hydra would print and exit by itself; let errors come here, to be told in one sentence.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    register_schemas()
    try:
        if surveying:
            _told(_survey)(arguments[1:])
            return
        hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(_told(task))()
    except KeyboardInterrupt:
        _end(_RESUME, 130)
    except Exception as error:
        if is_composition_error(error):
            _end(_sentence(error), 2)
        if not isinstance(error, OSError) or error.errno != errno.ENOSPC:
            raise
        _end(f"the disk is full ({error.filename}); free some space, then {_RESUME.lower()}", 1)


def _help() -> str:
    """Hydra's own page takes seconds to list the groups; this one reads their file names."""
    groups = {
        folder.name: ", ".join(sorted(option.stem for option in folder.glob("*.yaml")))
        for folder in sorted(CONF.iterdir())
        if folder.is_dir() and folder.name != "hydra"
    }
    return _HELP.format(groups="\n".join(f"  {name}: {of}" for name, of in groups.items()))


def _told(task: Callable[[_Task], None]) -> Callable[[_Task], None]:
    """`task` with a user's mistake told here: Hydra would put a headline over it."""

    def run(what: _Task) -> None:
        try:
            task(what)
        except UserError as error:
            _end(str(error), 2)
        except OmegaConfBaseException as error:
            _end(_sentence(error), 2)

    return run


def _sentence(error: BaseException) -> str:
    groups = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir())
    return one_sentence(error, groups)


def _end(sentence: str, code: int) -> None:
    print(sentence, file=sys.stderr)
    sys.exit(code)


def _survey(overrides: list[str]) -> None:
    from reasoning_lab.results import survey

    survey(overrides)


def _run(config: DictConfig) -> None:
    recipe = compose(config)
    from reasoning_lab.runner import run

    logging.captureWarnings(True)
    run(recipe, Path(HydraConfig.get().runtime.output_dir))


def _states(recipe: Recipe) -> list[dict[str, str]]:
    store = Store(Path(recipe.root.paths.runs) / "store")
    return [
        {
            "stage": node.name,
            "variant": recipe.variant,
            "fingerprint": node.fingerprint,
            "state": "cached" if store.lookup(node.folder, node.fingerprint) else "run",
        }
        for node in recipe.nodes
    ]


def _plan_json(config: DictConfig) -> None:
    print(json.dumps({"nodes": _states(compose(config))}, indent=2))


def _plan_table(config: DictConfig) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("stage", "variant", "fingerprint", "state")
    for state in _states(compose(config)):
        table.add_row(*state.values())
    Console().print(table)
