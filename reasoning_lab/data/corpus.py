"""Rollouts on disk: parquet, one row per rollout, written and read in row groups."""

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int

from reasoning_lab.types import Completion, Problem, Rollout, Verdict

PROMPT_IDS = "prompt_ids.txt"
_BATCH_ROWS = 4096
# The fields whose values a column holds as they are.
_PROBLEM_FIELDS = ("prompt", "gold", "checker", "family", "level")
_ROLLOUT_FIELDS = ("answer", "author", "policy_version", "judge")
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
    }
)


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


def read_rollouts(path: Path) -> list[Rollout]:
    """Read all rollouts of a file, in order."""
    return list(stream_rollouts(path))


def subsample_rollouts(path: Path, max_count: int) -> list[Rollout]:
    """Read at most `max_count` rollouts, in order; the selection is the same each time."""
    table = pq.read_table(path)
    selected = random.Random(0).sample(range(table.num_rows), min(max_count, table.num_rows))
    return [_rollout(row) for row in table.take(sorted(selected)).to_pylist()]


def stream_rollouts(path: Path) -> Iterator[Rollout]:
    """Yield what `read_rollouts` returns, with one batch of rows in memory."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH_ROWS):
            yield from map(_rollout, batch.to_pylist())


def problems_of_rows(path: Path, rows: Int[np.ndarray, " K"]) -> Iterator[Problem]:
    """Yield the problems of some rows, ascending, with one batch of rows in memory."""
    start = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=[*_PROBLEM_FIELDS, "metadata"]):
            here = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + len(batch))]
            if len(here):
                yield from map(_problem, batch.take(pa.array(here - start)).to_pylist())
            start += len(batch)


def write_prompt_ids(folder: Path, problems: Iterable[Problem]) -> None:
    """Record the prompts that a stage trained on, for the held-out check."""
    ids = sorted({problem.id for problem in problems})
    (folder / PROMPT_IDS).write_text("\n".join(ids) + "\n")


def read_prompt_ids(folder: Path) -> set[str]:
    """Read the ids that `write_prompt_ids` wrote; empty where a stage drew no problem."""
    path = folder / PROMPT_IDS
    return set(path.read_text().split()) if path.exists() else set()


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
    }


def _problem(row: dict[str, Any]) -> Problem:
    values = {name: row[name] for name in _PROBLEM_FIELDS}
    return Problem(**values, metadata=json.loads(row["metadata"]))


def _rollout(row: dict[str, Any]) -> Rollout:
    # A corpus of an earlier version names no judge.
    values: dict[str, Any] = {name: row.get(name) for name in _ROLLOUT_FIELDS}
    return Rollout(
        _problem(row),
        Completion(row["token_ids"], row["text"], truncated=row["truncated"]),
        verdict=Verdict(row["verdict"]),
        **values,
    )
