"""Which rollouts train what, and the three stabilizers of reinforcement learning."""

import dataclasses
import random
from collections import Counter
from itertools import combinations, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning_lab.data.curation.selection import group_by_problem, harder_subset, preference_pairs
from reasoning_lab.stages.rl.controls import (
    balanced,
    informative,
    length_variation,
    temperature_at,
)
from reasoning_lab.types import (
    Completion,
    PreferencePair,
    Problem,
    Rollout,
    RolloutGroup,
    Verdict,
)


def rollout(
    prompt: str,
    verdict: Verdict,
    tokens: int = 3,
    family: str = "f",
    level: int = 1,
    text: str = "",
) -> Rollout:
    problem = Problem(prompt, "1", "math", family, level)
    return Rollout(problem, Completion(list(range(tokens)), text), "1", verdict, "a")


def group(verdicts: str, lengths: list[int] | None = None) -> RolloutGroup:
    """One rollout a letter: c(orrect), w(rong), u(nparseable), t(imeout)."""
    names = {word[0]: word for word in Verdict}
    lengths = lengths or [3 + number for number in range(len(verdicts))]
    rollouts = [
        rollout("p", Verdict(names[letter]), tokens)
        for letter, tokens in zip(verdicts, lengths, strict=True)
    ]
    return RolloutGroup(rollouts[0].problem, rollouts)


@pytest.mark.parametrize(
    ("step", "temperature"), [(0, 1.0), (1, 0.9), (2, 0.8), (3, 0.7), (4, 0.6), (5, 0.6), (7, 0.6)]
)
def test_temperature_falls_linearly_over_half_the_steps(step: int, temperature: float) -> None:
    assert temperature_at(step, 8, 1.0, 0.6, 0.5) == pytest.approx(temperature)


def test_without_annealing_temperature_is_its_end() -> None:
    assert [temperature_at(step, 4, 1.0, 0.6, 0.0) for step in range(4)] == [0.6] * 4


def test_length_variation_by_hand() -> None:
    # Lengths 2, 4, 6: mean 4, population variance (4 + 0 + 4) / 3.
    assert length_variation(group("cwc", [2, 4, 6])) == pytest.approx((8 / 3) ** 0.5 / 4)
    assert length_variation(group("cwc", [5, 5, 5])) == 0


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [("cccc", False), ("wwww", False), ("wut", False), ("cw", True), ("cu", True), ("ct", True)],
)
def test_only_mixed_groups_are_informative(verdicts: str, expected: bool) -> None:
    assert informative(group(verdicts)) is expected


@pytest.mark.parametrize(
    ("verdicts", "correct", "incorrect"),
    [("cwwwww", 1, 1), ("ccwutw", 2, 2), ("cccw", 3, 1), ("cw", 1, 1)],
)
def test_balancing_keeps_all_correct_and_as_many_others(
    verdicts: str, correct: int, incorrect: int
) -> None:
    before = group(verdicts)
    after = balanced(before, "0/1")
    assert Counter(r.correct for r in after.rollouts) == {True: correct, False: incorrect}
    assert all(any(kept is member for member in before.rollouts) for kept in after.rollouts)
    assert len({id(kept) for kept in after.rollouts}) == len(after.rollouts)


def test_balancing_is_fixed_by_its_seed_and_reaches_every_incorrect_one() -> None:
    members = group("cwwwww")
    kept = {
        seed: len(balanced(members, str(seed)).rollouts[-1].completion.token_ids)
        for seed in range(60)
    }
    again = balanced(members, "7").rollouts[-1]
    assert len(again.completion.token_ids) == kept[7]
    assert set(kept.values()) == {4, 5, 6, 7, 8}


def test_harder_subset_is_compact_and_takes_the_longest() -> None:
    short = rollout("a", Verdict.CORRECT, level=2, text="short")
    long = rollout("a", Verdict.CORRECT, level=2, text="much longer")
    easy = rollout("b", Verdict.CORRECT, level=1, text="easy")
    for order in ([short, long, easy], [easy, long, short]):
        assert harder_subset(order, [2], 10, 0) == [long]


def test_harder_subset_shares_its_count_between_families() -> None:
    many = [rollout(f"x{n}", Verdict.CORRECT, family="x") for n in range(20)]
    some = [rollout(f"y{n}", Verdict.CORRECT, family="y") for n in range(20)]
    few = [rollout("z0", Verdict.CORRECT, family="z")]
    chosen = harder_subset([*many, *some, *few], [1], 9, 0)
    assert Counter(r.problem.family for r in chosen) == {"x": 4, "y": 4, "z": 1}
    assert chosen == harder_subset([*many, *some, *few], [1], 9, 0)
    assert chosen != harder_subset([*many, *some, *few], [1], 9, 1)
    assert len(harder_subset([*many, *few], [1], 99, 0)) == 21


def test_grouping_keeps_order_and_joins_prompts_that_read_the_same() -> None:
    rows = [rollout(name, Verdict.WRONG) for name in ("a", "b", " A ", "c")]
    assert [len(found.rollouts) for found in group_by_problem(rows)] == [2, 1, 1]
    assert [found.problem.prompt for found in group_by_problem(rows)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("verdicts", "most", "pairs"), [("ccww", 5, 2), ("cwww", 5, 1), ("ccwut", 1, 1), ("cc", 3, 0)]
)
def test_pairs_use_each_rollout_once(verdicts: str, most: int, pairs: int) -> None:
    found = preference_pairs([group(verdicts)], most, 0)
    assert len(found) == pairs
    members = [id(member) for pair in found for member in (pair.chosen, pair.rejected)]
    assert len(set(members)) == len(members)
    assert all(pair.chosen.correct and not pair.rejected.correct for pair in found)


def test_random_pairs_are_two_seeded_shuffles_side_by_side() -> None:
    members = group("cccwwu")
    rng = random.Random(f"{members.problem.id}/5")
    chosen, rejected = list(members.rollouts[:3]), list(members.rollouts[3:])
    rng.shuffle(chosen)
    rng.shuffle(rejected)
    for found in (preference_pairs([members], 2, 5), preference_pairs([members], 2, 5, "random")):
        assert [(pair.chosen, pair.rejected) for pair in found] == [
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
    found = preference_pairs([group("cccwww", lengths)], most, 0, "length_matched")
    pairs = [
        (len(pair.chosen.completion.token_ids), len(pair.rejected.completion.token_ids))
        for pair in found
    ]
    assert sorted(pairs) == sorted(expected)
    differences = [abs(one - other) for one, other in pairs]
    assert differences == sorted(differences)


@given(st.lists(st.integers(1, 30), min_size=2, max_size=7), st.integers(1, 6), st.data())
def test_length_matching_is_as_good_as_trying_everything(
    lengths: list[int], cut: int, data: st.DataObject
) -> None:
    correct = min(cut, len(lengths) - 1)
    wrong = len(lengths) - correct
    most = data.draw(st.integers(1, 3))
    found = preference_pairs(
        [group("c" * correct + "w" * wrong, lengths)], most, 0, "length_matched"
    )
    count = min(most, correct, wrong)
    assert len(found) == count
    least = min(
        sum(abs(one - other) for one, other in zip(some, others, strict=True))
        for some in combinations(lengths[:correct], count)
        for others in permutations(lengths[correct:], count)
    )
    assert least == sum(
        abs(len(pair.chosen.completion.token_ids) - len(pair.rejected.completion.token_ids))
        for pair in found
    )


def test_without_tokens_characters_are_matched() -> None:
    good = [rollout("p", Verdict.CORRECT, 0, text="x" * n) for n in (5, 50)]
    bad = [rollout("p", Verdict.WRONG, 0, text="x" * n) for n in (49, 4)]
    found = preference_pairs(group_by_problem([*good, *bad]), 2, 0, "length_matched")
    assert {(len(p.chosen.completion.text), len(p.rejected.completion.text)) for p in found} == {
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
