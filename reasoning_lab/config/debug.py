"""What the options of the group `debug` set; null everywhere = a run as it is configured."""

import dataclasses
from dataclasses import dataclass

from reasoning_lab.config.fields import number
from reasoning_lab.config.optimization import OptimizationConfig


@dataclass
class DebugConfig:
    """Changes of every training stage.

    Attributes:
        steps: Optimizer steps, in place of the stage's length.
        overfit_batches: See `OptimizationConfig`.
        detect_anomaly: See `OptimizationConfig`.
    """

    steps: int | None = number(None, least=1)
    overfit_batches: int | None = number(None, least=1)
    detect_anomaly: bool | None = None

    def applied(self, optimization: OptimizationConfig) -> OptimizationConfig:
        """`optimization` under these changes, which are part of what the stage is."""
        return dataclasses.replace(
            optimization,
            length=f"{self.steps} steps" if self.steps else optimization.length,
            overfit_batches=self.overfit_batches or optimization.overfit_batches,
            detect_anomaly=self.detect_anomaly or optimization.detect_anomaly,
        )
