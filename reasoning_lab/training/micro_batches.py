"""What one backward pass reads, planned ahead, so that a resumed run continues at the same place.

Every stage makes its batches here: a step's rows cut into equal numbers of rows, each part with its
share of the step's trained tokens.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, Self

import numpy as np
import torch
from jaxtyping import Int

from reasoning_lab.kernels.batch import TokenBatch
from reasoning_lab.system.ranks import rank, world_size

# Micro-batches that wait for a GPU; on a CPU the thread would take a core from the step.
_AHEAD = 2


class Batch(Protocol):
    """Anything that a training step reads and that can move to a device."""

    def to(self, device: torch.device) -> "Batch": ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Documents that one backward pass reads; a stage adds what its loss takes beside them.

    Attributes:
        tokens: The documents.
        weight: Their trained tokens, as a multiple of the mean over the step's micro-batches; with
            it, accumulated gradients of a mean are those of the undivided step.
    """

    tokens: TokenBatch
    weight: float = 1.0

    def to(self, device: torch.device) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in values.items() if hasattr(value, "to")
        }
        return replace(self, **moved)


class PlannedBatches:
    """The batches of one stage in their planned order; resumes where a checkpoint left it.

    Args:
        plan: Per batch, what `make` needs to know of it.
        make: Makes a batch of that.
        ahead: How many batches a thread makes before they are asked for.
    """

    def __init__(self, plan: Sequence[Any], make: Callable[[Any], Batch], ahead: int = 0) -> None:
        self._plan = plan
        self._make = make
        self._ahead = ahead
        self._next = 0
        self._start = 0

    def __len__(self) -> int:
        return len(self._plan)

    def __iter__(self) -> Iterator[Any]:
        # A reader may stop short of the end, so only a checkpoint decides where the next begins.
        self._next, self._start = self._start, 0
        for batch in self._made(self._plan[self._next :]):
            self._next += 1
            yield batch

    def _made(self, plan: Sequence[Any]) -> Iterator[Any]:
        if not self._ahead:
            yield from map(self._make, plan)
            return
        with ThreadPoolExecutor(1) as thread:
            waiting: deque[Future[Any]] = deque()
            for planned in plan:
                waiting.append(thread.submit(self._make, planned))
                if len(waiting) > self._ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def rank_share(self) -> "PlannedBatches":
        """This rank's: every world-size-th batch, whose number the world size divides."""
        return PlannedBatches(self._plan[rank() :: world_size()], self._make, self._ahead)

    def state_dict(self) -> dict[str, Any]:
        return {"next": self._next}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._start = state["next"]


def micro_batches(
    plan: Int[np.ndarray, "steps batch_size"],
    trained_tokens: Int[np.ndarray, " R"],
    accumulation: int,
    make: Callable[[Int[np.ndarray, " rows"], float], MicroBatch],
) -> PlannedBatches:
    """Divide each planned step into `accumulation` micro-batches of equal row counts.

    Args:
        plan: Per step, the rows that it reads.
        trained_tokens: Of each row.
        accumulation: Divides every step's row count.
        make: Makes the micro-batch of some rows, of that weight.
    """
    parts = plan.reshape(len(plan) * accumulation, -1)
    tokens = trained_tokens[parts].sum(axis=1, dtype=np.int64)
    step_tokens = tokens.reshape(len(plan), accumulation).sum(axis=1)
    weights = accumulation * tokens / step_tokens.repeat(accumulation)
    ahead = _AHEAD if torch.cuda.is_available() else 0
    return PlannedBatches(
        range(len(parts)), lambda number: make(parts[number], float(weights[number])), ahead
    )
