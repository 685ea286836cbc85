"""Deduplication: which rollouts repeat an earlier problem or completion."""

import pytest

from reasoning_lab.data.curation.deduplication import (
    DuplicateCompletions,
    DuplicateProblems,
    NearDuplicates,
)
from tests.support.curation import reasons, rollout


def test_other_spellings_of_a_prompt_go_but_its_other_rollouts_stay() -> None:
    rows = [rollout("a b", "1"), rollout("A  b", "2"), rollout("a b", "3"), rollout("c", "1")]
    drop_reasons = reasons(DuplicateProblems(), rows)
    assert drop_reasons == [None, f"another spelling of problem {rows[0].problem.id}", None, None]


def test_a_prompt_with_another_gold_is_a_duplicate_too() -> None:
    assert reasons(DuplicateProblems(), [rollout("a"), rollout("a", gold="2")])[1] is not None


def test_identical_completions_of_one_problem_go() -> None:
    rows = [rollout("a", "x"), rollout("b", "x"), rollout("a", "y"), rollout("a", "x")]
    drop_reasons = reasons(DuplicateCompletions(), rows)
    assert drop_reasons == [None, None, None, "the same completion as before"]


# Twelve words, eight shingles of five; another last word changes one, so 7 of 9 are shared.
SHEEP = "one two three four five six seven eight nine ten eleven twelve"


@pytest.mark.parametrize(("threshold", "removed"), [(0.77, True), (0.79, False)])
def test_near_duplicates_are_decided_by_the_exact_similarity(
    threshold: float, removed: bool
) -> None:
    rows = [rollout(SHEEP), rollout("unlike"), rollout(SHEEP.replace("twelve", "TEN"), "t")]
    drop_reasons = reasons(NearDuplicates(threshold=threshold), [*rows, rows[2], rows[0]])
    expected = f"similarity 0.78 with {rows[0].problem.id}: '{SHEEP}'" if removed else None
    assert drop_reasons == [None, None, expected, expected, None]


def test_respelt_problems_are_near_duplicates_and_short_ones_are_not_all_alike() -> None:
    rows = [
        rollout(r"$\dfrac{1}{2}$"),
        rollout(r"\frac12"),
        rollout("?"),
        rollout("!"),
        rollout("x"),
    ]
    assert [drop_reason is None for drop_reason in reasons(NearDuplicates(), rows)] == [
        True,
        False,
        True,
        True,
        True,
    ]


def test_hashing_misses_no_pair_well_above_the_threshold() -> None:
    texts = [" ".join(f"w{n}x{word}" for word in range(60)) for n in range(100)]
    near = [text.rsplit(" ", 1)[0] for text in texts]  # 55 of 56 shingles.
    drop_reasons = reasons(NearDuplicates(), [rollout(text) for text in [*texts, *near]])
    assert [drop_reason is None for drop_reason in drop_reasons] == [True] * 100 + [False] * 100
