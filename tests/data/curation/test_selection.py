"""Which rollouts are selected for training, and how pairs and groups are formed."""

import dataclasses
import random
from collections import Counter
from itertools import combinations, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning_lab.data.curation.selection import group_by_problem, harder_subset, preference_pairs
from reasoning_lab.data.rollout_index import RolloutIndex
from reasoning_lab.types import (
    PreferencePair,
    Problem,
    Rollout,
    Verdict,
)
from tests.support.rollouts import group, rollout


def _subset(rollouts: list[Rollout], levels: list[int], count: int, seed: int) -> list[Rollout]:
    chosen = harder_subset(RolloutIndex.of(rollouts), levels, count, seed)
    return [rollouts[index] for index in chosen]


def test_harder_subset_is_compact_and_takes_the_longest() -> None:
    short = rollout("a", Verdict.CORRECT, level=2, text="short")
    long = rollout("a", Verdict.CORRECT, level=2, text="much longer")
    easy = rollout("b", Verdict.CORRECT, level=1, text="easy")
    for order in ([short, long, easy], [easy, long, short]):
        assert _subset(order, [2], 10, 0) == [long]


def test_harder_subset_shares_its_count_between_families() -> None:
    many = [rollout(f"x{n}", Verdict.CORRECT, family="x") for n in range(20)]
    some = [rollout(f"y{n}", Verdict.CORRECT, family="y") for n in range(20)]
    few = [rollout("z0", Verdict.CORRECT, family="z")]
    chosen = _subset([*many, *some, *few], [1], 9, 0)
    assert Counter(r.problem.family for r in chosen) == {"x": 4, "y": 4, "z": 1}
    assert chosen == _subset([*many, *some, *few], [1], 9, 0)
    assert chosen != _subset([*many, *some, *few], [1], 9, 1)
    assert len(_subset([*many, *few], [1], 99, 0)) == 21


def test_grouping_keeps_order_and_joins_prompts_that_read_the_same() -> None:
    rows = [rollout(name, Verdict.WRONG) for name in ("a", "b", " A ", "c")]
    groups = group_by_problem(rows)
    assert [len(members.rollouts) for members in groups] == [2, 1, 1]
    assert [members.problem.prompt for members in groups] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("verdicts", "most", "pairs"), [("ccww", 5, 2), ("cwww", 5, 1), ("ccwut", 1, 1), ("cc", 3, 0)]
)
def test_pairs_use_each_rollout_once(verdicts: str, most: int, pairs: int) -> None:
    paired = preference_pairs([group(verdicts)], most, 0)
    assert len(paired) == pairs
    members = [id(member) for pair in paired for member in (pair.chosen, pair.rejected)]
    assert len(set(members)) == len(members)
    assert all(pair.chosen.correct and not pair.rejected.correct for pair in paired)


def test_random_pairs_are_two_seeded_shuffles_side_by_side() -> None:
    members = group("cccwwu")
    rng = random.Random(f"{members.problem.id}/5")
    chosen, rejected = list(members.rollouts[:3]), list(members.rollouts[3:])
    rng.shuffle(chosen)
    rng.shuffle(rejected)
    for paired in (preference_pairs([members], 2, 5), preference_pairs([members], 2, 5, "random")):
        assert [(pair.chosen, pair.rejected) for pair in paired] == [
            (chosen[0], rejected[0]),
            (chosen[1], rejected[1]),
        ]


def test_pairs_are_fixed_by_their_seed() -> None:
    groups = [group("cccwww")]
    drawn = [preference_pairs(groups, 2, seed) for seed in (0, 0, *range(1, 6))]
    assert drawn[0] == drawn[1]
    assert any(other != drawn[0] for other in drawn[2:])


@pytest.mark.parametrize(
    ("lengths", "most", "expected"),
    [
        # Correct 10, 20, 30 against wrong 19, 31, 11: each has its neighbour.
        ([10, 20, 30, 19, 31, 11], 5, [(10, 11), (20, 19), (30, 31)]),
        ([10, 20, 33, 19, 31, 25], 1, [(20, 19)]),
        ([10, 20, 33, 19, 31, 25], 2, [(20, 19), (33, 31)]),
        # Taking the closest pair first, 20 with 21, would leave 40 with 2: 39 in all, not 37.
        ([20, 40, 90, 21, 2, 500], 2, [(20, 2), (40, 21)]),
    ],
)
def test_length_matched_pairs_differ_least(
    lengths: list[int], most: int, expected: list[tuple[int, int]]
) -> None:
    pairs = preference_pairs([group("cccwww", lengths)], most, 0, "length_matched")
    pair_lengths = [
        (len(pair.chosen.completion.token_ids), len(pair.rejected.completion.token_ids))
        for pair in pairs
    ]
    assert sorted(pair_lengths) == sorted(expected)
    differences = [abs(one - other) for one, other in pair_lengths]
    assert differences == sorted(differences)


@given(st.lists(st.integers(1, 30), min_size=2, max_size=7), st.integers(1, 6), st.data())
def test_length_matching_is_as_good_as_trying_everything(
    lengths: list[int], cut: int, data: st.DataObject
) -> None:
    correct = min(cut, len(lengths) - 1)
    wrong = len(lengths) - correct
    most = data.draw(st.integers(1, 3))
    pairs = preference_pairs(
        [group("c" * correct + "w" * wrong, lengths)], most, 0, "length_matched"
    )
    count = min(most, correct, wrong)
    assert len(pairs) == count
    least = min(
        sum(abs(one - other) for one, other in zip(some, others, strict=True))
        for some in combinations(lengths[:correct], count)
        for others in permutations(lengths[correct:], count)
    )
    assert least == sum(
        abs(len(pair.chosen.completion.token_ids) - len(pair.rejected.completion.token_ids))
        for pair in pairs
    )


def test_without_tokens_characters_are_matched() -> None:
    good = [rollout("p", Verdict.CORRECT, 0, text="x" * n) for n in (5, 50)]
    bad = [rollout("p", Verdict.WRONG, 0, text="x" * n) for n in (49, 4)]
    pairs = preference_pairs(group_by_problem([*good, *bad]), 2, 0, "length_matched")
    assert {(len(p.chosen.completion.text), len(p.rejected.completion.text)) for p in pairs} == {
        (5, 4),
        (50, 49),
    }


def test_a_pair_compares_correct_with_incorrect_of_one_problem() -> None:
    good, bad = rollout("a", Verdict.CORRECT), rollout("a", Verdict.TIMEOUT)
    PreferencePair(good, bad)
    other = dataclasses.replace(bad, problem=Problem("b", "1", "math", "f"))
    for chosen, rejected in ((bad, good), (good, good), (good, other)):
        with pytest.raises(ValueError, match=r"one problem|correct"):
            PreferencePair(chosen, rejected)
