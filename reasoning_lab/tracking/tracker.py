"""Where a stage's metrics and tables go.

A further tracker derives from `Tracker`; `wandb.py` has the one for Weights & Biases.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from reasoning_lab.graph.record import Record
from reasoning_lab.types import Rollout

if TYPE_CHECKING:
    from pytorch_lightning.loggers.logger import Logger

# The x axis of every metric. A tracker's own step counter starts again when a stage is resumed.
GLOBAL_STEP = "trainer/global_step"


class Tracker:
    """Receives a stage's metrics, tables and artifacts; this one drops all (`mode=disabled`).

    Attributes:
        run_id: The tracker's name of the run; None = it has none.
        lightning_logger: For `pl.Trainer(logger=…)`; None = no logger.
    """

    run_id: str | None = None
    lightning_logger: "Logger | None" = None

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
