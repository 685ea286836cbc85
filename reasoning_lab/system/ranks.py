"""The processes that train one stage together: this one's rank, and exchange with the others.

Without a process group there is one rank, 0 of 1, and nothing to exchange.
"""

import pickle
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

Item = TypeVar("Item")
# Silent processes are given up for lost; the longest silence is a slow rank's sampling.
SILENCE = timedelta(hours=2)


def rank() -> int:
    """This process's number among those that train the stage."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train the stage."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank_slice(items: Sequence[Item]) -> Sequence[Item]:
    """This rank's part of `items`: every world-size-th item, starting at the rank's number."""
    return items[rank() :: world_size()]


def broadcast_from_rank0(compute: Callable[[], Item]) -> Item:
    """Call `compute` on rank 0 alone and return its result on every rank."""
    if world_size() == 1:
        return compute()
    values: list[Item | None] = [compute() if rank() == 0 else None]
    dist.broadcast_object_list(values)
    return values[0]  # type: ignore[return-value]


class Peers:
    """Exchanges Python objects between ranks through a process group of its own.

    The extra group allows a call from another thread while the trainer communicates. Every rank
    constructs it at the same place of the program.
    """

    def __init__(self) -> None:
        self._group = dist.new_group(timeout=SILENCE, backend="gloo") if world_size() > 1 else None

    def all_gather(self, value: Item) -> list[Item]:
        """Every rank's `value`, in rank order; every rank calls this."""
        if self._group is None:
            return [value]
        values: list[Item | None] = [None] * world_size()
        dist.all_gather_object(values, value, group=self._group)
        return values  # type: ignore[return-value]

    def all_to_all(self, values: Sequence[Item]) -> list[Item]:
        """Send `values[i]` to rank i alone; what the ranks sent to this one, in rank order.

        Every rank calls this.
        """
        if self._group is None:
            return list(values)
        payloads = [
            pickle.dumps(None if to == rank() else value) for to, value in enumerate(values)
        ]
        sent_bytes = torch.tensor(list(map(len, payloads)))
        received_bytes = torch.empty_like(sent_bytes)
        dist.all_to_all_single(received_bytes, sent_bytes, group=self._group)
        received = torch.empty(int(received_bytes.sum()), dtype=torch.uint8)
        sent = torch.frombuffer(bytearray(b"".join(payloads)), dtype=torch.uint8)
        splits = received_bytes.tolist(), sent_bytes.tolist()
        dist.all_to_all_single(received, sent, *splits, group=self._group)
        exchanged = [pickle.loads(part.numpy()) for part in received.split(splits[0])]
        exchanged[rank()] = values[rank()]
        return exchanged

    def gather_on_rank0(self, value: Item) -> list[Item]:
        """Every rank's `value` in rank order, on rank 0 alone; every rank calls this.

        On another rank the list has its own value at its place, and None at the others.
        """
        others: list[Any] = [None] * (world_size() - 1)
        gathered: list[Item] = self.all_to_all([value, *others])
        if rank():
            gathered[rank()] = value
        return gathered

    def all_reduce_max(self, value: int) -> int:
        """The largest `value` of all ranks; every rank calls this."""
        if self._group is None:
            return value
        tensor = torch.tensor(value)
        dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self._group)
        return int(tensor)
