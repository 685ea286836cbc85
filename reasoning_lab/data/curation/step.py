"""Curation as an ordered mapping of steps; each step gives a drop reason for some rollouts.

A step is a small dataclass whose fields are its options. It sees the rollouts that earlier steps
left. `curate` removes and counts what the steps drop.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from reasoning_lab.config.fields import check_values
from reasoning_lab.config.targets import resolve
from reasoning_lab.data.corpus import RolloutFile
from reasoning_lab.types import Problem, Rollout, UserError

DropReasons = Iterator[str | None]

_REMEMBERED_PROBLEMS = 4096


@dataclass(frozen=True, slots=True)
class CurationContext:
    """What a step may use besides the accepted rollouts.

    Attributes:
        seed: The run's seed.
        pass_rate: The pass rate of a problem, by its id, over accepted and rejected rollouts.
        benchmarks: Benchmark name to its prompts.
    """

    seed: int
    pass_rate: Callable[[str], float]
    benchmarks: Mapping[str, Sequence[str]]


class Step(ABC):
    """One step of curation.

    Attributes:
        selects: True = the step picks a subset that its options describe, however small. False = a
            warning is due if it drops many rollouts.
    """

    selects: ClassVar[bool] = False

    def check(self, key: str) -> None:  # noqa: B027 - most steps have nothing to check
        """Raise UserError for options that contradict each other; `key` is the step's place."""

    @abstractmethod
    def drop_reasons(self, rollouts: Collection[Rollout], context: CurationContext) -> DropReasons:
        """The reason to drop each rollout, in their order; None = it stays.

        Rollouts are read from the disk whenever they are iterated.
        """


@dataclass(frozen=True, slots=True)
class Removal:
    """One rollout that a step dropped."""

    step: str
    rollout: Rollout
    reason: str


@dataclass(frozen=True, slots=True)
class StepCount:
    """Rollouts and distinct problems before and after a step."""

    step: str
    rollouts_in: int
    rollouts_out: int
    problems_in: int
    problems_out: int


def curate(
    rollouts: RolloutFile,
    steps: Mapping[str, Step],
    context: CurationContext,
    on_drop: Callable[[Removal], object] = lambda _: None,
    on_step: Callable[[int], object] = lambda _: None,
) -> tuple[RolloutFile, list[StepCount]]:
    """Apply `steps` in order.

    Args:
        rollouts: The accepted ones of a corpus.
        steps: By name.
        context: What they may use.
        on_drop: Called with each removal, which is then forgotten.
        on_step: Called with 1 after each step.

    Returns:
        The rollouts that stay, and what each step left.
    """
    problems = np.unique(rollouts.index.problems, return_inverse=True)[1]
    places, remaining = np.arange(len(rollouts)), rollouts
    counts: list[StepCount] = []
    for name, step in steps.items():
        stays = np.ones(len(places), np.bool_)
        reasons = step.drop_reasons(remaining, context)
        for row, (rollout, reason) in enumerate(zip(remaining, reasons, strict=True)):
            if reason is not None:
                stays[row] = False
                on_drop(Removal(name, rollout, reason))
        before, places = places, places[stays]
        remaining = rollouts.select(places)
        distinct = (len(np.unique(problems[some])) for some in (before, places))
        counts.append(StepCount(name, len(before), len(places), *distinct))
        on_step(1)
    return remaining, counts


def by_problem(
    rollouts: Collection[Rollout], drop_reason: Callable[[Problem], str | None]
) -> DropReasons:
    """Give every rollout the drop reason of its problem.

    It is computed once for rollouts of a problem that lie near each other, as they mostly do.
    """
    remembered: dict[str, str | None] = {}
    for rollout in rollouts:
        problem = rollout.problem
        if problem.id not in remembered:
            if len(remembered) == _REMEMBERED_PROBLEMS:
                remembered.clear()
            remembered[problem.id] = drop_reason(problem)
        yield remembered[problem.id]


def build_steps(steps: Mapping[str, Any], key: str) -> dict[str, Step]:
    """Build steps from `_target_` and options; a null step is left out.

    Raises:
        UserError: A step or option is unknown, a value has the wrong type or is out of bounds, or
            options contradict each other.
    """
    return {
        name: _build_step(options, f"{key}.{name}")
        for name, options in steps.items()
        if options is not None
    }


def _build_step(options: Any, key: str) -> Step:
    if not isinstance(options, Mapping) or "_target_" not in options:
        raise UserError(f"{key}: there is no _target_; name a step, or give null to leave it out")
    path = str(options["_target_"])
    kind: Any = resolve(path, f"{key}._target_")
    if not (is_dataclass(kind) and isinstance(kind, type) and issubclass(kind, Step)):
        raise UserError(f"{key}._target_: '{path}' is no step of curation; name one")
    option_names = [item.name for item in fields(kind)]
    values = {name: value for name, value in options.items() if name != "_target_"}
    for name in values:
        if name not in option_names:
            choices = ", ".join(option_names) or "none, it has no options"
            raise UserError(f"{key}.{name}: there is no such option; choose among {choices}")
    try:
        typed = OmegaConf.merge(OmegaConf.structured(kind), values)
        step: Step = OmegaConf.to_object(typed)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        first_line = str(error).splitlines()[0]
        raise UserError(f"{key}.{error.full_key}: {first_line}; give a value that fits") from error
    check_values(step, key)
    step.check(key)
    return step
