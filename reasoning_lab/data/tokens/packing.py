"""Packing: several whole documents in one row, so that every step reads about as many tokens.

Documents of a row do not see each other (`reasoning_lab.kernels.rows`). Packing splits none; where
`overlong=split` asks for it, `limits.fit_to_rows` has cut them into parts before.
"""

from array import array
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from jaxtyping import Int, Num

# More fill the ends of rows better, and take their documents from farther away.
_WAITING = 1 << 14


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """R rows, each of one or more of D documents.

    Attributes:
        documents: `[D]` int32, the documents of the first row, then those of the next.
        starts: `[R]` int64, where each row begins in `documents`.
    """

    documents: Int[np.ndarray, " D"]
    starts: Int[np.ndarray, " R"]

    @classmethod
    def single(cls, documents: int) -> "Rows":
        """A row for each of so many documents."""
        return cls(np.arange(documents, dtype=np.int32), np.arange(documents))

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, row: int) -> Int[np.ndarray, " K"]:
        """The documents of a row."""
        end = self.starts[row + 1] if row + 1 < len(self) else len(self.documents)
        return self.documents[self.starts[row] : end]

    def __iter__(self) -> Iterator[Int[np.ndarray, " K"]]:
        return map(self.__getitem__, range(len(self)))

    def sums(self, values: Num[np.ndarray, " D"]) -> Int[np.ndarray, " R"]:
        """Of each row, the sum of its documents' `values`."""
        return np.add.reduceat(values[self.documents], self.starts, dtype=np.int64)


def pack(lengths: Sequence[int] | Int[np.ndarray, " D"], row_tokens: int) -> Rows:
    """Fill each row with the next documents, and its end with the waiting one that fits it best.

    Only the end of a row is chosen by length. A row of documents that are all chosen by length, as
    in best-fit decreasing, holds one kind of them, and a policy learns less from such rows.

    Args:
        lengths: Tokens of each document, at least 1 and at most `row_tokens`.
        row_tokens: Tokens of a row.

    Raises:
        ValueError: A document is longer than a row, or empty.
    """
    sizes = np.asarray(lengths, np.int32)
    if len(sizes) and not 1 <= sizes.min() <= sizes.max() <= row_tokens:
        raise ValueError(
            f"documents of {sizes.min()} to {sizes.max()} tokens do not fit rows of {row_tokens}"
        )
    waiting = _Waiting(sizes)
    documents, starts = array("i"), array("q")
    while waiting:
        starts.append(len(documents))
        room = row_tokens
        while (size := waiting.next_or_best(room)) is not None:
            documents.append(waiting.take(size))
            room -= size
    return Rows(np.array(documents, np.int32), np.array(starts, np.int64))


class _Waiting:
    """Documents that wait for a row, by length and in their order."""

    def __init__(self, sizes: Int[np.ndarray, " D"]) -> None:
        self._arriving = chain.from_iterable(
            enumerate(sizes[start : start + _WAITING].tolist(), start)
            for start in range(0, len(sizes), _WAITING)
        )
        self._in_order: deque[tuple[int, int]] = deque()
        self._by_size: dict[int, deque[int]] = defaultdict(deque)
        # Bit t: a document of t tokens waits.
        self._sizes = 0
        for _ in range(_WAITING):
            self._admit()

    def __bool__(self) -> bool:
        return self._sizes > 0

    def next_or_best(self, room: int) -> int | None:
        """Tokens of the next document if any would leave room, else of the longest that fits."""
        if room >= self._sizes.bit_length() and self:
            # Earlier ones may have been taken for their length.
            while self._is_taken(*self._in_order[0]):
                self._in_order.popleft()
            return self._in_order[0][1]
        fitting = self._sizes & ((2 << room) - 1)
        return fitting.bit_length() - 1 if fitting else None

    def take(self, size: int) -> int:
        """Remove the first document of `size` tokens, and admit another."""
        alike = self._by_size[size]
        document = alike.popleft()
        if not alike:
            self._sizes ^= 1 << size
        self._admit()
        return document

    def _is_taken(self, document: int, size: int) -> bool:
        alike = self._by_size[size]
        return not alike or alike[0] > document

    def _admit(self) -> None:
        arrived = next(self._arriving, None)
        if arrived is not None:
            document, size = arrived
            self._in_order.append(arrived)
            self._by_size[size].append(document)
            self._sizes |= 1 << size
