"""Batches of documents, and the order in which a stage reads them.

Between documents and the losses, for every stage. The order is planned ahead as a pure function of
its arguments, so a resumed run reads what it would have.
"""

import random
from collections.abc import Sequence

import numpy as np
import torch

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
        torch.from_numpy(np.concatenate([document.token_ids for document in documents])),
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


def step_batches(lengths: Sequence[int], batch_size: int, steps: int, seed: int) -> list[list[int]]:
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
        `steps` lists of `batch_size` indices into `lengths`.

    Raises:
        ValueError: There is no document.
    """
    if not lengths:
        raise ValueError("step_batches needs at least one document")
    rng = random.Random(seed)
    plan: list[list[int]] = []
    pending: list[int] = []
    while len(plan) < steps:
        # The batch that two epochs share comes first, alone: a window across them would
        # put copies of one example side by side.
        shared = bool(pending)
        pending += rng.sample(range(len(lengths)), len(lengths))
        start = 0
        while len(pending) - start >= batch_size:
            count = 1 if shared else min(_WINDOW_BATCHES, (len(pending) - start) // batch_size)
            shared = False
            end = start + count * batch_size
            window = sorted(pending[start:end], key=lambda index: lengths[index])
            batches = [window[at : at + batch_size] for at in range(0, len(window), batch_size)]
            rng.shuffle(batches)
            plan += batches
            start = end
        del pending[:start]
    return plan[:steps]
