"""Documents as tokens in a memory-mapped Arrow table, or in memory where they are few.

Only a few numbers a document are in memory; tokens are read from the table, whose pages all
processes of a machine share, when a batch is made of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from reasoning_lab.data.tokens.documents import Document

COLUMNS = pa.schema(
    {
        # All tokens of a document.
        "input_ids": pa.list_(pa.int32()),
        # Lengths of runs of equal loss mask; the first run is not trained.
        "mask_runs": pa.list_(pa.int32()),
        "prompt_length": pa.int32(),
        "trained_tokens": pa.int32(),
    }
)


class Overlong(StrEnum):
    """What happens to a document with more tokens than a row takes."""

    DROP = "drop"
    SPLIT = "split"
    TRUNCATE = "truncate"


def arrow_table(documents: Sequence[Document]) -> pa.Table:
    """The documents in the columns of `COLUMNS`."""
    lengths = np.array([len(document) for document in documents], np.int64)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    token_ids, mask = (
        np.concatenate([np.empty(0, dtype), *arrays])
        for dtype, arrays in (
            (np.int32, [document.token_ids for document in documents]),
            (np.bool_, [document.loss_mask for document in documents]),
        )
    )
    # A run begins with a document, whose first token is never trained, or where the mask changes.
    run_starts = np.union1d(starts, np.flatnonzero(mask[1:] != mask[:-1]) + 1)
    runs = np.diff(run_starts, append=len(mask))
    columns = {
        "input_ids": _lists(token_ids, starts, len(token_ids)),
        "mask_runs": _lists(runs, np.searchsorted(run_starts, starts), len(runs)),
        "prompt_length": [document.prompt_length for document in documents],
        "trained_tokens": [document.trained_tokens for document in documents],
    }
    return pa.table(columns, schema=COLUMNS)


def _lists(values: np.ndarray, starts: np.ndarray, end: int) -> pa.Array:
    offsets = pa.array(np.append(starts, end), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(values, pa.int32()))


@dataclass(frozen=True, eq=False)
class TokenTable:
    """D documents, each a whole row of an Arrow table or a piece of one.

    Attributes:
        lengths: `[D]` int32, tokens of each.
        trained_tokens: `[D]` int32, those that carry loss.
    """

    lengths: Int[np.ndarray, " D"]
    trained_tokens: Int[np.ndarray, " D"]
    _columns: "_Columns"
    _documents: Int[np.ndarray, " D"]
    _starts: Int[np.ndarray, " D"]

    @classmethod
    def of(cls, table: pa.Table) -> Self:
        """All documents of a table with the columns of `COLUMNS`."""
        columns = _Columns(table)
        numbers = np.arange(table.num_rows, dtype=np.int32)
        trained = table["trained_tokens"].to_numpy()
        return cls(columns.lengths(), trained, columns, numbers, np.zeros_like(numbers))

    @classmethod
    def of_documents(cls, documents: Sequence[Document]) -> Self:
        """A table in memory."""
        return cls.of(arrow_table(documents))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Document:
        start = int(self._starts[index])
        document = self._columns.document(int(self._documents[index]))
        if start == 0 and len(document) == self.lengths[index]:
            return document
        piece = slice(start, start + int(self.lengths[index]))
        loss_mask = document.loss_mask[piece]
        loss_mask[0] = False
        prompt_length = min(document.prompt_length, len(loss_mask)) if start == 0 else 0
        return Document(document.token_ids[piece], loss_mask, prompt_length)

    def __iter__(self) -> Iterator[Document]:
        return map(self.__getitem__, range(len(self)))

    def select(self, indices: Int[np.ndarray, " K"]) -> "TokenTable":
        """Some of the documents, in the order of `indices`."""
        return replace(
            self,
            lengths=self.lengths[indices],
            trained_tokens=self.trained_tokens[indices],
            _documents=self._documents[indices],
            _starts=self._starts[indices],
        )

    def pieces(self, most_tokens: int, overlong: Overlong) -> "TokenTable":
        """The documents, of which none has more than `most_tokens`.

        One that has more is dropped, split into consecutive documents or cut off at its end. A
        piece is read from its own beginning, so its first token is not trained.
        """
        if not len(self) or self.lengths.max() <= most_tokens:
            return self
        counts = -(-self.lengths // most_tokens)
        if overlong is not Overlong.SPLIT:
            counts = np.minimum(counts, 1)
        if overlong is Overlong.DROP:
            counts = np.where(self.lengths > most_tokens, 0, counts)
        of = np.repeat(np.arange(len(self), dtype=np.int32), counts)
        number_in_document = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
        starts = (number_in_document * most_tokens).astype(np.int32)
        whole = self.select(of)
        lengths = np.minimum(whole.lengths - starts, most_tokens)
        cut = replace(whole, lengths=lengths, _starts=whole._starts + starts)
        trained = whole.trained_tokens.copy()
        for index in np.flatnonzero(lengths != whole.lengths).tolist():
            trained[index] = cut[index].trained_tokens
        return replace(cut, trained_tokens=trained)


class _Columns:
    """Random access to the documents of an Arrow table, without a copy of its tokens."""

    def __init__(self, table: pa.Table) -> None:
        self._ids = [_list_views(chunk) for chunk in table["input_ids"].chunks]
        self._runs = [_list_views(chunk) for chunk in table["mask_runs"].chunks]
        self._prompts = table["prompt_length"].to_numpy()
        self._chunk_starts = np.cumsum([0, *(len(offsets) - 1 for _, offsets in self._ids)])

    def lengths(self) -> Int[np.ndarray, " D"]:
        """Tokens of each document."""
        return np.concatenate(
            [np.empty(0, np.int32), *(np.diff(offsets) for _, offsets in self._ids)]
        )

    def document(self, number: int) -> Document:
        """A whole document; its tokens are a view."""
        chunk = int(np.searchsorted(self._chunk_starts, number, side="right")) - 1
        row = number - int(self._chunk_starts[chunk])
        runs = _item(self._runs[chunk], row)
        loss_mask = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        return Document(_item(self._ids[chunk], row), loss_mask, int(self._prompts[number]))


_ListViews = tuple[np.ndarray, np.ndarray]


def _list_views(chunk: pa.ListArray) -> _ListViews:
    """Values and offsets."""
    return chunk.values.to_numpy(), chunk.offsets.to_numpy()


def _item(views: _ListViews, row: int) -> np.ndarray:
    values, offsets = views
    return values[offsets[row] : offsets[row + 1]]
