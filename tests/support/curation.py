"""Rollouts for the steps of curation, and the reasons that a step gives."""

from collections.abc import Sequence

from reasoning_lab.data.curation.step import CurationContext, Step
from reasoning_lab.types import Completion, Problem, Rollout, Verdict


def rollout(prompt: str, text: str = "", gold: str = "1", level: int = 1) -> Rollout:
    problem = Problem(prompt, gold, "math", "f", level)
    return Rollout(problem, Completion([], text), gold, Verdict.CORRECT, "a")


def reasons(
    step: Step, rollouts: Sequence[Rollout], pass_rates: dict[str, float] | None = None
) -> list[str | None]:
    context = CurationContext(0, (pass_rates or {}).__getitem__, {})
    return list(step.drop_reasons(rollouts, context))
