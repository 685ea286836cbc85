"""Rollouts on disk: parquet, one row a rollout, written and read a row group at a time."""

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from reasoning_lab.types import Completion, Problem, Rollout, Verdict

PROMPT_IDS = "prompt_ids.txt"
_BATCH_ROWS = 4096
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
    """Writes rollouts as they come; holds only those of one `write` in memory.

    Args:
        path: The parquet file.
    """

    def __init__(self, path: Path) -> None:
        self._parquet = pq.ParquetWriter(path, _SCHEMA)
        self.rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._parquet.close()

    def write(self, rollouts: Sequence[Rollout]) -> None:
        """Add rollouts, which become one row group."""
        if rollouts:
            self._parquet.write_table(
                pa.Table.from_pylist([_row(rollout) for rollout in rollouts], _SCHEMA)
            )
        self.rows += len(rollouts)


def write_rollouts(path: Path, rollouts: Sequence[Rollout]) -> None:
    """Write one row a rollout, its problem and its verdict included."""
    with RolloutWriter(path) as writer:
        writer.write(rollouts)


def read_rollouts(path: Path) -> list[Rollout]:
    """Read what was written, in order."""
    return list(stream_rollouts(path))


def some_rollouts(path: Path, most: int) -> list[Rollout]:
    """At most so many of those written, the same each time, in order; the others stay unread."""
    table = pq.read_table(path)
    kept = random.Random(0).sample(range(table.num_rows), min(most, table.num_rows))
    return [_rollout(row) for row in table.take(sorted(kept)).to_pylist()]


def stream_rollouts(path: Path) -> Iterator[Rollout]:
    """As `read_rollouts`, with no more than a batch of rows in memory."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH_ROWS):
            yield from map(_rollout, batch.to_pylist())


def write_prompt_ids(folder: Path, problems: Iterable[Problem]) -> None:
    """Record which prompts a stage trained on, for the held-out check."""
    ids = sorted({problem.id for problem in problems})
    (folder / PROMPT_IDS).write_text("\n".join(ids) + "\n")


def read_prompt_ids(folder: Path) -> set[str]:
    """The ids that `write_prompt_ids` left in `folder`; none where a stage drew no problem."""
    path = folder / PROMPT_IDS
    return set(path.read_text().split()) if path.exists() else set()


def _row(rollout: Rollout) -> dict[str, Any]:
    problem, completion = rollout.problem, rollout.completion
    return {
        "prompt": problem.prompt,
        "gold": problem.gold,
        "checker": problem.checker,
        "family": problem.family,
        "level": problem.level,
        # Families of reasoning-gym keep fractions there, which JSON has not.
        "metadata": json.dumps(problem.metadata, default=str),
        "text": completion.text,
        "token_ids": list(completion.token_ids),
        "truncated": completion.truncated,
        "answer": rollout.answer,
        "verdict": str(rollout.verdict),
        "author": rollout.author,
        "policy_version": rollout.policy_version,
        "judge": rollout.judge,
    }


def _rollout(row: dict[str, Any]) -> Rollout:
    problem = Problem(
        prompt=row["prompt"],
        gold=row["gold"],
        checker=row["checker"],
        family=row["family"],
        level=row["level"],
        metadata=json.loads(row["metadata"]),
    )
    completion = Completion(row["token_ids"], row["text"], truncated=row["truncated"])
    return Rollout(
        problem=problem,
        completion=completion,
        answer=row["answer"],
        verdict=Verdict(row["verdict"]),
        author=row["author"],
        policy_version=row["policy_version"],
        judge=row.get("judge"),
    )
