"""Packing: several whole documents in one row, so that mid-training pads next to nothing.

Documents of a row do not see each other (`reasoning_lab.kernels.attention`). A document is never
split.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

import numpy as np
import torch

from reasoning_lab.data.tokens.batches import padded_batch, row_length
from reasoning_lab.kernels.logprobs import TokenBatch, Unpadded
from reasoning_lab.types import Example

# More fill a row better and take longer to choose from.
_WAITING_DOCUMENTS = 128


class TrainedPart(StrEnum):
    """Which tokens of a packed document carry loss."""

    SEQUENCE = "sequence"
    COMPLETION = "completion"


@dataclass(frozen=True, slots=True)
class Packing:
    """How documents share rows.

    Attributes:
        rows: Per row, the indices of its documents.
        dropped: Indices of the documents that are longer than a row.
    """

    rows: list[list[int]]
    dropped: list[int]


def pack(lengths: Sequence[int], row_tokens: int) -> Packing:
    """Open each row with the longest of the next documents and fill it as full as they allow.

    The rest of a row is an exact subset sum over those that wait, the first to come preferred:
    sorting all by length would fill a row with documents of one length, hence of one kind.

    Args:
        lengths: Tokens of each document, at least 1.
        row_tokens: Tokens of a row.
    """
    arriving = iter(document for document, length in enumerate(lengths) if length <= row_tokens)
    waiting = list(islice(arriving, _WAITING_DOCUMENTS))
    rows: list[list[int]] = []
    while waiting:
        longest = max(waiting, key=lengths.__getitem__)
        waiting.remove(longest)
        fill = _fill(waiting, lengths, row_tokens - lengths[longest])
        for document in fill:
            waiting.remove(document)
        rows.append([longest, *fill])
        waiting += islice(arriving, _WAITING_DOCUMENTS - len(waiting))
    dropped = [document for document, length in enumerate(lengths) if length > row_tokens]
    return Packing(rows, dropped)


def _fill(waiting: Sequence[int], lengths: Sequence[int], room: int) -> list[int]:
    """The documents that together come closest to `room` tokens and don't exceed it."""
    # Bit t of a set of sums: some of the documents so far have t tokens together.
    sums = [1]
    at_most = (1 << (room + 1)) - 1
    fitting = [document for document in waiting if lengths[document] <= room]
    for document in fitting:
        if sums[-1] >> room:
            break
        sums.append((sums[-1] | sums[-1] << lengths[document]) & at_most)
    left = sums[-1].bit_length() - 1
    chosen = []
    for number in range(len(sums) - 1, 0, -1):
        if not sums[number - 1] >> left & 1:
            chosen.append(fitting[number - 1])
            left -= lengths[fitting[number - 1]]
    return chosen


def packed_batch(
    rows: Sequence[Sequence[Example]], row_tokens: int, pad_id: int, trained: TrainedPart
) -> TokenBatch:
    """Rows of documents, each filled up by an untrained document of padding.

    Args:
        rows: The documents of each row, at most `row_tokens` tokens together.
        row_tokens: Tokens of a row, the batch's T.
        pad_id: What fills the rest of a row.
        trained: Which tokens carry loss; a document's first token never does, because its
            row mate must not predict it.
    """
    shape = (len(rows), row_tokens)
    # NumPy on a few long arrays: a tensor for each document costs more than its tokens, and
    # torch's threads cost more than they save on so few numbers when cores are shared.
    ids = np.full(shape, pad_id, dtype=np.int64)
    mask, positions = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=np.int64)
    starts: list[int] = []
    lengths: list[int] = []
    for number, row in enumerate(rows):
        if row_length(row) > row_tokens:
            raise ValueError(f"row {number} holds more than {row_tokens} tokens")
        at = 0
        for document in row:
            end = at + document.length
            ids[number, at:end] = [*document.prompt_ids, *document.completion_ids]
            prompt_end = 0 if trained is TrainedPart.SEQUENCE else len(document.prompt_ids)
            mask[number, at + max(prompt_end, 1) : end] = True
            positions[number, at:end] = np.arange(document.length)
            starts.append(number * row_tokens + at)
            lengths.append(document.length)
            at = end
        positions[number, at:] = np.arange(row_tokens - at)
    return TokenBatch(
        torch.from_numpy(ids),
        torch.from_numpy(mask),
        torch.from_numpy(positions),
        Unpadded.of(shape, starts, lengths),
    )


def unpacked_batch(
    rows: Sequence[Sequence[Example]], pad_id: int, trained: TrainedPart
) -> TokenBatch:
    """The same documents with the same trained tokens, each a padded row of its own."""
    documents = [document for row in rows for document in row]
    if trained is TrainedPart.SEQUENCE:
        documents = [
            Example((), [*document.prompt_ids, *document.completion_ids]) for document in documents
        ]
    return padded_batch(documents, pad_id)
