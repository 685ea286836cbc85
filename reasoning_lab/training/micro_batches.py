"""The batches that a training stage reads, planned ahead, so that a resumed run goes on in them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch

from reasoning_lab.system.ranks import rank, world_size


class Batch(Protocol):
    """Anything that a training step reads and that can move to a device."""

    def to(self, device: torch.device) -> "Batch": ...


class Steps:
    """The batches of one stage in their planned order; resumes where a checkpoint left it.

    Args:
        plan: Per batch, the indices that it reads.
        collate: Makes a batch of them.
    """

    def __init__(
        self, plan: Sequence[Sequence[int]], collate: Callable[[Sequence[int]], Any]
    ) -> None:
        self._plan = plan
        self._collate = collate
        self._next = 0
        self._start = 0

    def __len__(self) -> int:
        return len(self._plan)

    def __iter__(self) -> Iterator[Any]:
        # A reader may stop short of the end, so only a checkpoint decides where the next begins.
        self._next, self._start = self._start, 0
        while self._next < len(self._plan):
            indices = self._plan[self._next]
            self._next += 1
            yield self._collate(indices)

    def of_rank(self) -> "Steps":
        """This rank's share: every world-size-th batch, whose number the world size divides."""
        return Steps(self._plan[rank() :: world_size()], self._collate)

    def state_dict(self) -> dict[str, Any]:
        return {"next": self._next}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._start = state["next"]
