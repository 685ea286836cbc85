"""Packing: several whole documents in one row, so that every step reads about as many tokens.

Documents of a row do not see each other (`reasoning_lab.kernels.rows`). Packing splits none; where
`overlong=split` asks for it, `limits.fit_to_rows` has cut them into parts before.
"""

from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Num

# More fill rows better, and take documents from farther apart.
_TOGETHER = 1 << 14


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
    """Best-fit decreasing: each document, the longest first, goes where the least room remains.

    It works on some thousands of documents at a time, in their order, so that a row holds documents
    from one part of a corpus and memory does not depend on how many there are.

    Args:
        lengths: Tokens of each document, at least 1 and at most `row_tokens`.
        row_tokens: Tokens of a row.
    """
    sizes = np.asarray(lengths, np.int32)
    documents, starts = array("i"), array("q")
    for start in range(0, len(sizes), _TOGETHER):
        for row in _best_fit(sizes[start : start + _TOGETHER], row_tokens):
            starts.append(len(documents))
            documents.extend(start + document for document in row)
    return Rows(np.array(documents, np.int32), np.array(starts, np.int64))


def _best_fit(sizes: Int[np.ndarray, " D"], row_tokens: int) -> list[list[int]]:
    rows: list[list[int]] = []
    rows_with_room: dict[int, list[int]] = defaultdict(list)
    # Bit t: there is a row with room for t more tokens.
    rooms = 0
    order = np.argsort(-sizes, kind="stable")
    for document, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        enough = rooms >> size
        if enough:
            room = size + (enough & -enough).bit_length() - 1
            row = rows_with_room[room].pop()
            if not rows_with_room[room]:
                rooms ^= 1 << room
            rows[row].append(document)
        else:
            room, row = row_tokens, len(rows)
            rows.append([document])
        rows_with_room[room - size].append(row)
        rooms |= 1 << room - size
    return rows
