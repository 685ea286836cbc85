"""Normalized words: equal for spellings of one text, different for different texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning_lab.data.curation.normalization import normalized_words


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"$\dfrac{1}{2}$", r"\frac 12"),
        (r"\tfrac12 x", r"$\frac{1}{2}x$"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{π}{2})"),
        (r"5\text{ cm}", "5 CM"),
        (r"a\,b\;c\quad d\ e~f", "a b c d e f"),
        (r"10{,}000 and 1,\!000", "10000 and 1,000"),
        (r"x^{2} \le 3 \cdot y_{1}", "x² ≤ 3 · y_1"),
        (r"90^{\circ}", "90°"),
        (r"x - 3 \geq 1", "x \u2212 3 ≥ 1"),
        (r"\[ |x| = 3.5 \]", r"$\lvert x\rvert=3.5$"),
        ("ﬁnd it, please!", "FIND it please"),
        ("see [asy] draw((0,0)--(1,1)); [/asy] here", "see here"),
        (r"50\%", "50%"),
        (r"a \neq b \leqslant c \lt d", "a ≠ b <= c < d"),
        (r"\tbinom{5}{2} \div 3", r"\binom{5}{2} ÷ 3"),
        (r"\mathbb{R} \rightarrow \operatorname{im} f", "R → im f"),
        (r"\bigl( \lambda \bigr)", "(λ)"),
    ],
)
def test_spellings_of_one_text_have_the_same_words(one: str, other: str) -> None:
    assert normalized_words(one) == normalized_words(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("4 - 3 + 2", "4 + 3 - 2"),
        (r"\frac{1}{23}", r"\frac{12}{3}"),
        ("3.5", "35"),
        ("x^2", "x2"),
        ("sin x", "cos x"),
        ("(1,2)", "12"),
    ],
)
def test_different_texts_have_different_words(one: str, other: str) -> None:
    assert normalized_words(one) != normalized_words(other)


def test_words_by_hand() -> None:
    expected = ["find", "frac", "3", "4", "of", "1200", "apples", "=", "x", "^", "2"]
    assert normalized_words(r"Find $\tfrac{3}{4}$ of 1,200 apples = $x^2$.") == expected


def test_a_drawing_that_never_ends_keeps_its_words() -> None:
    assert normalized_words("a [asy] b") == ["a", "b"]


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_words_are_their_own_words(text: str) -> None:
    once = normalized_words(text)
    assert normalized_words(" \n".join(once)) == once
