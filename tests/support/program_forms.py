"""Programs and tests in all the forms that MBPP has, with own texts: `program_forms.txt`."""

from collections.abc import Mapping
from pathlib import Path

from reasoning_lab.types import Problem
from tests.support.programs import code_problem

_TEXT = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8")


def _problems(text: str) -> dict[str, Problem]:
    """By name: `## name`, the reference program, `-- setup` once or never, `-- test` for each."""
    problems = {}
    for section in text.split("## ")[1:]:
        name, _, body = section.partition("\n")
        program, *parts = body.split("\n-- ")
        by_kind = [part.partition("\n") for part in parts]
        tests = [content.strip() for kind, _, content in by_kind if kind == "test"]
        setup = "".join(content for kind, _, content in by_kind if kind == "setup")
        problems[name] = code_problem(program, tests, setup)
    return problems


_FORMS, _BEYOND = _TEXT.split("\n# What is no data does not cross\n")
FORMS: Mapping[str, Problem] = {
    **_problems(_FORMS),
    "windows lines": code_problem("def one():\r\n  return 1\r\n", ["assert one() == 1\r\n"]),
}
# Their reference programs do not pass.
BEYOND: Mapping[str, Problem] = _problems(_BEYOND)
