"""A rollout to reward, and the config of a reward term."""

from typing import Any

from reasoning_lab.types import Completion, Problem, Rollout, Verdict

WELL_FORMED = "<think>\n1 + 1 = 2\n</think>\n\\boxed{2}"


def rollout(
    verdict: Verdict = Verdict.CORRECT, text: str = WELL_FORMED, tokens: int = 10
) -> Rollout:
    problem = Problem("1 + 1?", "2", "math", "sums")
    return Rollout(problem, Completion([1] * tokens, text), "2", verdict, "policy")


def term(name: str, **options: Any) -> dict[str, Any]:
    """The config of a reward of this package."""
    return {"_target_": f"reasoning_lab.rewards.{name}", **options}
