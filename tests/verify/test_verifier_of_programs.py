"""Completions that end in programs: extraction, references, limits, and other checkers beside."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from reasoning_lab.types import Problem, UserError, Verdict
from reasoning_lab.verify import Verifier, sandbox
from reasoning_lab.verify.sandbox import is_available
from reasoning_lab.verify.verdicts import Judgement
from tests.support.programs import code_problem, fenced
from tests.support.verification import boxed

needs_sandbox = pytest.mark.skipif(not is_available(), reason="this kernel has no Landlock")
CORRECT, WRONG = Verdict.CORRECT, Verdict.WRONG
UNPARSEABLE, TIMEOUT = Verdict.UNPARSEABLE, Verdict.TIMEOUT

TESTS = ["assert twice(1) == 2", "assert twice(2) == 4", "assert twice('a') == 'aa'"]
TWICE = code_problem("def twice(x):\n    return x + x", TESTS)
SUM = Problem("1 + 1?", "2", "number", "sums")


def on_row(name: str, problem: Problem) -> Problem:
    return replace(problem, metadata={**problem.metadata, "row": name})


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(workers=1, timeout_s=20, memory_mb=256) as shared:
        yield shared


@needs_sandbox
def test_programs_and_other_answers_are_judged_in_order(verifier: Verifier) -> None:
    double = "def twice(x):\n    return 2 * x"
    square = "def twice(x):\n    return x * x"
    judgements = verifier.judge(
        [TWICE, SUM, TWICE, TWICE, SUM, TWICE, TWICE],
        [
            fenced(TWICE.gold),
            boxed("2.0"),
            fenced(double),
            fenced(square),
            fenced(double),
            boxed(double),
            fenced("def twice(x) return 2 * x"),
        ],
    )
    assert judgements == [
        Judgement(TWICE.gold, CORRECT, 1.0),
        Judgement("2.0", CORRECT, None),
        Judgement(double, CORRECT, 1.0),
        Judgement(square, WRONG, 1 / 3),
        Judgement(None, UNPARSEABLE, None),
        Judgement(None, UNPARSEABLE, 0.0),
        Judgement("def twice(x) return 2 * x", UNPARSEABLE, 0.0),
    ]


@needs_sandbox
def test_a_program_that_is_too_long_does_not_run(verifier: Verifier) -> None:
    long = f"{TWICE.gold}\n#{'a' * 50_000}"
    assert verifier.judge([TWICE], [fenced(long)]) == [Judgement(long, UNPARSEABLE, 0.0)]


@needs_sandbox
def test_the_passed_tests_of_a_program_that_does_not_end_are_counted() -> None:
    program = "def twice(x):\n    while x == 2:\n        pass\n    return x + x"
    with Verifier(workers=1, timeout_s=1, memory_mb=256) as impatient:
        [judgement] = impatient.judge([TWICE], [fenced(program)])
    assert judgement == Judgement(program, TIMEOUT, 1 / 3)


@needs_sandbox
def test_threads_share_a_verifier(verifier: Verifier) -> None:
    """RL verifies rollouts of its next step while a second verifier reads those of the last."""
    slow = "import time\ndef twice(x):\n    time.sleep(0.1)\n    return x + x"
    with ThreadPoolExecutor(1) as thread:
        judged = thread.submit(verifier.judge, [TWICE] * 3, [fenced(slow)] * 3)
        while not judged.done():
            assert verifier.judge([SUM], [boxed("2.0")]) == [Judgement("2.0", CORRECT)]
    assert judged.result() == [Judgement(slow, CORRECT, 1.0)] * 3


@needs_sandbox
def test_a_reference_program_must_pass_its_own_tests(verifier: Verifier) -> None:
    wrong = on_row("mbpp.jsonl, line 2", replace(TWICE, gold="def twice(x):\n    return x * x"))
    no_test = on_row("mbpp.jsonl, line 3", code_problem("x = 1", ["x = 1"]))
    assert verifier.unreadable_golds([TWICE, wrong, no_test, SUM]) == [wrong, no_test]
    with pytest.raises(UserError, match=r"mbpp\.jsonl, line 2: .* passes 33% of its own tests; co"):
        verifier.verify([wrong], [fenced(wrong.gold)])


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "'tests' is None; give a list of texts"),
        ({"tests": []}, r"'tests' is \[\]; give a list of texts"),
        ({"tests": [1]}, r"'tests' is \[1\]; give a list of texts"),
        ({"tests": ["assert f()"], "setup": 1}, "'setup' is 1; give a text"),
        ({"tests": ["assert f()"], "entry_point": ["f"]}, "'entry_point' is .*; give a text"),
    ],
)
def test_a_problem_without_tests_is_an_error_that_names_it(
    verifier: Verifier, metadata: dict[str, object], message: str
) -> None:
    problem = on_row("mbpp.jsonl, line 5", replace(TWICE, metadata=metadata))
    with pytest.raises(UserError, match=f"^mbpp.jsonl, line 5: {message}"):
        verifier.verify([problem], [fenced("x = 1")])


def test_programs_are_refused_where_they_cannot_be_isolated(
    verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "is_available", lambda: False)
    assert verifier.verify([SUM], [boxed("2")]) == [("2", CORRECT)]
    with pytest.raises(UserError, match="cannot isolate them; use a Linux kernel with Landlock"):
        verifier.verify([TWICE], [fenced("x = 1")])
