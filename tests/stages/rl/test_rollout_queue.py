"""The queue of groups: its bound, its order, versions and what is dropped, without an engine."""

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from reasoning_lab.sampling.rollouts import PartialRollout
from reasoning_lab.stages.rl.rollout_queue import (
    FinishedGroup,
    RolloutQueue,
    UnfinishedGroup,
)
from reasoning_lab.types import Completion, Problem, Rollout, Verdict

PROBLEM = Problem("p", "1", "math", "f")


def verified(rollout: PartialRollout) -> Rollout:
    versions = rollout.token_versions
    return Rollout(PROBLEM, rollout.completion, None, Verdict.WRONG, "a", versions[0])


def begin(queue: RolloutQueue, count: int, first_step: int) -> None:
    queue.begin([[PartialRollout(PROBLEM, 0)]] * count, first_step)


def end(queue: RolloutQueue, *places: int) -> None:
    """The groups at these places end."""
    ended = [group for group in queue.unfinished if group.place in places]
    assert len(ended) == len(places)
    queue.update(
        [group for group in queue.unfinished if group.place not in places],
        [FinishedGroup(group.place, group.first_step, []) for group in ended],
    )


def places(groups: Sequence[FinishedGroup | UnfinishedGroup]) -> list[int]:
    return [group.place for group in groups]


def test_the_queue_holds_half_its_staleness_in_batches_and_one_more() -> None:
    # k // 2 + 1 batches of 3 groups.
    assert [RolloutQueue(3, k).capacity for k in (2, 3, 4, 8)] == [6, 6, 9, 15]
    # 3 rounds for each of these batches: 10 / 6, 10 / 9 and 10 / 15 tokens, rounded up.
    assert [RolloutQueue(3, k).round_tokens(10) for k in (2, 4, 8)] == [2, 2, 1]
    queue = RolloutQueue(3, 4)
    assert queue.room(0, steps=100) == 9
    begin(queue, 4, 0)
    assert queue.room(0, steps=100) == 5
    # Two steps can train 6 groups, of which 4 are there.
    assert queue.room(0, steps=2) == queue.room(98, steps=100) == 2
    assert queue.room(0, steps=1) == 0
    end(queue, 1, 3)
    # Groups that have ended take their room until a step takes them.
    assert (len(queue), queue.room(0, steps=100)) == (4, 5)
    # Two of the four are too old for the last step, which needs three.
    assert queue.room(5, steps=6) == 1


def test_a_step_takes_the_oldest_that_have_ended_and_the_others_wait() -> None:
    queue = RolloutQueue(2, 4)
    begin(queue, 3, 0)
    assert queue.lacks(0)
    end(queue, 2)
    assert queue.lacks(0)
    end(queue, 0)
    assert not queue.lacks(0)
    taken, stale = queue.take(0)
    assert (places(taken), stale, places(queue.unfinished)) == ([0, 2], [], [1])
    begin(queue, 3, 0)
    assert places(queue.unfinished) == [1, 3, 4, 5]
    end(queue, 4, 5, 3)
    assert (places(queue.take(1)[0]), places(queue.finished)) == ([3, 4], [5])
    end(queue, 1)
    assert places(queue.take(2)[0]) == [1, 5]


def test_sampling_waits_for_a_group_that_would_be_too_old_at_the_next_step() -> None:
    queue = RolloutQueue(1, 2)
    begin(queue, 1, 0)  # It goes on for long.
    for step in (0, 1):
        begin(queue, 1, step)
        end(queue, queue.begun - 1)
        # At step 2 the first group is 2 steps old, which may be; at step 3 it would be 3.
        assert not queue.lacks(step)
        queue.take(step)
    begin(queue, 1, 2)
    end(queue, queue.begun - 1)
    assert queue.lacks(2)
    end(queue, 0)
    assert not queue.lacks(2)
    assert places(queue.take(2)[0]) == [0]


def test_what_more_than_a_batch_of_others_overtook_is_dropped() -> None:
    queue = RolloutQueue(1, 2)
    begin(queue, 2, 0)
    begin(queue, 1, 1)
    end(queue, 0, 1, 2)
    # Both of step 0 are 2 steps old at step 2; one trains then, and the other is 3 at step 3.
    assert [places(groups) for groups in queue.take(2)] == [[0], []]
    assert not queue.lacks(3)
    assert [places(groups) for groups in queue.take(3)] == [[2], [1]]
    # A stale group fills no place of a batch.
    begin(queue, 1, 3)
    end(queue, 3)
    assert queue.lacks(6)
    assert [places(groups) for groups in queue.take(6)] == [[], [3]]


def simulated(
    batch_size: int, staleness: int, steps: int, rounds: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Places that train, and those that are dropped, of groups that end after so many rounds.

    They go on as `PartialRollouts` lets them.
    """
    queue = RolloutQueue(batch_size, staleness)
    trained: list[int] = []
    dropped: list[int] = []
    left: dict[int, int] = {}

    def sample(step: int, updates: int) -> None:
        while queue.lacks(step):
            begin(queue, queue.room(step, steps), updates)
            for place in range(len(left), queue.begun):
                left[place] = rounds[place % len(rounds)]
            assert queue.unfinished
            assert len(queue) <= queue.capacity
            groups = []
            for group in queue.unfinished:
                left[group.place] -= 1
                (before,) = group.rollouts
                rollout = replace(
                    before,
                    completion=Completion([*before.completion.token_ids, 7], ""),
                    token_versions=[*before.token_versions, updates],
                    ended=not left[group.place],
                )
                groups.append(replace(group, rollouts=[rollout]))
            queue.update(
                [group for group in groups if not group.has_ended],
                [
                    FinishedGroup(group.place, group.first_step, [verified(group.rollouts[0])])
                    for group in groups
                    if group.has_ended
                ],
            )
            assert places(queue.unfinished) == sorted(places(queue.unfinished))

    sample(0, 0)
    for step in range(steps):
        taken, stale = queue.take(step)
        assert len(taken) == batch_size
        for group in taken:
            assert 0 <= step - group.first_step <= staleness
            assert group.first_step == group.rollouts[0].policy_version
        assert all(step - group.first_step > staleness for group in stale)
        # What trains is older than what waits.
        assert all(one.place < other.place for one in taken for other in queue.finished)
        trained += places(taken)
        dropped += places(stale)
        if step + 1 < steps:
            sample(step + 1, step)
    assert len(queue) == 0
    # Nothing disappears and nothing trains twice.
    assert sorted(trained + dropped) == list(range(queue.begun))
    return trained, dropped


@settings(max_examples=60, deadline=None)
@given(
    batch_size=st.integers(1, 4),
    staleness=st.integers(2, 6),
    steps=st.integers(1, 12),
    rounds=st.lists(st.integers(1, 9), min_size=1, max_size=30),
)
def test_a_run_trains_whole_batches_none_of_them_too_old(
    batch_size: int, staleness: int, steps: int, rounds: list[int]
) -> None:
    trained, _ = simulated(batch_size, staleness, steps, rounds)
    assert len(trained) == steps * batch_size


def test_a_dropped_group_is_replaced_also_at_the_last_step() -> None:
    """Three begin at once, of which two take nine rounds; those that begin later overtake them.

    At step 4 both have 4 steps and must have ended. It trains on one, and to step 5 the other is
    too old.
    """
    rounds = [1, 9, 9, *[1] * 9]
    assert simulated(1, 4, 6, rounds) == ([0, 3, 4, 5, 1, 6], [2])
    assert simulated(1, 4, 8, rounds) == ([0, 3, 4, 5, 1, 6, 7, 8], [2])
