"""The errors of golds, which are the same for all checkers."""

import pytest

from reasoning_lab.types import Problem
from reasoning_lab.verify.checkers import gold_error
from reasoning_lab.verify.verdicts import UnreadableGoldError
from tests.support.verification import verdict


@pytest.mark.parametrize(
    ("checker", "gold"),
    [
        ("math", "???"),
        ("math", "\\frac{"),
        ("number", "about 18"),
        ("number", "9" * 5_000),
        ("choice", "K"),
        ("choice", "A or B"),
        ("instructions", '[{"id": "keywords:existence"}]'),
        ("instructions", '[{"id": "a:b"}]'),
        ("reasoning_gym/complex_arithmetic", "5"),
    ],
)
def test_an_unreadable_gold_is_an_error_with_its_row(checker: str, gold: str) -> None:
    problem = Problem("q?", gold, checker, "f", metadata={"row": "gsm8k.jsonl, line 7"})
    error = gold_error(problem)
    assert error is not None
    assert error.startswith("gsm8k.jsonl, line 7: ")
    assert len(error) < 400


@pytest.mark.parametrize("checker", ["math", "number", "choice", "instructions"])
def test_no_answer_is_checked_against_an_unreadable_gold(checker: str) -> None:
    for answer in ("???", "5", "A", ""):
        with pytest.raises(UnreadableGoldError, match=r"line 7: .*can't read the gold '\?\?\?'"):
            verdict(checker, "???", answer, row="line 7")
