"""Curation as an ordered mapping of steps: each says of every accepted rollout why it must go.

A step is a small dataclass whose fields are its options. It sees the rollouts that the steps
before it left, and decides; taking them out and counting is done here, once.
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

Reasons = list[str | None]


@dataclass(frozen=True, slots=True)
class Background:
    """What a step may look at besides the accepted rollouts.

    Attributes:
        seed: The run's.
        pass_rates: Of each problem id, over all rollouts of the corpus, the rejected included.
        benchmarks: Prompts of each benchmark, by its name.
    """

    seed: int
    pass_rates: Mapping[str, float]
    benchmarks: Mapping[str, Sequence[str]]


class Step(ABC):
    """One step of curation.

    Attributes:
        selects: True = it picks a subset that its options describe, however small; what another
            kind of step drops is worth a warning where it is much.
    """

    selects: ClassVar[bool] = False

    def check(self, key: str) -> None:  # noqa: B027 - most steps have nothing to refuse
        """Raise UserError for options that contradict each other; `key` is the step's."""

    @abstractmethod
    def reasons(self, rollouts: Sequence[Rollout], background: Background) -> Reasons:
        """For each rollout why it must go, None = it stays."""


@dataclass(frozen=True, slots=True)
class Removal:
    """One rollout that a step took out."""

    step: str
    rollout: Rollout
    reason: str


@dataclass(frozen=True, slots=True)
class StepCount:
    """What went into a step and came out: rollouts and distinct problems."""

    step: str
    rollouts_in: int
    rollouts_out: int
    problems_in: int
    problems_out: int


def curate(
    rollouts: Sequence[Rollout], steps: Mapping[str, Step], background: Background
) -> tuple[list[Rollout], list[StepCount], list[Removal]]:
    """Apply `steps` in order: what is left, in its order, the counts and what was taken out."""
    left = list(rollouts)
    counts: list[StepCount] = []
    removals: list[Removal] = []
    for name, step in steps.items():
        judged = list(zip(left, step.reasons(left, background), strict=True))
        removals += [Removal(name, rollout, why) for rollout, why in judged if why is not None]
        kept = [rollout for rollout, why in judged if why is None]
        counts.append(StepCount(name, len(left), len(kept), _problems(left), _problems(kept)))
        left = kept
    return left, counts, removals


def by_problem(rollouts: Sequence[Rollout], why: Callable[[Problem], str | None]) -> Reasons:
    """A verdict on problems as one on their rollouts; each problem is asked about once."""
    asked: dict[str, str | None] = {}
    found: Reasons = []
    for rollout in rollouts:
        name = rollout.problem.id
        if name not in asked:
            asked[name] = why(rollout.problem)
        found.append(asked[name])
    return found


def made_steps(steps: Mapping[str, Any], key: str) -> dict[str, Step]:
    """Build steps from `_target_` and options; a step that is null is left out.

    Raises:
        UserError: For an unknown step or option, a value of the wrong type or out of bounds,
            or options that contradict each other.
    """
    return {
        name: _made(options, f"{key}.{name}")
        for name, options in steps.items()
        if options is not None
    }


def _made(options: Any, key: str) -> Step:
    if not isinstance(options, Mapping) or "_target_" not in options:
        raise UserError(f"{key}: there is no _target_; name a step, or null to leave it out")
    path = str(options["_target_"])
    kind: Any = resolve(path, f"{key}._target_")
    if not (is_dataclass(kind) and isinstance(kind, type) and issubclass(kind, Step)):
        raise UserError(f"{key}._target_: '{path}' is no step of curation; name one")
    known = [item.name for item in fields(kind)]
    given = {name: value for name, value in options.items() if name != "_target_"}
    for name in given:
        if name not in known:
            choices = ", ".join(known) or "none, it has no options"
            raise UserError(f"{key}.{name}: there is no such option; choose among {choices}")
    try:
        typed = OmegaConf.merge(OmegaConf.structured(kind), given)
        step: Step = OmegaConf.to_object(typed)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        said = str(error).splitlines()[0]
        raise UserError(f"{key}.{error.full_key}: {said}; give a value that fits") from error
    check_values(step, key)
    step.check(key)
    return step


def _problems(rollouts: Sequence[Rollout]) -> int:
    return len({rollout.problem.id for rollout in rollouts})
