"""Decontamination: which problems overlap with a benchmark's."""

import pytest

from reasoning_lab.data.curation.decontamination import Decontaminate
from reasoning_lab.data.curation.step import CurationContext
from reasoning_lab.types import Completion, Problem, Rollout, UserError, Verdict, prompt_id

LONG = "A train leaves Oslo at noon and reaches Bergen seven hours later"


def reason(prompt: str, *benchmark: str, **options: object) -> str | None:
    """Why `prompt` is removed when `benchmark` holds these problems."""
    rollout = Rollout(Problem(prompt, "1", "math", "f"), Completion([], ""), "1", Verdict.WRONG, "")
    context = CurationContext(0, float, {"bench": benchmark})
    (drop_reason,) = Decontaminate(**options).drop_reasons([rollout], context)  # type: ignore[arg-type]
    return drop_reason


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
    ("prompt", "is_match"),
    [
        (r"What is $\sqrt{16}+1$?", True),
        (r"Tell me: what is \sqrt{16} + 1? Be brief.", True),
        (r"What is $\sqrt{25}+1$?", False),
    ],
)
def test_a_benchmark_problem_shorter_than_an_ngram_is_found(prompt: str, is_match: bool) -> None:
    # Six words: what, is, sqrt, 16, +, 1.
    assert (reason(prompt, r"What is $\sqrt{16} + 1$?") is not None) is is_match


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
