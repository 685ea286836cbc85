"""The processes that train one stage together: who this one is, and what the others have.

Without a process group there is one rank, 0 of 1, which has everything.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist

Item = TypeVar("Item")


def rank() -> int:
    """This process's number among those that train the stage."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train the stage."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(items: Sequence[Item]) -> Sequence[Item]:
    """What this rank takes of `items`: every world-size-th, from its own number on."""
    return items[rank() :: world_size()]


def first_rank_says(ask: Callable[[], Item]) -> Item:
    """What `ask` gives on rank 0, which alone is asked, on every rank."""
    if world_size() == 1:
        return ask()
    said: list[Item | None] = [ask() if rank() == 0 else None]
    dist.broadcast_object_list(said)
    return said[0]  # type: ignore[return-value]


class Peers:
    """Exchanges Python objects in an order of its own, so it may do so in a thread of its own.

    Every rank makes it at the same place of the program.
    """

    def __init__(self) -> None:
        self._group = dist.new_group(backend="gloo") if world_size() > 1 else None

    def gathered(self, mine: Item) -> list[Item]:
        """`mine` of every rank, by rank; every rank calls it."""
        if self._group is None:
            return [mine]
        found: list[Item | None] = [None] * world_size()
        dist.all_gather_object(found, mine, group=self._group)
        return found  # type: ignore[return-value]

    def largest(self, mine: int) -> int:
        """The largest `mine` of all ranks; every rank calls it."""
        if self._group is None:
            return mine
        value = torch.tensor(mine)
        dist.all_reduce(value, dist.ReduceOp.MAX, group=self._group)
        return int(value)
