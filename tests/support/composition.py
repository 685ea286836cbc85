"""Configs and recipes as the command composes them; Hydra takes a third of a second for one."""

import os
import re
from functools import cache, lru_cache

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from reasoning_lab.commands.compose import Recipe, compose
from reasoning_lab.commands.schemas import register_schemas
from reasoning_lab.config.folder import CONF
from reasoning_lab.config.hydra_errors import is_composition_error, one_sentence
from reasoning_lab.config.targets import TRUSTED_VARIABLE
from reasoning_lab.types import UserError

# The recipe without a stage, for what is asked of other groups alone.
BARE = "recipe=evaluate"
# The last rung with transformers in place of vLLM, which an environment may lack.
PHI4_BY_TRANSFORMERS = (
    "experiment=phi4_mini_reasoning",
    "engine=hf",
    "stages.rl.rollout_engine=hf",
    "hardware.generation_batch_size=12",
    "hardware.sampling.data_parallel_size=1",
    "hardware.sampling.memory_frac=0.9",
)
# Overrides of one value; the others choose options, add or remove.
_VALUE = re.compile(r"(seed|ablate|(?!hydra\.)\w+(\.\w+)+)=")


@cache
def _register_schemas(trusted: str) -> None:
    """Register them once for each value of the variable that names trusted packages."""
    register_schemas()


def composed_config(*overrides: str) -> DictConfig:
    """The root config under `overrides`; `compose` makes a recipe of it."""
    _register_schemas(os.environ.get(TRUSTED_VARIABLE, ""))
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", overrides=list(overrides))


@cache
def composed_recipe(*overrides: str) -> Recipe:
    """What the command would run under `overrides`.

    Values are set on a config that other calls share, last of all, as Hydra does it. `test_api.py`
    holds that both make the same recipe. Mistakes have OmegaConf's message and not Hydra's.
    """
    values = [override for override in overrides if _VALUE.match(override)]
    config = _shared_config(*(override for override in overrides if override not in values)).copy()
    for override in OverridesParser.create().parse_overrides(values):
        OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
    return compose(config)


# Few: every stage ends with a garbage collection, which looks at all of them.
_shared_config = lru_cache(maxsize=8)(composed_config)


@cache
def models() -> dict[str, DictConfig]:
    """Each model option by its name; no group says anything of another."""
    path = {"checkpoint": ["model.path=some/model"]}
    names = sorted(file.stem for file in (CONF / "model").glob("*.yaml"))
    return {
        name: composed_config(BARE, f"model={name}", *path.get(name, [])).model for name in names
    }


def sentence_of(*overrides: str) -> str:
    """What a user is told of overrides that do not compose."""
    try:
        compose(composed_config(*overrides))
    except UserError as error:
        return str(error)
    except (HydraException, OmegaConfBaseException, ValueError, AttributeError) as error:
        if is_composition_error(error):
            return one_sentence(error)
        raise
    raise AssertionError(f"{overrides} composes")
