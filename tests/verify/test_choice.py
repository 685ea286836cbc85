"""The checker `choice`: letters, options' texts and sentences."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning_lab.types import Problem, UserError, Verdict
from reasoning_lab.verify.checkers import gold_error
from reasoning_lab.verify.choice import SEVERAL_OPTIONS, parse_choice
from tests.support.verification import verdict

CORRECT, WRONG, UNPARSEABLE = Verdict.CORRECT, Verdict.WRONG, Verdict.UNPARSEABLE

OPTIONS = ["32400", "6000", "53", "A rectangle", "None of these"]


def test_a_letter_names_its_option_in_every_form() -> None:
    forms = r"C|c|(C)|(c)|C)|C.|C:|\text{C}|\textbf{(C)}|\mathrm{C}|$C$|\left(C\right)|**C**"
    forms += "|Option C|The answer is C|C) 53|C. 53|(C) 53|C)53|C: 53"
    for form in forms.split("|"):
        for choices in (OPTIONS, []):
            assert verdict("choice", "C", form, choices=choices) is CORRECT, form
            assert verdict("choice", "D", form, choices=choices) is WRONG, form


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("53", CORRECT),
        ("  53 ", CORRECT),
        ("$53$", CORRECT),
        ("c) 53", CORRECT),
        ("6000", WRONG),
        ("a  RECTANGLE", WRONG),
        ("none of these", WRONG),
        ("D. A rectangle", WRONG),
        ("C) 6000", WRONG),
        ("C) or D)", WRONG),
        ("C or D", WRONG),
        ("A or C", WRONG),
        ("C, A", WRONG),
        ("(C)(D)", WRONG),
        ("C) 53 or B", WRONG),
        ("54", UNPARSEABLE),
        ("F", UNPARSEABLE),
        ("3", UNPARSEABLE),
        ("cat", UNPARSEABLE),
        ("Carefully", UNPARSEABLE),
        ("c or d", UNPARSEABLE),
        ("", UNPARSEABLE),
    ],
)
def test_choice_by_text_and_never_by_two(answer: str, expected: Verdict) -> None:
    assert verdict("choice", "C", answer, choices=OPTIONS) is expected


def test_a_text_that_two_options_share_names_neither() -> None:
    assert verdict("choice", "A", "5", choices=["5", "5", "6"]) is UNPARSEABLE
    assert verdict("choice", "A", "A", choices=["5", "5", "6"]) is CORRECT


def test_an_options_own_label_is_no_part_of_its_text() -> None:
    choices = ["A)32400", "B)6000", "C)600"]
    assert verdict("choice", "B", "6000", choices=choices) is CORRECT
    assert verdict("choice", "B", "B)6000", choices=choices) is CORRECT


def test_a_letter_behind_the_last_option_names_nothing() -> None:
    assert verdict("choice", "A", "D", choices=["1", "2", "3"]) is UNPARSEABLE
    assert gold_error(Problem("q", "D", "choice", "f", metadata={"choices": ["1", "2"]}))


@pytest.mark.parametrize("choices", ["AB", [1, 2], ["x"] * 27, 5])
def test_choices_must_be_at_most_twenty_six_texts(choices: Any) -> None:
    with pytest.raises(UserError, match="'choices' is"):
        verdict("choice", "A", "B", choices=choices)


@pytest.mark.parametrize(
    ("gold", "choices", "right", "wrong"),
    [
        (
            "B",
            [],
            "B; (b); **B**; Ⓑ; b. 25; B = 25; B (25 km/h); I would pick B - a safe choice;"
            " B because 2 > 1",
            "AB; A, B; B or C; not B; all but B; 2B; B^2; B+C; B'; a. 2, b. 3;"
            " C because B is wrong",
        ),
        (
            "B",
            ["24 km/h", "25 km/h", "A car"],
            "b. 25; 25 km/h; 25; B: 25; B = 25; B - 25 km/h",
            "B) 24 km/h; b. 24; B = 24; 24; A car; B or A car; B (24 km/h); 25 m/s",
        ),
        ("C", ["24", "25", "A car"], "A car; C) a car", "A; A) car; A because of C"),
        ("A", ["24", "25", "A car"], "A because it is slow; A is correct", "A car"),
        (
            "B",
            ["red", "green", r"\frac{1}{4}", "3:7", "None of these"],
            "[B]; \"B\"; 'B'; Green.; B. Green",
            "B is wrong; (B) is incorrect; other than B; I cannot choose B; 1/4; B. 3 : 7",
        ),
        ("C", ["red", "green", r"\frac{1}{4}", "3:7"], "1/4; 0.25; \\frac14", "4; 3:7"),
        ("D", ["red", "green", "blue", "3:7"], "3 : 7; D) 3 : 7", "7:3"),
        ("D", ["red", "green", "blue", "None of these"], "none of these.", "these"),
        ("Z", [str(3 * n) for n in range(26)], "Z; (z); Z) 75; 75", "Y; 72"),
        ("J", [], "J; (j)", "K; I"),
        ("D", ["20%", "0%", "-10%", "-20%"], "D)-20%; -20%", "D)20%; 20%"),
    ],
)
def test_a_choice_in_a_sentence(gold: str, choices: list[str], right: str, wrong: str) -> None:
    for answer in right.split("; "):
        assert verdict("choice", gold, answer, choices=choices) is CORRECT, answer
    for answer in wrong.split("; "):
        assert verdict("choice", gold, answer, choices=choices) is not CORRECT, answer


@given(st.text(alphabet="0123456789.,/-+$% \\{}^frac te~()CAB", max_size=40), st.booleans())
def test_any_text_can_be_parsed(text: str, has_options: bool) -> None:
    letter = parse_choice(text, OPTIONS if has_options else [])
    assert letter in (None, SEVERAL_OPTIONS, *"ABCDEFGHIJ")


@pytest.mark.parametrize(
    "unit",
    ["1", "1,111", "1 ", "1/", "-", "$", "a ", "\\frac", "\\frac{", "{", "~", "\\text", ".'", "^2",
     "A", "A) "],
)  # fmt: skip
def test_hostile_text_is_parsed_in_linear_time(unit: str) -> None:
    for text in (unit * 20_000, "1 " + unit * 20_000, "C) " + unit * 20_000 + "!"):
        start = time.process_time()
        parse_choice(text, OPTIONS)
        # Quadratic time would be 10^9 steps and more.
        assert time.process_time() - start < 2
