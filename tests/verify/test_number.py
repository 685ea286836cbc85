"""The checker `number`: exact values, units and spellings."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning_lab.types import Verdict
from reasoning_lab.verify.number import parse_number
from tests.support.verification import verdict

CORRECT, WRONG, UNPARSEABLE = Verdict.CORRECT, Verdict.WRONG, Verdict.UNPARSEABLE


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
        number = parse_number(text)
        assert number is not None
        assert number.value == value


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


@given(st.text(alphabet="0123456789.,/-+$% \\{}^frac te~()CAB", max_size=40))
def test_any_text_can_be_parsed(text: str) -> None:
    parse_number(text)


@pytest.mark.parametrize(
    "unit",
    ["1", "1,111", "1 ", "1/", "-", "$", "a ", "\\frac", "\\frac{", "{", "~", "\\text", ".'", "^2",
     "A", "A) "],
)  # fmt: skip
def test_hostile_text_is_parsed_in_linear_time(unit: str) -> None:
    for text in (unit * 20_000, "1 " + unit * 20_000, "C) " + unit * 20_000 + "!"):
        start = time.process_time()
        parse_number(text)
        # Quadratic time would be 10^9 steps and more.
        assert time.process_time() - start < 1
