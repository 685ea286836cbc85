"""What a problem says of its tests, as the two processes read it.

`metadata["tests"]` are texts of Python; each is a test, or HumanEval's `check(candidate)`.
`metadata["setup"]` runs before them. `metadata["entry_point"]` names the one function that the
tests take from the program, and `metadata["given_code"]` is the code that its prompt gives. Without
an entry point the tests may use every name that the reference program, the gold, defines.
"""

import json
from typing import Any

from reasoning_lab.types import Problem, UserError

_TEXTS = ("setup", "given_code")


def requests_of(problem: Problem, program: str) -> tuple[bytes, bytes]:
    """Return the request of the program's process, and that of the tests' process.

    Raises:
        UserError: The problem has no tests, or something else than texts.
    """
    tests = problem.metadata.get("tests")
    if not isinstance(tests, list | tuple) or not tests or not all(map(_is_text, tests)):
        raise UserError(
            f"{problem.origin}: 'tests' is {tests!r}; give a list of texts, each a test in Python"
        )
    texts = {name: problem.metadata.get(name) or "" for name in _TEXTS}
    entry_point = problem.metadata.get("entry_point")
    for name, text in [*texts.items(), ("entry_point", entry_point or "")]:
        if not _is_text(text):
            raise UserError(f"{problem.origin}: '{name}' is {text!r}; give a text, or leave it out")
    shared = {"given_code": texts["given_code"], "entry_point": entry_point or None}
    of_program = {"program": program}
    of_tests = {"tests": list(tests), "setup": texts["setup"], "reference": problem.gold}
    return json.dumps(shared | of_program).encode(), json.dumps(shared | of_tests).encode()


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
