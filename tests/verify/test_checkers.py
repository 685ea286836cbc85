"""What each checker makes of an answer; verdicts follow from mathematics and from the docs."""

import time
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning_lab.types import Problem, UserError, Verdict
from reasoning_lab.verify.checkers import UnreadableGoldError, check, gold_error
from reasoning_lab.verify.choice import parse_choice
from reasoning_lab.verify.number import parse_number

CORRECT, WRONG, UNPARSEABLE = Verdict.CORRECT, Verdict.WRONG, Verdict.UNPARSEABLE
OPTIONS = ["32400", "6000", "53", "A rectangle", "None of these"]


def verdict(checker: str, gold: str, answer: str, **metadata: Any) -> Verdict:
    return check(Problem("q?", gold, checker, "f", metadata=metadata), answer)


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        (
            "18",
            "18 18. 18.0 18.00 +18 $18 \\$18 $18$ $\\$18$ 36/2 \\frac{36}{2} 18\\$ €18",
            "81 -18 17.99",
        ),
        (
            "1234",
            "1,234 1{,}234 1\\,234 1,\\!234 $1,234 1,234.00 \\textbf{1,234}",
            "1,235 1.234 234",
        ),
        ("1,234,567", "1234567 1,234,567.0 $1,234,567", "1,234,568 1234"),
        ("-3", "−3 –3 -3.0 -$3 $-3 \\frac{-6}{2} -\\frac{6}{2}", "3 -$3.5 +3"),
        ("12.50", "12.5 $12.50 25/2 \\dfrac{25}{2}", "12.05 1250 12"),
        ("3/4", "0.75 .75 6/8 \\frac34 \\tfrac{3}{4} \\cfrac{3}{4} \\frac3{4}", "4/3 0.7499 -3/4"),
        ("0.3333333333333333", "0.3333333333333333", "1/3 0.333"),
        ("123456789012345678901", "123456789012345678901", "123456789012345678902"),
    ],
)
def test_number_is_compared_exactly(gold: str, right: str, wrong: str) -> None:
    assert {a: verdict("number", gold, a) for a in right.split()} == dict.fromkeys(
        right.split(), CORRECT
    )
    assert {a: verdict("number", gold, a) for a in wrong.split()} == dict.fromkeys(
        wrong.split(), WRONG
    )


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [
        ("3/2", "1 1/2", CORRECT),
        ("1 1/2", "1\\frac{1}{2}", CORRECT),
        ("-3/2", "-1 \\dfrac12", CORRECT),
        ("-1/2", "-1 1/2", WRONG),
        ("18", "18 dollars", CORRECT),
        ("18 dollars", "\\$18", CORRECT),
        ("$18", "18 euros", WRONG),
        ("5\\text{ cm}", "5", CORRECT),
        ("5", "5\\text{ cm}", CORRECT),
        ("5\\text{ cm}", "5\\,\\mathrm{centimeters}", CORRECT),
        ("5\\text{ cm}", "5 m", WRONG),
        ("5\\text{ cm}", "6\\text{ cm}", WRONG),
        ("5 cm^2", "5\\text{ cm}^{2}", CORRECT),
        ("5 cm^2", "5 cm", WRONG),
        ("1 m", "100 cm", WRONG),
        ("30 miles per hour", "30 miles/hour", CORRECT),
        ("1 box", "1 boxes", CORRECT),
        ("90^\\circ", "90 degrees", CORRECT),
        # A percent sign is a unit: ignored where one side alone has it, never a division.
        ("40", "40\\%", CORRECT),
        ("40%", "40", CORRECT),
        ("40%", "40 percent", CORRECT),
        ("40%", "0.4", WRONG),
        ("0.4", "40%", WRONG),
        ("40%", "40 dollars", WRONG),
        ("12", "12 million", WRONG),
        ("1,200,000", "$1.2 million", CORRECT),
    ],
)
def test_number_with_its_unit(gold: str, answer: str, expected: Verdict) -> None:
    assert verdict("number", gold, answer) is expected


@pytest.mark.parametrize(
    "answer",
    ["eighteen", "1,23", "0,123", "1 2", "1, 2", "18 or 19", "18 or six", "18 and a half",
     "18x", "3i", "20!", "10^{5}", "1e5", "2^3", "1/2/3", "1/0",
     "\\frac{1}{2}5", "5\\frac{-1}{2}",
     "-$-18", "\\{18\\}", "(18, 19)", "12:30", "$", "-", ".", "\\frac", "٣", "18k"],
)  # fmt: skip
def test_what_is_not_one_number_is_unparseable(answer: str) -> None:
    assert verdict("number", "18", answer) is UNPARSEABLE


@given(st.fractions())
def test_number_reads_every_fraction_in_each_spelling(value: Fraction) -> None:
    sign, top, bottom = "-" if value < 0 else "", abs(value.numerator), value.denominator
    whole, part = divmod(top, bottom)
    for text in (
        f"{sign}{top}/{bottom}",
        f"{sign}{top:,}/{bottom:,}",
        f"{sign}\\frac{{{top}}}{{{bottom}}}",
        f"{sign}{whole} {part}/{bottom}",
        f"{sign}{whole}\\dfrac{{{part}}}{{{bottom}}}",
    ):
        found = parse_number(text)
        assert found is not None
        assert found.value == value


@given(st.text(alphabet="0123456789.,/-+$% \\{}^frac te~()CAB", max_size=40), st.booleans())
def test_readers_take_any_text(text: str, known: bool) -> None:
    parse_number(text)
    assert parse_choice(text, OPTIONS if known else []) in (None, "several", *"ABCDEFGHIJ")


@pytest.mark.parametrize(
    "unit",
    ["1", "1,111", "1 ", "1/", "-", "$", "a ", "\\frac", "\\frac{", "{", "~", "\\text", ".'", "^2",
     "A", "A) "],
)  # fmt: skip
def test_readers_are_linear_on_hostile_text(unit: str) -> None:
    for text in (unit * 20_000, "1 " + unit * 20_000, "C) " + unit * 20_000 + "!"):
        start = time.process_time()
        parse_number(text)
        parse_choice(text, OPTIONS)
        # Quadratic time would be 10^9 steps and more.
        assert time.process_time() - start < 2


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


# Gold, what equals it, what doesn't; judged by math-verify.
MATH = [
    ("(1,2]", ["(1, 2]", "\\left(1,2\\right]"], ["[1,2]", "(1,2)", "[1,2)", "(1,3]", "(2,1]"]),
    ("[1,2]", ["[1, 2]", "\\left[1,2\\right]"], ["(1,2]", "(1,2)", "\\{1,2\\}", "[1,3]"]),
    ("\\{1,2\\}", ["\\{2,1\\}", "\\left\\{2, 1\\right\\}"], ["\\{1,3\\}", "\\{1\\}", "[1,2]"]),
    ("\\{1,2,3\\}", ["\\{3,1,2\\}"], ["\\{1,2\\}", "\\{1,2,3,4\\}"]),
    ("(-\\infty, 3)", ["(-\\infty,3)", "(-\\infty, +3)"], ["(-\\infty,3]", "(3,\\infty)", "[3]"]),
    ("(-\\infty, 3]", ["\\left(-\\infty,3\\right]"], ["(-\\infty,3)", "(-\\infty,4]"]),
    ("(-\\infty,1)\\cup(2,\\infty)", ["(2,\\infty)\\cup(-\\infty,1)"],
     ["(-\\infty,1)\\cup[2,\\infty)"]),
    ("5\\text{ cm}", ["5", "5\\,\\text{cm}", "5 \\mathrm{cm}"], ["6\\text{ cm}", "6"]),
    ("5", ["5\\text{ cm}", "5.0"], ["6\\text{ cm}", "50"]),
    ("1,234", ["1234", "1{,}234", "1,234.0"], ["1,235", "234"]),
    ("\\frac{3}{2}", ["1\\frac{1}{2}", "\\dfrac{3}{2}", "\\dfrac{6}{4}", "1.5"], ["\\dfrac{2}{3}"]),
    ("50\\%", ["50\\%", "50%", "50", "0.5"], ["51\\%", "5\\%", "0.05"]),
    ("20!", ["2432902008176640000"], ["20!+1", "2432902008176640001"]),
    ("20!+1", ["1 + 20!"], ["20!"]),
    ("\\frac{1}{20!}", ["1/20!"], ["\\frac{1}{21!}", "0"]),
    ("\\frac{1}{2004!}", ["\\frac{2}{2 \\cdot 2004!}"], ["\\frac{1}{2006!}", "0"]),
    ("2^{-99}", ["\\frac{1}{2^{99}}"], ["2^{-98}", "0"]),
    ("0", ["1-1"], ["10^{-30}", "\\frac{1}{20!}"]),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "right", "wrong"), MATH)
def test_math_judges_in_both_directions(gold: str, right: list[str], wrong: list[str]) -> None:
    assert [a for a in right if verdict("math", gold, a) is not CORRECT] == []
    assert [a for a in wrong if verdict("math", gold, a) is not WRONG] == []


@pytest.mark.parametrize(
    ("checker", "gold"),
    [
        ("math", "???"),
        ("math", "\\frac{"),
        ("number", "about 18"),
        ("number", "9" * 5_000),
        ("choice", "K"),
        ("choice", "A or B"),
        ("reasoning_gym/complex_arithmetic", "5"),
    ],
)
def test_an_unreadable_gold_is_told_whatever_the_answer(checker: str, gold: str) -> None:
    problem = Problem("q?", gold, checker, "f", metadata={"row": "gsm8k.jsonl, line 7"})
    complaint = gold_error(problem)
    assert complaint is not None
    assert complaint.startswith("gsm8k.jsonl, line 7: ")
    assert len(complaint) < 400


@pytest.mark.parametrize("checker", ["math", "number", "choice"])
def test_no_answer_is_checked_against_an_unreadable_gold(checker: str) -> None:
    for answer in ("???", "5", "A", ""):
        with pytest.raises(UnreadableGoldError, match=r"line 7: .*can't read the gold '\?\?\?'"):
            verdict(checker, "???", answer, row="line 7")


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


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        (
            "18",
            "**18**; \\approx 18; about 18; 18\u200b; \\$18/\\text{hour}; x = 18; 9*2=18;"
            " (20-2) = 18",
            "3 = 18; 18 = 3; 2+2=18; \\neq 18; > 18; 2x = 18; 18 = 18.5; \\sim 18; 18-20",
        ),
        ("18000", "18 000; 18\u00a0000; 18\\,000; 18 thousand", "18, 000; 18 00; 1 8000; 18"),
        ("33.33", "100/3 = 33.33", "100/4 = 33.33; 33.34"),
        ("3.5", "3½; 3 1/2", "½; 31/2"),
    ],
)
def test_number_in_the_spellings_of_people(gold: str, right: str, wrong: str) -> None:
    for answer in right.split("; "):
        assert verdict("number", gold, answer) is CORRECT, answer
    for answer in wrong.split("; "):
        assert verdict("number", gold, answer) is not CORRECT, answer


def test_an_error_of_sympys_ends_no_run() -> None:
    assert verdict("math", "5", "1" + "/m" * 900) in (WRONG, UNPARSEABLE)
