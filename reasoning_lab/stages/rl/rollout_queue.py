"""Groups of rollouts between their first token and the step that trains on them.

The queue decides by numbers of steps alone, never by a clock, so a resumed run has the same groups
at every step. With `staleness` k:

- At most (k // 2 + 1) groups a place of the batch are in the queue, unfinished ones included. A
  group then waits some k / 2 steps on average, and the rest of k is for those that take longer.
- Sampling for a step ends once its batch has ended and no unfinished group would be too old at the
  step after it. Updates therefore wait for a long rollout only where it has taken k steps, and
  length alone drops none.
- A step trains on the oldest groups that have ended.
- A group that has ended and is more than k steps older than the step is dropped. It was overtaken
  by more than a batch of others.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reasoning_lab.sampling.rollouts import PartialRollout
from reasoning_lab.types import Rollout

# Rounds of a rollout that becomes as long as it may, for each batch that the queue can hold. Short
# rounds read the tokens so far more often; in long ones more groups end than a step needs.
_ROUNDS_PER_BATCH = 3


@dataclass(frozen=True, slots=True)
class UnfinishedGroup:
    """Rollouts of one prompt, of which some have not ended.

    Attributes:
        place: Its number among all groups of the run, in the order of the plan.
        first_step: How many steps had trained when it began.
        rollouts: In the order of their seeds.
    """

    place: int
    first_step: int
    rollouts: Sequence[PartialRollout]

    @property
    def has_ended(self) -> bool:
        """Whether no rollout of it goes on."""
        return all(rollout.ended for rollout in self.rollouts)


@dataclass(frozen=True, slots=True)
class FinishedGroup:
    """Verified rollouts of one prompt; attributes as in `UnfinishedGroup`."""

    place: int
    first_step: int
    rollouts: Sequence[Rollout]


class RolloutQueue:
    """Bounded, ordered by age; see the module.

    Args:
        batch_size: Groups of a step.
        staleness: Most steps between a group's first token and the step that trains on it; 2 or
            more, since a group that goes on over an update is two steps old at the least.

    Attributes:
        unfinished: In the order of their places.
        finished: The same.
        begun: How many groups have begun so far; the place of the next.
    """

    def __init__(self, batch_size: int, staleness: int) -> None:
        self._batch_size, self._staleness = batch_size, staleness
        self.unfinished: list[UnfinishedGroup] = []
        self.finished: list[FinishedGroup] = []
        self.begun = 0

    def __len__(self) -> int:
        return len(self.unfinished) + len(self.finished)

    @property
    def capacity(self) -> int:
        """Most groups in the queue."""
        return (self._staleness // 2 + 1) * self._batch_size

    def round_tokens(self, max_new_tokens: int) -> int:
        """Most tokens by which a rollout of at most `max_new_tokens` goes on in a round."""
        rounds = _ROUNDS_PER_BATCH * self.capacity // self._batch_size
        return -(-max_new_tokens // rounds)

    def room(self, step: int, steps: int) -> int:
        """How many groups may begin while `step`, of so many steps, is sampled for.

        No group begins that no step would train.
        """
        stale = sum(self._is_stale(group, step) for group in self.finished)
        needed = (steps - step) * self._batch_size - (len(self) - stale)
        return max(0, min(self.capacity - len(self), needed))

    def begin(self, groups: Sequence[Sequence[PartialRollout]], first_step: int) -> None:
        """Add groups that begin after `first_step` steps."""
        for rollouts in groups:
            self.unfinished.append(UnfinishedGroup(self.begun, first_step, rollouts))
            self.begun += 1

    def lacks(self, step: int) -> bool:
        """Whether sampling must go on before `step` can train."""
        ready = sum(not self._is_stale(group, step) for group in self.finished)
        return ready < self._batch_size or any(
            self._is_stale(group, step + 1) for group in self.unfinished
        )

    def update(
        self, unfinished: Sequence[UnfinishedGroup], finished: Iterable[FinishedGroup]
    ) -> None:
        """What the unfinished groups have become."""
        self.unfinished = list(unfinished)
        self.finished = sorted([*self.finished, *finished], key=lambda group: group.place)

    def take(self, step: int) -> tuple[list[FinishedGroup], list[FinishedGroup]]:
        """Remove the groups of `step`, oldest first, and those that have become too old for it."""
        stale = [group for group in self.finished if self._is_stale(group, step)]
        fresh = [group for group in self.finished if not self._is_stale(group, step)]
        self.finished = fresh[self._batch_size :]
        return fresh[: self._batch_size], stale

    def _is_stale(self, group: UnfinishedGroup | FinishedGroup, step: int) -> bool:
        return step - group.first_step > self._staleness
