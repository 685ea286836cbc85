"""A Lightning logger that passes metrics to a tracker."""

from argparse import Namespace
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from reasoning_lab.tracking.tracker import GLOBAL_STEP, Tracker


class TrackerLogger(Logger):
    """A logger for `pl.Trainer(logger=…)`; hyperparameters are not logged again."""

    def __init__(self, tracker: Tracker) -> None:
        super().__init__()
        self._tracker = tracker

    @property
    def name(self) -> str | None:
        return "tracker"

    @property
    def version(self) -> str | None:
        return self._tracker.run_id

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._tracker.log({**metrics, **({} if step is None else {GLOBAL_STEP: step})})

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kw: Any) -> None:
        pass
