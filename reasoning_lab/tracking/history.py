"""Each training step's metrics: to the tracker, and stored with the policy as curves.

While a stage trains, its history is part of its training state, so a state contains the metrics of
exactly its own steps. Times and the device's use are left out, as they would change an artifact's
files between runs.
"""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from reasoning_lab.tracking.curves import HISTORY, Curves
from reasoning_lab.tracking.tracker import GLOBAL_STEP, Tracker

_UNTRACKED_PREFIXES = ("time/", "device/", "epoch")


class _MetricsLogger(Logger):
    """A logger for `pl.Trainer(logger=…)` of metrics alone; the artifact has the options."""

    name = version = "metrics"

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kw: Any) -> None:
        pass


class TrackerLogger(_MetricsLogger):
    """Passes metrics to a tracker."""

    def __init__(self, tracker: Tracker) -> None:
        super().__init__()
        self._tracker = tracker

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._tracker.log({**metrics, **({} if step is None else {GLOBAL_STEP: step})})


class History(_MetricsLogger):
    """Collects metrics."""

    def __init__(self) -> None:
        super().__init__()
        self._curves: Curves = {}

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        for key, value in metrics.items():
            if not key.startswith(_UNTRACKED_PREFIXES):
                self._curves.setdefault(key, {})[step or 0] = float(value)

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
