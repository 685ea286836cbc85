"""Batches of documents, and the order in which a stage reads them.

Between documents and the losses, for every stage. The order is planned ahead as a pure function of
its arguments, so a resumed run reads what it would have.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int

from reasoning_lab.data.tokens.documents import Document, document_of
from reasoning_lab.kernels.batch import TokenBatch
from reasoning_lab.types import Example

# Documents are sorted by length among this many batches: lengths of a batch are alike, order stays
# random.
_WINDOW_BATCHES = 16


def token_batch(documents: Sequence[Document]) -> TokenBatch:
    """The documents one behind the other; those with one prompt are told to read it once."""
    ends = np.cumsum([len(document) for document in documents])
    cu_seqlens = np.concatenate([[0], ends])
    return TokenBatch(
        torch.from_numpy(
            np.concatenate([document.token_ids for document in documents], dtype=np.int64)
        ),
        torch.from_numpy(cu_seqlens.astype(np.int32)),
        torch.from_numpy(np.concatenate([document.loss_mask for document in documents])),
        _first_reads(documents, cu_seqlens.tolist()),
    )


def completion_batch(examples: Sequence[Example]) -> TokenBatch:
    """One document an example; only completion tokens are trained."""
    return token_batch([document_of(example) for example in examples])


def _first_reads(documents: Sequence[Document], starts: Sequence[int]) -> torch.Tensor | None:
    first_starts: dict[bytes, int] = {}
    first_reads = np.arange(starts[-1])
    shares = False
    for document, start in zip(documents, starts, strict=False):
        length = document.prompt_length
        first = first_starts.setdefault(document.token_ids[:length].tobytes(), start)
        if length and first != start:
            first_reads[start : start + length] = np.arange(first, first + length)
            shares = True
    return torch.from_numpy(first_reads) if shares else None


def step_batches(
    lengths: Int[np.ndarray, " D"], batch_size: int, steps: int, seed: int
) -> Int[np.ndarray, "steps batch_size"]:
    """Plan which documents each step reads.

    Epochs follow each other without a gap, each in its own random order, so every batch is
    full and at no step has one document been read two times more than another. A longer plan
    with the same other arguments begins with the shorter one.

    Args:
        lengths: Tokens of each document.
        batch_size: Documents a step.
        steps: Batches to plan.
        seed: Fixes the order.

    Returns:
        Indices into `lengths`, int32.

    Raises:
        ValueError: There is no document.
    """
    if not len(lengths):
        raise ValueError("step_batches needs at least one document")
    rng = np.random.default_rng(seed)
    plan = np.empty((steps, batch_size), np.int32)
    pending = np.empty(0, np.int32)
    planned = 0
    while planned < steps:
        # The batch that two epochs share comes first, alone: a window across them would
        # put copies of one example side by side.
        window = 1 if len(pending) else _WINDOW_BATCHES
        epoch = rng.permutation(np.arange(len(lengths), dtype=np.int32))
        pending = np.concatenate([pending, epoch])
        while len(pending) >= batch_size:
            count = min(window, len(pending) // batch_size)
            chosen, pending = np.split(pending, [count * batch_size])
            by_length = chosen[np.argsort(lengths[chosen], kind="stable")]
            batches = rng.permutation(by_length.reshape(count, batch_size))[: steps - planned]
            plan[planned : planned + len(batches)] = batches
            planned += len(batches)
            window = _WINDOW_BATCHES
    return plan
