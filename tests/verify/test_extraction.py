"""Which answer is extracted from a completion, and in which time."""

import time

import pytest

from reasoning_lab.verify import extract_answer
from reasoning_lab.verify.extraction import extract_program
from tests.support.verification import boxed


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (boxed("7"), "7"),
        ("first \\boxed{1}, then \\boxed{2}, so \\boxed{3}.", "3"),
        ("<think>\\boxed{1}</think> so \\boxed{2}", "2"),
        ("<think>\\boxed{1}</think> I forgot the boxed", None),
        ("<think>a</think>\\boxed{1}</think>\\boxed{2}", "2"),
        ("<think>no end, \\boxed{1}", None),
        ("so \\boxed {12}", "12"),
        (boxed("\\frac{1}{\\sqrt{2}}"), "\\frac{1}{\\sqrt{2}}"),
        (boxed("\\{ x \\mid x < 1 \\"), None),
        (boxed("a \\} b"), "a \\} b"),
        ("\\boxed{\\boxed{5}}", "5"),
        (boxed("  12\n"), "12"),
        (boxed(""), None),
        (boxed("  "), None),
        ("\\boxed{1} and \\boxed{2", None),
        ("boxed{1}", None),
        ("\\fbox{42}", "42"),
        ("$\\boxed 18$.", "18"),
        ("\\boxed\\frac12", "\\frac12"),
        ("-\\boxed{5}", "-5"),
        ("\\boxed{5} is marked with \\boxed{}", "5"),
        ("\\boxed{\\text{ }}", None),
        ("\\boxed{(1,2)} and \\boxed{(2,1)}", "(1,2), (2,1)"),
        ("$x = \\boxed{3}$, or $x = \\boxed{5}$", "3, 5"),
        ("\\boxed{4}\n\n**Final answer**\n\\boxed{7}", "7"),
        ("\\boxed{x = \\boxed{5} + 1}", "x = \\boxed{5} + 1"),
        ("<think>a</think>\\boxed{5}</think>", "5"),
        ("So \\boxed{5}</think>\n", "5"),
        ("draft \\boxed{1}</think> no answer", None),
        ("<think>a</think>\\boxed{2}<think>b \\boxed{3}", "2"),
        ("", None),
    ],
)
def test_last_closed_box_after_the_thought_is_the_answer(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\\boxed{" * 300_000, None),
        ("\\boxed{1}" * 300_000, "1"),
        ("\\boxed{" + "{" * 1_000_000, None),
        (
            "\\boxed{" + "{" * 1_000_000 + "5" + "}" * 1_000_001,
            "{" * 1_000_000 + "5" + "}" * 1_000_000,
        ),
        ("\\boxed{" + "\\" * 2_000_000, None),
        ("</think>" * 300_000 + "\\boxed{2}", "2"),
    ],
    ids=["open boxes", "closed boxes", "open braces", "nested", "backslashes", "thoughts"],
)
def test_megabytes_are_extracted_in_linear_time(text: str, answer: str | None) -> None:
    start = time.process_time()
    assert extract_answer(text) == answer
    # Quadratic time would be 10^12 steps.
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\nx = 1\n```", "x = 1"),
        ("It is\n\n```\nx = 1\ny = 2\n```\nas asked.", "x = 1\ny = 2"),
        ("```Python3\nx = 1\n```", "x = 1"),
        ("```py\nx = 1\n```\nor, better,\n~~~\nx = 2\n~~~", "x = 2"),
        ("<think>```\nx = 1\n```</think>\n```\nx = 2\n```", "x = 2"),
        ("<think>\n```\nx = 1\n```\n</think>\nNo program.", None),
        ("<think>\n```\nx = 1\n```", None),
        ("</think>\n```\nx = 1\n```", "x = 1"),
        # Only the output of a program, or how it is called.
        ("```python\nx = 1\n```\nprints\n```text\n1\n```", "x = 1"),
        ("```bash\npython x.py\n```", None),
        ("```python\nx = 1\n```\n```python\n\n```", "x = 1"),
        # The body of a function keeps its indentation, and a block in a list loses the list's.
        ("```python\n    return 1\n```", "    return 1"),
        ("1. So:\n   ```python\n   def f():\n       return 1\n   ```", "def f():\n    return 1"),
        # A longer fence holds a shorter one.
        ("````\ns = '''\n```\n'''\n````", "s = '''\n```\n'''"),
        ("```python\nx = 1\n```\n```python\nx = 2", None),
        ("```python\nx = 1", None),
        ("```python x = 1```", None),
        ("x = 1", None),
        (boxed("x = 1"), None),
        ("", None),
    ],
)
def test_the_program_is_the_last_block_behind_the_thought(text: str, program: str | None) -> None:
    assert extract_program(text) == program


@pytest.mark.parametrize("unit", ["```\n", "```\nx\n", " " * 99 + "`", "~~~a`"])
def test_a_program_is_extracted_in_linear_time(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    start = time.process_time()
    extract_program(text)
    assert time.process_time() - start < 5
