"""Length rewards by hand."""

import math

import pytest

from reasoning_lab.rewards import cosine_length, overlong
from reasoning_lab.types import Verdict


def test_cosine_length_by_hand() -> None:
    def of(verdict: Verdict, tokens: int, truncated: bool = False) -> float:
        return cosine_length(verdict, tokens, 100, truncated=truncated)

    assert of(Verdict.CORRECT, 0) == 2.0
    assert of(Verdict.CORRECT, 100) == pytest.approx(1.0)
    # A third of the way: (1 + cos 60 degrees) / 2 = 3/4 of the difference is left.
    assert cosine_length(Verdict.CORRECT, 20, 60) == pytest.approx(1.75)
    assert of(Verdict.WRONG, 0) == of(Verdict.TIMEOUT, 0) == -10.0
    assert of(Verdict.WRONG, 50) == pytest.approx(-5.0)
    assert of(Verdict.WRONG, 100) == pytest.approx(0.0)
    assert of(Verdict.CORRECT, 100, truncated=True) == -10.0


def test_the_cosine_falls_and_rises_monotonically() -> None:
    lengths = range(0, 101, 5)
    right = [cosine_length(Verdict.CORRECT, tokens, 100) for tokens in lengths]
    wrong = [cosine_length(Verdict.WRONG, tokens, 100) for tokens in lengths]
    assert right == sorted(right, reverse=True)
    assert wrong == sorted(wrong)
    assert all(math.isfinite(value) for value in right + wrong)


def test_overlong_by_hand() -> None:
    penalties = [overlong(tokens, 100, soft_tokens=20) for tokens in (0, 80, 85, 100)]
    assert penalties == [0.0, 0.0, -0.25, -1.0]
