"""Select the rollouts for SFT and pair rollouts for preference training."""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Int

from reasoning_lab.data.rollout_index import RolloutIndex
from reasoning_lab.types import PreferencePair, Rollout, RolloutGroup


def harder_subset(
    rollouts: RolloutIndex, levels: Sequence[int] | None, count: int | None, seed: int
) -> Int[np.ndarray, " K"]:
    """A compact, representative, harder subset (paper, step 2).

    Compact: only the longest rollout of each problem. Harder: only `levels`; None
    = all. Representative: the families take turns, so each has the same share until it runs out.
    A count of None keeps all.

    Returns:
        Indices into `rollouts`, ascending.
    """
    eligible = np.flatnonzero(at_levels(rollouts.levels, levels))
    problems = rollouts.problems[eligible]
    longest_first = np.lexsort((-rollouts.characters[eligible], problems))
    _, firsts = np.unique(problems[longest_first], return_index=True)
    longest = np.sort(eligible[longest_first[firsts]])
    shuffled = np.random.default_rng(seed).permutation(longest)
    families = rollouts.families[shuffled]
    by_family = np.argsort(families, kind="stable")
    members = np.bincount(families)
    turns = np.empty_like(by_family)
    turns[by_family] = np.arange(len(shuffled)) - np.repeat(np.cumsum(members) - members, members)
    return np.sort(shuffled[np.lexsort((families, turns))[:count]])


def at_levels(
    levels: Int[np.ndarray, " N"], wanted: Sequence[int] | None
) -> Bool[np.ndarray, " N"]:
    """Which of `levels` are among the wanted ones; None = all are."""
    if wanted is None:
        return np.full(len(levels), True)
    mask: Bool[np.ndarray, " N"] = np.isin(levels, wanted)
    return mask


def group_by_problem(rollouts: Iterable[Rollout]) -> list[RolloutGroup]:
    """Group the rollouts by problem, in order of the problems' first appearance."""
    members: dict[str, list[Rollout]] = defaultdict(list)
    for rollout in rollouts:
        members[rollout.problem.id].append(rollout)
    return [RolloutGroup(group[0].problem, group) for group in members.values()]


def preference_pairs(
    groups: Iterable[RolloutGroup], pairs_per_problem: int, seed: int, pairing: str = "random"
) -> list[PreferencePair]:
    """Pair correct with incorrect rollouts of each problem, each rollout at most once.

    `pairing` is `random`, or `length_matched`: of all choices of as many pairs, the one with the
    least total difference of lengths, so that DPO does not learn a length.
    """
    pairs = []
    for group in groups:
        rng = random.Random(f"{group.problem.id}/{seed}")
        chosen = [rollout for rollout in group.rollouts if rollout.correct]
        rejected = [rollout for rollout in group.rollouts if not rollout.correct]
        rng.shuffle(chosen)
        rng.shuffle(rejected)
        count = min(pairs_per_problem, len(chosen), len(rejected))
        matched: Iterable[tuple[Rollout, Rollout]]
        matched = zip(chosen[:count], rejected[:count], strict=True)
        if pairing == "length_matched":
            matched = _length_matched(chosen, rejected, count)
        pairs += [PreferencePair(*pair) for pair in matched]
    return pairs


def _length_matched(
    chosen: Sequence[Rollout], rejected: Sequence[Rollout], count: int
) -> list[tuple[Rollout, Rollout]]:
    """`count` pairs with the least sum of length differences, the closest pair first.

    One linear assignment yields exactly `count` pairs. Each unpaired rollout is assigned to a dummy
    of the other side at no cost, and two dummies are never paired.
    """
    from scipy.optimize import linear_sum_assignment

    lengths = _lengths([*chosen, *rejected])
    chosen_lengths, rejected_lengths = lengths[: len(chosen)], lengths[len(chosen) :]
    size = len(chosen) + len(rejected) - count
    cost = np.zeros((size, size))
    cost[: len(chosen), : len(rejected)] = np.abs(
        chosen_lengths[:, None] - rejected_lengths[None, :]
    )
    cost[len(chosen) :, len(rejected) :] = np.inf
    rows, columns = linear_sum_assignment(cost)
    matched = [
        (cost[row, column], chosen[row], rejected[column])
        for row, column in zip(rows, columns, strict=True)
        if row < len(chosen) and column < len(rejected)
    ]
    by_difference = sorted(matched, key=lambda pair: float(pair[0]))
    return [(good, bad) for _, good, bad in by_difference]


def _lengths(rollouts: Sequence[Rollout]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """`[N]` lengths in tokens, or in characters if any rollout has no tokens."""
    tokens = [len(rollout.completion.token_ids) for rollout in rollouts]
    characters = [len(rollout.completion.text) for rollout in rollouts]
    return np.array(tokens if all(tokens) else characters, dtype=np.float64)
