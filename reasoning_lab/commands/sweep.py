"""Every combination of swept overrides as a composed recipe, without running any.

Planning and reporting look at a whole sweep; a multirun is composed here first, so that an
impossible combination ends it before the first one trains.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from reasoning_lab.commands.compose import Recipe, compose, typed
from reasoning_lab.commands.root_config import RootConfig
from reasoning_lab.config.folder import CONF
from reasoning_lab.graph.recipe import NO_ABLATION
from reasoning_lab.types import UserError

# Swept keys that have a column of their own in a report.
_OWN_COLUMN = ("seed", "ablate")
# Hydra would set them last as well: they are plain keys of the root.
_LATE = tuple(f"{key}=" for key in _OWN_COLUMN)


def recipes(overrides: Sequence[str]) -> Iterator[Recipe]:
    """The recipe of each combination of a multirun's overrides; its variant names swept values.

    Raises:
        UserError: An override sweeps over an interval, or a combination is impossible.
    """
    everything = combinations(overrides)
    configs: dict[tuple[str, ...], DictConfig] = {}
    for combination, label in everything:
        try:
            recipe = compose(_config(combination, configs))
        except UserError as error:
            if len(everything) == 1:
                raise
            raise UserError(f"{' '.join(combination)}: {error}") from error
        without = recipe.variant
        if label:
            variant = label if without == NO_ABLATION else f"{label}, without {without}"
            recipe = dataclasses.replace(recipe, variant=variant)
        yield dataclasses.replace(recipe, overrides=combination)


def settings(overrides: Sequence[str]) -> RootConfig:
    """The typed settings of one run, which `linked` makes a recipe of.

    Raises:
        UserError: An override sweeps, or a value is missing or out of bounds.
    """
    (combination, _), *others = combinations(overrides)
    if others:
        raise UserError(f"{swept_keys(overrides)[0]}: give one value; this takes one run at a time")
    return typed(_config(combination, {}))


def _config(combination: list[str], configs: dict[tuple[str, ...], DictConfig]) -> DictConfig:
    """Hydra's config; one of `configs` where only seed or ablation differ, as Hydra is slow."""
    parsed = OverridesParser.create().parse_overrides(combination)
    late = {o.input_line: o for o in parsed if str(o.input_line).startswith(_LATE)}
    shared = tuple(line for line in combination if line not in late)
    if shared not in configs:
        with hydra.initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
            configs[shared] = hydra.compose("config", combination)
    for override in late.values():
        OmegaConf.update(configs[shared], override.key_or_group, override.value(), merge=False)
    return configs[shared]


def combinations(overrides: Sequence[str]) -> list[tuple[list[str], str]]:
    """Each combination of swept overrides, with the swept ones that need to be named.

    Raises:
        UserError: An override sweeps over a continuous interval.
    """
    choices: list[list[tuple[str, str]]] = []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        line = override.input_line or ""
        if not override.is_sweep_override():
            choices.append([(line, "")])
            continue
        if not override.is_discrete_sweep():
            raise UserError(f"'{line}' is an interval; name the values, as in key=a,b")
        key = override.get_key_element()
        named = [f"{key}={value}" for value in override.sweep_string_iterator()]
        choices.append([(value, "" if key in _OWN_COLUMN else value) for value in named])
    return [
        ([line for line, _ in combined], ", ".join(name for _, name in combined if name))
        for combined in itertools.product(*choices)
    ]


def by_experiment(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides for each value of `experiment`, whose files name sweeps of their own."""
    named = [word for word in overrides if word.startswith("experiment=")]
    others = [word for word in overrides if word not in named]
    return [[*chosen, *others] for chosen, _ in combinations(named)]


def swept_keys(overrides: Sequence[str]) -> list[str]:
    """The keys, or group choices, that take several values."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [override.get_key_element() for override in parsed if override.is_sweep_override()]


def with_sweep(overrides: Sequence[str]) -> list[str]:
    """`overrides` and the sweep of the chosen experiment, `hydra.sweeper.params`, behind them.

    Raises:
        UserError: The sweeper searches, so its combinations cannot be named beforehand.
    """
    with hydra.initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        single = [
            override.input_line or "" for override in parsed if not override.is_sweep_override()
        ]
        chosen = hydra.compose("config", single, return_hydra_config=True).hydra.sweeper
    intervals = [e for e in parsed if e.is_sweep_override() and not e.is_discrete_sweep()]
    if intervals or not chosen["_target_"].endswith(".BasicSweeper"):
        raise UserError(
            "hydra/sweeper: this one searches, so what it will try cannot be named beforehand; "
            "give the values themselves, as in key=a,b"
        )
    given = {override.get_key_element() for override in parsed}
    params = {key: value for key, value in (chosen.params or {}).items() if key not in given}
    return [*overrides, *(f"{key}={value}" for key, value in params.items())]
