"""Curation as an ordered mapping of steps; each step gives a drop reason for some rollouts.

A step is a small dataclass whose fields are its options. It sees the rollouts that earlier steps
left. `curate` removes and counts what the steps drop.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from reasoning_lab.config.fields import check_values
from reasoning_lab.config.targets import resolve
from reasoning_lab.types import Problem, Rollout, UserError

DropReasons = list[str | None]


@dataclass(frozen=True, slots=True)
class CurationContext:
    """What a step may use besides the accepted rollouts.

    Attributes:
        seed: The run's seed.
        pass_rates: Problem id to pass rate, over all accepted and rejected rollouts.
        benchmarks: Benchmark name to its prompts.
    """

    seed: int
    pass_rates: Mapping[str, float]
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
    def drop_reasons(self, rollouts: Sequence[Rollout], context: CurationContext) -> DropReasons:
        """The reason to drop each rollout; None = it stays."""


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
    rollouts: Sequence[Rollout],
    steps: Mapping[str, Step],
    context: CurationContext,
    on_progress: Callable[[int], None] = lambda steps: None,
) -> tuple[list[Rollout], list[StepCount], list[Removal]]:
    """Apply `steps` in order; return the remaining rollouts, the counts and the removals.

    `on_progress` is called with 1 after each step.
    """
    remaining = list(rollouts)
    counts: list[StepCount] = []
    removals: list[Removal] = []
    for name, step in steps.items():
        reasons = step.drop_reasons(remaining, context)
        passed: list[Rollout] = []
        for rollout, reason in zip(remaining, reasons, strict=True):
            if reason is None:
                passed.append(rollout)
            else:
                removals.append(Removal(name, rollout, reason))
        problems_in, problems_out = _problem_count(remaining), _problem_count(passed)
        counts.append(StepCount(name, len(remaining), len(passed), problems_in, problems_out))
        remaining = passed
        on_progress(1)
    return remaining, counts, removals


def by_problem(
    rollouts: Sequence[Rollout], drop_reason: Callable[[Problem], str | None]
) -> DropReasons:
    """Give every rollout the drop reason of its problem, computed once a problem."""
    reasons: dict[str, str | None] = {}
    for rollout in rollouts:
        if rollout.problem.id not in reasons:
            reasons[rollout.problem.id] = drop_reason(rollout.problem)
    return [reasons[rollout.problem.id] for rollout in rollouts]


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


def _problem_count(rollouts: Sequence[Rollout]) -> int:
    return len({rollout.problem.id for rollout in rollouts})
