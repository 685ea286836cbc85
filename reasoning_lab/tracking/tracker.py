"""Where a stage's metrics and tables go: the protocol of all trackers.

A further tracker is one class that derives from `Tracker`. It overrides what it can show;
`trackers.py` says once what it leaves out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from reasoning_lab.config.tracker import TrackerConfig
from reasoning_lab.graph.record import Record
from reasoning_lab.types import Rollout

# The x axis of every metric. A tracker's own step counter starts again when a stage is resumed.
GLOBAL_STEP = "trainer/global_step"
_ROLLOUT_COLUMNS = (
    *("problem", "completion", "gold", "answer", "verdict"),
    *("domain", "family", "level", "tokens", "judge"),
)


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """What a tracker's run is.

    Attributes:
        config: Project, entity and tags.
        modes: Each tracker that is used, by its name in `tracker.backends`, with its mode: `online`
            or `offline`.
        runs_dir: The folder of all runs; a tracker writes into a folder of its own there.
        run_id: Identifies the run, so that a resumed stage continues it.
        name: The name that is shown.
        group: The recipe run.
        job_type: The stage, or `summary`.
        tags: Tags in addition to those of the config.
        settings: The stage's resolved config.
    """

    config: TrackerConfig
    modes: Mapping[str, str]
    runs_dir: Path
    run_id: str
    name: str
    group: str
    job_type: str
    tags: Sequence[str]
    settings: Mapping[str, Any]


class Tracker:
    """Receives a stage's metrics, tables and artifacts; this one drops all.

    A tracker's class is called with a `TrackedRun` and its mode. A tracker that raises is left out
    for the rest of the stage.
    """

    @classmethod
    def check(cls) -> None:
        """Raise UserError if the tracker cannot be used on this machine, with the remedy."""

    @classmethod
    def mode(cls, config: TrackerConfig) -> str:
        """`online`, `offline` or `disabled`, as config and environment have it."""
        return "online" if config.mode == "auto" else config.mode

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Log values by name."""

    def log_rollouts(
        self,
        key: str,
        rollouts: Sequence[Rollout],
        extra_columns: Mapping[str, Sequence[float]] = MappingProxyType({}),
    ) -> None:
        """Log a table of completions with their verdicts.

        `extra_columns` are further columns by name, with one number for each rollout.
        """

    def log_artifact(self, artifact: Record, inputs: Sequence[Record]) -> None:
        """Log a reference to an artifact's folder, and the artifacts it was made from."""

    def log_ladder(self, rows: Sequence[Mapping[str, Any]], figure: Path) -> None:
        """Log the complete stage table of a recipe run, reused stages included."""

    def finish(self) -> None:
        """End the run."""


def rollout_table(
    rollouts: Sequence[Rollout], extra_columns: Mapping[str, Sequence[float]]
) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of a table of rollouts, as all trackers show it."""
    rows = [
        [
            rollout.problem.transcript,
            rollout.completion.text,
            rollout.problem.gold,
            rollout.answer,
            str(rollout.verdict),
            rollout.problem.domain,
            rollout.problem.family,
            rollout.problem.level,
            len(rollout.completion.token_ids),
            rollout.judge,
            *(column[number] for column in extra_columns.values()),
        ]
        for number, rollout in enumerate(rollouts)
    ]
    return [*_ROLLOUT_COLUMNS, *extra_columns], rows


def ladder_points(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, str, float]]:
    """Of each row the number of its stage, `BENCHMARK/pass@1`, and its value."""
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    return [
        (stages.index(row["stage"]), f"{row['benchmark']}/pass@1", row["pass@1"]) for row in rows
    ]


def ladder_table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of the complete stage table."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    values = [[row.get(name) for name in columns] for row in rows]
    return columns, [[str(v) if isinstance(v, list) else v for v in row] for row in values]
