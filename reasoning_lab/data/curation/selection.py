"""Which rollouts train what: the SFT subset and the preference pairs."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from reasoning_lab.types import PreferencePair, Rollout, RolloutGroup


def harder_subset(
    rollouts: Iterable[Rollout], levels: Sequence[int], count: int, seed: int
) -> list[Rollout]:
    """A compact, representative, harder subset (paper, step 2).

    Compact: one rollout a problem, the longest. Harder: only `levels`. Representative: the
    families take turns, so each has the same share as long as it lasts.
    """
    longest: dict[str, Rollout] = {}
    for rollout in rollouts:
        if rollout.problem.level not in levels:
            continue
        best = longest.get(rollout.problem.id)
        if best is None or len(rollout.completion.text) > len(best.completion.text):
            longest[rollout.problem.id] = rollout
    by_family: dict[str, list[Rollout]] = defaultdict(list)
    for rollout in longest.values():
        by_family[rollout.problem.family].append(rollout)
    rng = random.Random(seed)
    for members in by_family.values():
        rng.shuffle(members)
    chosen: list[Rollout] = []
    while len(chosen) < count and any(by_family.values()):
        for family in sorted(by_family):
            if by_family[family] and len(chosen) < count:
                chosen.append(by_family[family].pop())
    return chosen


def group_by_problem(rollouts: Iterable[Rollout]) -> list[RolloutGroup]:
    """All rollouts of each problem, problems in order of appearance."""
    members: dict[str, list[Rollout]] = defaultdict(list)
    for rollout in rollouts:
        members[rollout.problem.id].append(rollout)
    return [RolloutGroup(group[0].problem, group) for group in members.values()]


def preference_pairs(
    groups: Iterable[RolloutGroup], pairs_per_problem: int, seed: int, pairing: str = "random"
) -> list[PreferencePair]:
    """Pair correct with incorrect rollouts of each problem, each rollout at most once.

    Args:
        groups: The rollouts, by problem.
        pairs_per_problem: At most so many pairs of one problem.
        seed: Shuffles each problem's rollouts.
        pairing: `random`, or `length_matched`: of all ways to choose as many pairs, the one whose
            lengths differ least within the pairs, so that DPO does not learn a length.
    """
    pairs = []
    for group in groups:
        rng = random.Random(f"{group.problem.id}/{seed}")
        chosen = [rollout for rollout in group.rollouts if rollout.correct]
        rejected = [rollout for rollout in group.rollouts if not rollout.correct]
        rng.shuffle(chosen)
        rng.shuffle(rejected)
        count = min(pairs_per_problem, len(chosen), len(rejected))
        pairs += [PreferencePair(*pair) for pair in _PAIRINGS[pairing](chosen, rejected, count)]
    return pairs


def _in_order(
    chosen: Sequence[Rollout], rejected: Sequence[Rollout], count: int
) -> list[tuple[Rollout, Rollout]]:
    return list(zip(chosen[:count], rejected[:count], strict=True))


def _length_matched(
    chosen: Sequence[Rollout], rejected: Sequence[Rollout], count: int
) -> list[tuple[Rollout, Rollout]]:
    """`count` pairs with the least sum of length differences, the closest pair first.

    Exactly `count` pairs are one assignment: each rollout that is left over goes to a dummy of
    the other side at no cost, and dummies may not meet.
    """
    from scipy.optimize import linear_sum_assignment

    lengths = _lengths([*chosen, *rejected])
    ours, theirs = lengths[: len(chosen)], lengths[len(chosen) :]
    size = len(chosen) + len(rejected) - count
    cost = np.zeros((size, size))
    cost[: len(ours), : len(theirs)] = np.abs(ours[:, None] - theirs[None, :])
    cost[len(ours) :, len(theirs) :] = np.inf
    rows, columns = linear_sum_assignment(cost)
    matched = [
        (cost[row, column], chosen[row], rejected[column])
        for row, column in zip(rows, columns, strict=True)
        if row < len(ours) and column < len(theirs)
    ]
    return [(one, other) for _, one, other in sorted(matched, key=lambda pair: float(pair[0]))]


def _lengths(rollouts: Sequence[Rollout]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """In tokens; in characters where an author gave no tokens."""
    tokens = [len(rollout.completion.token_ids) for rollout in rollouts]
    characters = [len(rollout.completion.text) for rollout in rollouts]
    return np.array(tokens if all(tokens) else characters, dtype=np.float64)


_Pairing = Callable[[Sequence[Rollout], Sequence[Rollout], int], list[tuple[Rollout, Rollout]]]
_PAIRINGS: Mapping[str, _Pairing] = {"random": _in_order, "length_matched": _length_matched}
