"""Weights that another process of this machine reads, without a file or a copy through a pipe.

Weights on a CPU are copied into memory that both processes map. It has no name, so it is freed with
the processes, however they end, and the size of /dev/shm does not bound it. Weights on a GPU stay
where they are: the other process maps them by CUDA's IPC, as vLLM's own `ipc` weight transfer does.
"""

import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor

# Whole cache lines, and a multiple of every dtype's size.
_ALIGNMENT_BYTES = 64
# The place of the device among the arguments that rebuild a tensor of CUDA.
_DEVICE = 6


@dataclass(frozen=True, slots=True)
class InMemory:
    """A tensor in the shared memory.

    Attributes:
        start: Of its first byte.
        dtype, shape: The tensor's; it is contiguous.
    """

    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        """Behind its last byte."""
        return self.start + prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class OnDevice:
    """A tensor on a GPU that both processes use; `rebuild` makes it from `arguments`."""

    rebuild: Callable[..., Tensor]
    arguments: tuple[Any, ...]

    def tensor(self, device: int) -> Tensor:
        """The other process's tensor; `device` is this process's number of the GPU."""
        arguments = list(self.arguments)
        arguments[_DEVICE] = device
        return self.rebuild(*arguments)


# How the other process finds each tensor.
Places = Mapping[str, InMemory | OnDevice]


class SharedWeights:
    """Weights of this process for another one, which `read_weights` reads.

    Attributes:
        fileno: Descriptor of the shared memory, which the other process must inherit.
    """

    def __init__(self) -> None:
        self.fileno = os.memfd_create("weights")
        self._memory: mmap.mmap | None = None

    def write(self, weights: Mapping[str, Tensor]) -> Places:
        """Share `weights` in place of those before, which nobody may be reading now.

        Those on a GPU are not copied: they must stay unchanged until they are read.
        """
        places: dict[str, InMemory | OnDevice] = {}
        shared: dict[tuple[Any, ...], InMemory] = {}
        new: list[tuple[InMemory, Tensor]] = []
        end = 0
        for name, value in weights.items():
            tensor = value.detach()
            if tensor.device.type != "cpu":
                places[name] = OnDevice(*reduce_tensor(tensor))
                continue
            # Tied weights have two names.
            identity = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
            if identity not in shared:
                start = -(-end // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
                shared[identity] = InMemory(start, tensor.dtype, tuple(tensor.shape))
                end = shared[identity].end
                new.append((shared[identity], tensor))
            places[name] = shared[identity]
        if new:
            memory = self._mapped(end)
            for place, tensor in new:
                _tensor_at(place, memory).copy_(tensor)
        return places

    def release(self) -> None:
        """Let go of a GPU's weights, which the other process has read."""
        if torch.cuda.is_initialized():
            torch.cuda.ipc_collect()

    def close(self) -> None:
        """Free the memory, once the other process has ended too."""
        self._memory = None
        os.close(self.fileno)

    def _mapped(self, size: int) -> mmap.mmap:
        """The memory, with room for `size` bytes."""
        if self._memory is None or len(self._memory) < size:
            os.ftruncate(self.fileno, size)
            self._memory = mmap.mmap(self.fileno, size)
        return self._memory


def read_weights(fileno: int, places: Places) -> Iterator[tuple[str, Tensor]]:
    """Each name with its tensor, which must not be changed, nor read once others are written.

    Args:
        fileno: This process's descriptor of the memory.
        places: What `SharedWeights.write` returned.
    """
    size = max((place.end for place in places.values() if isinstance(place, InMemory)), default=0)
    memory = mmap.mmap(fileno, size) if size else None
    for name, place in places.items():
        if isinstance(place, OnDevice):
            yield name, place.tensor(torch.cuda.current_device())
        else:
            assert memory is not None
            yield name, _tensor_at(place, memory)


def _tensor_at(place: InMemory, memory: mmap.mmap) -> Tensor:
    count = prod(place.shape)
    if not count:
        return torch.empty(place.shape, dtype=place.dtype)
    flat = torch.frombuffer(memory, dtype=place.dtype, count=count, offset=place.start)
    return flat.view(place.shape)
