"""Problems whose answers are programs, in the layouts of MBPP and HumanEval, with own texts."""

from collections.abc import Sequence

from reasoning_lab.types import Problem


def code_problem(gold: str, tests: Sequence[str], setup: str = "") -> Problem:
    """A problem in MBPP's layout: tests that use the names of the reference program."""
    metadata = {"tests": list(tests), "setup": setup}
    return Problem(f"Write a program: {tests}", gold, "python", "code", metadata=metadata)


def completion_problem(given_code: str, body: str, test: str, entry_point: str) -> Problem:
    """A problem in HumanEval's layout: code to complete, and `check(candidate)`."""
    metadata = {"tests": [test], "given_code": given_code, "entry_point": entry_point}
    gold = f"{given_code}{body}"
    return Problem(given_code, gold, "python", "code", metadata=metadata)


def fenced(program: str) -> str:
    """A completion that ends in the program."""
    return f"<think>\nLet me write it.\n</think>\n```python\n{program}\n```"
