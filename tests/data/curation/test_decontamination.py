"""Normalized words, and which problems give a benchmark away."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning_lab.data.curation.decontamination import Decontaminate
from reasoning_lab.data.curation.normalization import normalized_words
from reasoning_lab.data.curation.step import CurationContext
from reasoning_lab.types import Completion, Problem, Rollout, UserError, Verdict, prompt_id

LONG = "A train leaves Oslo at noon and reaches Bergen seven hours later"


def reason(prompt: str, *benchmark: str, **options: object) -> str | None:
    """Why `prompt` is removed when `benchmark` holds these problems."""
    rollout = Rollout(Problem(prompt, "1", "math", "f"), Completion([], ""), "1", Verdict.WRONG, "")
    context = CurationContext(0, {}, {"bench": benchmark})
    (found,) = Decontaminate(**options).drop_reasons([rollout], context)  # type: ignore[arg-type]
    return found


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


@pytest.mark.parametrize(
    ("prompt", "shared"),
    [
        (LONG, "the whole text"),
        (LONG.upper().replace(" ", "  "), "the whole text"),
        (
            f"Think. {LONG}; how long does it take?",
            "the words 'a train leaves oslo at noon and reaches'",
        ),
        (
            "It leaves Oslo at noon and reaches Bergen seven days after",
            "the words 'leaves oslo at noon and reaches bergen seven'",
        ),
    ],
)
def test_eight_shared_words_give_a_problem_away(prompt: str, shared: str) -> None:
    assert reason(prompt, "Unrelated.", LONG) == (
        f"shares {shared} with bench {prompt_id(LONG)}: '{LONG}'"
    )


def test_seven_shared_words_do_not() -> None:
    assert reason("It leaves Oslo at noon and reaches Bergen six days after", LONG) is None
    assert reason("It leaves Oslo at noon and reaches Bergen", LONG, ngram_words=7)


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        (r"What is $\sqrt{16}+1$?", True),
        (r"Tell me: what is \sqrt{16} + 1? Be brief.", True),
        (r"What is $\sqrt{25}+1$?", False),
    ],
)
def test_a_benchmark_problem_shorter_than_an_ngram_is_found(prompt: str, found: bool) -> None:
    # Six words: what, is, sqrt, 16, +, 1.
    assert (reason(prompt, r"What is $\sqrt{16} + 1$?") is not None) is found


def test_trivial_benchmark_problems_match_only_as_the_whole_text() -> None:
    assert reason("First solve for x, then double it.", "Solve for x.") is None
    assert reason("SOLVE for $x$", "Solve for x.")
    assert reason("…", "?") is None  # No words on either side.
    assert reason("What?", "") is None


def test_overlap_asks_for_a_share_of_the_problem() -> None:
    # Of the 12 - 8 + 1 = 5 n-grams of LONG, the prompt has the first two.
    prompt = "A train leaves Oslo at noon and reaches Bergen"
    assert reason(prompt, LONG, overlap_frac=0.4)
    assert reason(prompt, LONG, overlap_frac=0.41) is None
    assert reason(f"Well: {LONG}?", LONG, overlap_frac=1.0)


def test_whole_overlap_tells_problems_of_one_template_apart() -> None:
    def problem(number: int) -> str:
        return f"Simplify {number}/9. Give only the simplified fraction as your final answer."

    assert reason(problem(7), problem(5))
    assert reason(problem(7), problem(5), overlap_frac=1.0) is None
    assert reason(f"Please: {problem(5)}", problem(5), overlap_frac=1.0)


def test_without_a_benchmark_it_says_so() -> None:
    with pytest.raises(UserError, match=r"no benchmark.*benchmark=\[…\].*remove the step"):
        reason(LONG)
