"""Rollouts on disk: parquet, one row per rollout, written and read in row groups."""

import json
import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int

from reasoning_lab.data.rollout_index import (
    EARLIER_MESSAGES,
    RolloutIndex,
    earlier_messages_of,
)
from reasoning_lab.types import DEFAULT_DOMAIN, Completion, Problem, Rollout, Verdict

_BATCH_ROWS = 512
# The fields whose values a column holds as they are.
_PROBLEM_FIELDS = ("prompt", "gold", "checker", "family", "level", "domain")
_ROLLOUT_FIELDS = ("answer", "author", "policy_version", "judge", "passed_frac")
_SCHEMA = pa.schema(
    {
        **dict.fromkeys(("prompt", "gold", "checker", "family"), pa.string()),
        "level": pa.int64(),
        **dict.fromkeys(("metadata", "text"), pa.string()),
        "token_ids": pa.list_(pa.int64()),
        "truncated": pa.bool_(),
        **dict.fromkeys(("answer", "verdict", "author"), pa.string()),
        "policy_version": pa.int64(),
        "judge": pa.string(),
        EARLIER_MESSAGES: pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
        "domain": pa.string(),
        "passed_frac": pa.float64(),
    }
)
# Columns that a file of an earlier version may lack.
_LATER_COLUMNS = ("judge", EARLIER_MESSAGES, "domain", "passed_frac")


class RolloutWriter:
    """Writes rollouts in row groups; only the rollouts of one `write` are in memory.

    Attributes:
        rows: Number of rollouts written.
    """

    def __init__(self, path: Path) -> None:
        self._parquet = pq.ParquetWriter(path, _SCHEMA)
        self.rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._parquet.close()

    def write(self, rollouts: Sequence[Rollout]) -> None:
        """Append the rollouts as one row group."""
        if rollouts:
            self._parquet.write_table(
                pa.Table.from_pylist([_row(rollout) for rollout in rollouts], _SCHEMA)
            )
        self.rows += len(rollouts)


def write_rollouts(path: Path, rollouts: Sequence[Rollout]) -> None:
    """Write one row per rollout, with its problem and its verdict."""
    with RolloutWriter(path) as writer:
        writer.write(rollouts)


@dataclass(frozen=True, eq=False)
class RolloutFile(Collection[Rollout]):
    """Rollouts of a parquet file, read anew whenever they are iterated, some at a time.

    Attributes:
        path: The file.
        rows: `[N]` ascending, which of its rows; None = all.
    """

    path: Path
    rows: Int[np.ndarray, " N"] | None = None

    def __len__(self) -> int:
        if self.rows is not None:
            return len(self.rows)
        rows: int = pq.read_metadata(self.path).num_rows
        return rows

    def __iter__(self) -> Iterator[Rollout]:
        for batch in self.batches():
            yield from map(_rollout, batch.to_pylist())

    def __contains__(self, rollout: object) -> bool:
        return any(rollout == other for other in self)

    def select(self, indices: Int[np.ndarray, " K"]) -> "RolloutFile":
        """Those at some places, in the file's order."""
        places = np.sort(np.asarray(indices, np.int64))
        return RolloutFile(self.path, places if self.rows is None else self.rows[places])

    def problems(self) -> Iterator[Problem]:
        """The problem of each, read without its completion."""
        for batch in self.batches([*_PROBLEM_FIELDS, "metadata", EARLIER_MESSAGES]):
            yield from map(_problem, batch.to_pylist())

    @cached_property
    def index(self) -> RolloutIndex:
        """What selections need to know of each; read once."""
        return RolloutIndex.of_batches(self.batches(RolloutIndex.COLUMNS))

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows as they are in the file, at most 512 at a time.

        Row groups of the file that have none of the rows are not read. A column that an earlier
        version did not write is null.
        """
        for batch in self._stored_batches(columns):
            for name in _LATER_COLUMNS:
                if name not in batch.schema.names and (columns is None or name in columns):
                    field = _SCHEMA.field(name)
                    batch = batch.append_column(field, pa.nulls(len(batch), field.type))
            yield batch

    def _stored_batches(self, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self.path) as file:
            start = 0
            # One reader of all row groups would take more memory the more there are.
            for groups, end in _adjacent_row_groups(file.metadata):
                if self.rows is None:
                    yield from file.iter_batches(_BATCH_ROWS, groups, columns)
                elif len(rows := _within(self.rows, start, end)):
                    yield from _taken(file.iter_batches(_BATCH_ROWS, groups, columns), rows)
                start = end

    def write(self, path: Path) -> None:
        """Copy them to a new file."""
        with pq.ParquetWriter(path, _SCHEMA) as writer:
            for batch in self.batches():
                writer.write_batch(batch.select(_SCHEMA.names).cast(_SCHEMA))


def _adjacent_row_groups(metadata: pq.FileMetaData) -> Iterator[tuple[list[int], int]]:
    """Numbers of row groups with some 512 rows together, and the row at which they end."""
    sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    ends = np.cumsum(sizes)
    for _, members in groupby(range(len(sizes)), lambda number: ends[number] // _BATCH_ROWS):
        groups = list(members)
        yield groups, int(ends[groups[-1]])


def _within(rows: Int[np.ndarray, " K"], start: int, end: int) -> Int[np.ndarray, " L"]:
    """Those of ascending `rows` from `start` to before `end`, counted from `start`."""
    return rows[slice(*np.searchsorted(rows, [start, end]))] - start


def _taken(
    batches: Iterable[pa.RecordBatch], rows: Int[np.ndarray, " K"]
) -> Iterator[pa.RecordBatch]:
    """What `batches` have at some rows, ascending."""
    start = 0
    for batch in batches:
        chosen = _within(rows, start, start + len(batch))
        if len(chosen):
            yield batch.take(pa.array(chosen))
        start += len(batch)
        if start > rows[-1]:
            return


def read_rollouts(path: Path) -> list[Rollout]:
    """Read all rollouts of a file, in order."""
    return list(RolloutFile(path))


def subsample_rollouts(path: Path, max_count: int) -> RolloutFile:
    """At most `max_count` rollouts, in order; the selection is the same each time."""
    rollouts = RolloutFile(path)
    chosen = random.Random(0).sample(range(len(rollouts)), min(max_count, len(rollouts)))
    return rollouts.select(np.array(chosen, np.int64))


def _row(rollout: Rollout) -> dict[str, Any]:
    problem, completion = rollout.problem, rollout.completion
    return {
        **{name: getattr(problem, name) for name in _PROBLEM_FIELDS},
        # Families of reasoning-gym store fractions there, which JSON cannot represent.
        "metadata": json.dumps(problem.metadata, default=str),
        "text": completion.text,
        "token_ids": list(completion.token_ids),
        "truncated": completion.truncated,
        "verdict": str(rollout.verdict),
        **{name: getattr(rollout, name) for name in _ROLLOUT_FIELDS},
        EARLIER_MESSAGES: [
            {"role": turn.role, "content": turn.content} for turn in problem.earlier_messages
        ],
    }


def _problem(row: dict[str, Any]) -> Problem:
    values = {name: row[name] for name in _PROBLEM_FIELDS}
    values["domain"] = values["domain"] or DEFAULT_DOMAIN
    earlier_messages = earlier_messages_of(row[EARLIER_MESSAGES])
    return Problem(
        **values, metadata=json.loads(row["metadata"]), earlier_messages=earlier_messages
    )


def _rollout(row: dict[str, Any]) -> Rollout:
    values: dict[str, Any] = {name: row[name] for name in _ROLLOUT_FIELDS}
    return Rollout(
        _problem(row),
        Completion(row["token_ids"], row["text"], truncated=row["truncated"]),
        verdict=Verdict(row["verdict"]),
        **values,
    )
