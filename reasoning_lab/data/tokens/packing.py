"""Packing: several whole documents in one row, so that every step reads about as many tokens.

Documents of a row do not see each other (`reasoning_lab.kernels.rows`). A document is never split.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

# More fill a row better and take longer to choose from.
_WAITING_DOCUMENTS = 128


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
