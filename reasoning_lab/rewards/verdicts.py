"""Reward of the verifier's verdict: the paper's only reward (step 4)."""

from collections.abc import Mapping
from typing import Any

from reasoning_lab.rewards.options import check_not_reversed, check_options, finite_option
from reasoning_lab.types import UserError, Verdict


def _check(options: Mapping[str, Any], weight: float, key: str) -> None:
    check_not_reversed(options, weight, key)
    values = {verdict.value: options[verdict.value] for verdict in Verdict}
    for name, value in values.items():
        if value is not None and finite_option(value) is None:
            raise UserError(f"{key}.{name}: {value!r} is not a finite number; give one, or null")
    correct = values.pop("correct")
    for name, value in values.items():
        if None not in (correct, value) and value >= correct:
            raise UserError(f"{key}.{name}: {value} is not below correct={correct}; lower it")


@check_options(_check)
def correctness(
    verdict: Verdict,
    correct: float = 1.0,
    wrong: float = -1.0,
    unparseable: float | None = -1.0,
    timeout: float | None = -1.0,
) -> float | None:
    """One number for each verdict (paper, step 4); None = such a rollout does not train."""
    return {
        Verdict.CORRECT: correct,
        Verdict.WRONG: wrong,
        Verdict.UNPARSEABLE: unparseable,
        Verdict.TIMEOUT: timeout,
    }[verdict]
