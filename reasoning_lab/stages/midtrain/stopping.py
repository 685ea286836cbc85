"""Early stopping that lets the learning rate fall before it ends the training."""

import logging
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason

log = logging.getLogger(__name__)


class PatienceStopping(EarlyStopping):
    """Stops when the validation loss has not fallen for a while, and after the decay that follows.

    A run that was killed after the decision keeps to it when it goes on.

    Args:
        patience: Validations without a lower loss.
        decay_steps: Optimizer steps over which the rate falls then, a multiple of those between two
            validations; 0 = training ends at once.
        steps: All that are planned; the fall is shorter where fewer are left.
        stage: Its name, for the log.
    """

    def __init__(self, patience: int, decay_steps: int, steps: int, stage: str) -> None:
        super().__init__("val/loss", patience=patience, check_on_train_epoch_end=False)
        self._decay_steps, self._steps, self._stage = decay_steps, steps, stage
        self._decided_at: int | None = None

    def rate_factor(self, step: int) -> float:
        """What the learning rate of a step, counted from 0, is multiplied by."""
        if self._decided_at is None or not self._decay_steps:
            return 1.0
        fall = max(1, min(self._decay_steps, self._steps - self._decided_at))
        return max(0.0, 1.0 - (step - self._decided_at) / fall)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = self._is_over(trainer.global_step)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        stops = self.stopping_reason != EarlyStoppingReason.NOT_STOPPED
        if stops and self._decided_at is None:
            self._decided_at = trainer.global_step
            exhausted = self.stopping_reason == EarlyStoppingReason.PATIENCE_EXHAUSTED
            log.info(
                "stages.%s: the validation loss %s at step %d; training ends after %d steps more.",
                self._stage,
                f"has not fallen for {self.patience} validations" if exhausted else "is not finite",
                self._decided_at,
                min(self._decay_steps, self._steps - self._decided_at),
            )
        trainer.should_stop = self._is_over(trainer.global_step)

    def _is_over(self, step: int) -> bool:
        return self._decided_at is not None and step >= self._decided_at + self._decay_steps

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "decided_at": self._decided_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._decided_at = state_dict["decided_at"]
