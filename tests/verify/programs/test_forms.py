"""Reference programs pass their tests in all forms that MBPP and HumanEval have."""

import ast
from collections.abc import Iterator, Mapping

import pytest

from reasoning_lab.types import Problem, Verdict
from reasoning_lab.verify.programs.pool import ProgramPool, ProgramResult
from reasoning_lab.verify.sandbox import is_available
from tests.support.program_forms import BEYOND, FORMS
from tests.support.programs import completion_problem

pytestmark = pytest.mark.skipif(not is_available(), reason="this kernel has no Landlock")

CORRECT, WRONG, UNPARSEABLE = Verdict.CORRECT, Verdict.WRONG, Verdict.UNPARSEABLE

GIVEN = """from typing import List

def shifted(text: str) -> str:
    return "".join(chr(ord(c) + 1) for c in text)


def restored(texts: List[str]) -> List[str]:
    \"\"\" Undo `shifted` for each text.
    >>> restored(["bc"])
    ['ab']
    \"\"\"
"""
BODY = "    return ['' .join(chr(ord(c) - 1) for c in text) for text in texts]\n"
CHECK = """

METADATA = {'author': 'nobody'}


def check(candidate):
    # Check some simple cases
    assert True, "This prints if this assert fails 1"
    texts = ["abc", "xyz"]
    assert candidate([]) == []
    assert candidate(["bc", "cd"]) == ["ab", "bc"], "message"
    for text in texts:
        assert candidate([shifted(text)]) == [text]
"""
RESTORED = completion_problem(GIVEN, BODY, CHECK, "restored")


@pytest.fixture(scope="module")
def pool() -> Iterator[ProgramPool]:
    shared = ProgramPool(workers=2, timeout_s=60, memory_mb=256)
    yield shared
    shared.close()


def results_of(pool: ProgramPool, problems: Mapping[str, Problem]) -> dict[str, ProgramResult]:
    golds = [problem.gold for problem in problems.values()]
    return dict(zip(problems, pool.results([*problems.values()], golds), strict=True))


def test_reference_programs_pass_their_tests(pool: ProgramPool) -> None:
    assert results_of(pool, FORMS) == dict.fromkeys(FORMS, ProgramResult(CORRECT, 1.0))


def test_what_is_no_data_does_not_cross(pool: ProgramPool) -> None:
    assert results_of(pool, BEYOND) == dict.fromkeys(BEYOND, ProgramResult(WRONG, 0.0))


def test_functions_that_return_something_else_fail(pool: ProgramPool) -> None:
    programs = []
    for problem in FORMS.values():
        definitions = (ast.FunctionDef, ast.ClassDef)
        names = [n.name for n in ast.parse(problem.gold).body if isinstance(n, definitions)]
        programs.append("".join(f"def {n}(*a, **k):\n    return 'zqxmark'\n" for n in names))
    results = pool.results([*FORMS.values()], programs)
    passed = [name for name, r in zip(FORMS, results, strict=True) if r.verdict is not WRONG]
    # The only test that asks what a value is not.
    assert passed == ["tuple is no list"]


# A test: two assertions and a loop; `assert True` is none.
@pytest.mark.parametrize(
    ("program", "verdict", "passed"),
    [
        (GIVEN + BODY, CORRECT, 3),
        # As a base model continues the prompt.
        (BODY, CORRECT, 3),
        # As a chat model writes it, without the imports and helpers that the prompt gave.
        (f"def restored(texts: List[str]) -> List[str]:\n{BODY}", CORRECT, 3),
        ("def restored(texts):\n    return texts", WRONG, 1),
        ("    return []", WRONG, 1),
        # The tests have their own copy of the prompt's helper.
        ("def shifted(t):\n    return t\ndef restored(texts):\n    return texts", WRONG, 1),
        ("def other(texts):\n    return texts", WRONG, 0),
        ("restored = [", UNPARSEABLE, 0),
    ],
)
def test_a_program_completes_a_prompt(
    pool: ProgramPool, program: str, verdict: Verdict, passed: int
) -> None:
    assert pool.results([RESTORED], [program]) == [ProgramResult(verdict, passed / 3)]


@pytest.mark.parametrize(
    "test",
    [
        "def check(f):\n    compare(f)\ndef compare(f):\n    assert f(['b']) == ['a']",
        "assert restored(['b']) == ['a']",
        "class Test:\n    def run(self):\n        assert restored(['b']) == ['a']\nTest().run()",
    ],
)
def test_assertions_outside_of_check_are_one_test(pool: ProgramPool, test: str) -> None:
    problem = completion_problem(GIVEN, BODY, test, "restored")
    results = pool.results([problem] * 2, [problem.gold, "def restored(x):\n    return x"])
    assert results == [ProgramResult(CORRECT, 1.0), ProgramResult(WRONG, 0.0)]


@pytest.mark.parametrize(
    "test", ["", "restored([])", "assert True", "assert (", "def check(candidate):\n    pass"]
)
def test_what_asserts_nothing_is_passed_by_nothing(pool: ProgramPool, test: str) -> None:
    problem = completion_problem(GIVEN, BODY, test, "restored")
    assert pool.results([problem], [problem.gold]) == [ProgramResult(WRONG, 0.0)]
