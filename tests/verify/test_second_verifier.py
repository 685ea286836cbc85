"""A second rule reads what the first calls correct."""

from collections.abc import Iterator

import pytest

from reasoning_lab.types import Completion, Problem, Rollout, Verdict
from reasoning_lab.verify import Verifier
from reasoning_lab.verify.second_verifier import SecondReading, read_again


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(workers=1, timeout_s=20, memory_mb=1024) as shared:
        yield shared


def rollout(checker: str, gold: str, text: str, verdict: Verdict = Verdict.CORRECT) -> Rollout:
    problem = Problem(f"{checker} {gold}", gold, checker, "f")
    return Rollout(problem, Completion([1], text), None, verdict, "p")


def test_it_disagrees_where_the_first_was_deceived(verifier: Verifier) -> None:
    rollouts = [
        rollout("reasoning_gym/gcd", "4", "so \\boxed{4.0}"),
        rollout("reasoning_gym/gcd", "4", "so \\boxed{5}"),
        rollout("number", "1/2", "so \\boxed{0.5}"),
        rollout("math", "12", "no answer at all"),
    ]
    assert read_again(rollouts, verifier) == SecondReading(read=4, disagreed=2)


def test_what_it_cannot_read_is_left_out(verifier: Verifier) -> None:
    rollouts = [
        rollout("choice", "A", "\\boxed{B}"),
        rollout("math", "x^2 + 1", "\\boxed{x^2}"),  # No number.
    ]
    assert read_again(rollouts, verifier) == SecondReading(read=0, disagreed=0)
    assert read_again([], verifier) == SecondReading(read=0, disagreed=0)


def test_a_thought_without_an_end_holds_no_answer(verifier: Verifier) -> None:
    [opened] = [rollout("number", "4", "it is \\boxed{4.00}")]
    assert read_again([opened], verifier).disagreed == 0
    assert read_again([opened], verifier, "<think>\n").disagreed == 1
