"""Which rollouts train what: the SFT subset and the preference pairs."""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

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
    groups: Iterable[RolloutGroup], pairs_per_problem: int, seed: int
) -> list[PreferencePair]:
    """Pair correct with incorrect rollouts of each problem, each rollout at most once."""
    pairs = []
    for group in groups:
        rng = random.Random(f"{group.problem.id}/{seed}")
        chosen = [rollout for rollout in group.rollouts if rollout.correct]
        rejected = [rollout for rollout in group.rollouts if not rollout.correct]
        rng.shuffle(chosen)
        rng.shuffle(rejected)
        pairs += [
            PreferencePair(*pair)
            for pair in list(zip(chosen, rejected, strict=False))[:pairs_per_problem]
        ]
    return pairs
