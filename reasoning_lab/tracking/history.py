"""Each training step's metrics, stored with the policy: curves without a tracker.

While a stage trains, they are part of its training state, so a state contains the metrics of
exactly its own steps. Times are left out, as they would change an artifact's files between runs.
"""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

HISTORY = "history.parquet"
_UNTRACKED_PREFIXES = ("time/", "epoch")

Curves = dict[str, dict[int, float]]


class History(Logger):
    """Collects metrics as a logger for `pl.Trainer(logger=…)`, beside the tracker's logger."""

    def __init__(self) -> None:
        super().__init__()
        self._curves: Curves = {}

    @property
    def name(self) -> str | None:
        return "history"

    @property
    def version(self) -> str | None:
        return None

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        for key, value in metrics.items():
            if not key.startswith(_UNTRACKED_PREFIXES):
                self._curves.setdefault(key, {})[step or 0] = float(value)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kw: Any) -> None:
        pass

    def latest(self, metric: str) -> float | None:
        """The metric's last value; None = it was never logged."""
        values = self._curves.get(metric)
        return values[next(reversed(values))] if values else None

    def state_dict(self) -> dict[str, Any]:
        """All curves as plain JSON: each metric's steps and values."""
        return {key: [[*values], [*values.values()]] for key, values in self._curves.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace all curves with those of `state_dict`."""
        self._curves = {
            key: dict(zip(steps, values, strict=True)) for key, (steps, values) in state.items()
        }

    @rank_zero_only
    def write(self, folder: Path) -> None:
        """Write `history.parquet` into `folder`: columns `step`, `metric`, `value`."""
        rows = sorted((key, step) for key, values in self._curves.items() for step in values)
        columns = {
            "step": pa.array([step for _, step in rows], pa.int64()),
            "metric": pa.array([key for key, _ in rows], pa.string()),
            "value": pa.array([self._curves[key][step] for key, step in rows], pa.float64()),
        }
        pq.write_table(pa.table(columns), folder / HISTORY)


def read_history(folder: Path) -> Curves:
    """Each metric's values by step, for the policy in `folder`; empty without a history file."""
    if not (folder / HISTORY).exists():
        return {}
    curves: Curves = {}
    for row in pq.read_table(folder / HISTORY).to_pylist():
        curves.setdefault(row["metric"], {})[row["step"]] = row["value"]
    return curves
