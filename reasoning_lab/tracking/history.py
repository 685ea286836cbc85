"""Each training step's metrics, kept with the policy: curves that need no tracker.

While a stage trains they are lines of JSON in its work folder; a step that is trained again after
a kill is told again, and its last telling counts. Times are left out, as an artifact's files are
the same whenever they are made.
"""

import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

HISTORY = "history.parquet"
_LINES = "history.jsonl"
_LEFT_OUT = ("time/", "epoch")

Curves = dict[str, dict[int, float]]


class History(Logger):
    """What `pl.Trainer(logger=…)` takes beside the tracker's.

    Args:
        work_dir: The stage's, which outlives a kill.
    """

    def __init__(self, work_dir: Path) -> None:
        super().__init__()
        self._path = work_dir / _LINES

    @property
    def name(self) -> str | None:
        return "history"

    @property
    def version(self) -> str | None:
        return None

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        kept = {key: value for key, value in metrics.items() if not key.startswith(_LEFT_OUT)}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            # A line that a kill cut short ends here at the latest.
            file.write("\n" + json.dumps([step or 0, kept]))

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kw: Any) -> None:
        pass

    @rank_zero_only
    def write(self, folder: Path) -> None:
        """Write `history.parquet` into `folder`: columns `step`, `metric`, `value`."""
        found: dict[tuple[str, int], float] = {}
        lines = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        for line in lines.splitlines():
            step, metrics = _parsed(line)
            found |= {(key, step): value for key, value in metrics.items()}
        rows = sorted(found)
        columns = {
            "step": pa.array([step for _, step in rows], pa.int64()),
            "metric": pa.array([key for key, _ in rows], pa.string()),
            "value": pa.array([found[row] for row in rows], pa.float64()),
        }
        pq.write_table(pa.table(columns), folder / HISTORY)


def read_history(folder: Path) -> Curves:
    """Each metric's values by step, of the policy in `folder`; empty where none was kept."""
    if not (folder / HISTORY).exists():
        return {}
    curves: Curves = {}
    for row in pq.read_table(folder / HISTORY).to_pylist():
        curves.setdefault(row["metric"], {})[row["step"]] = row["value"]
    return curves


def _parsed(line: str) -> tuple[int, dict[str, float]]:
    try:
        step, metrics = json.loads(line)
    except ValueError:
        return 0, {}
    return step, metrics
