"""What a training says of how far it is, as a callback of Lightning."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from reasoning_lab.tracking.progress import Task

# The first that a stage measures is shown.
_OBJECTIVES = {"rollout/reward_mean": "reward", "train/loss": "loss"}
_LEARNING_RATE = "train/learning_rate"


class TrainingProgress(Callback):
    """Counts optimizer steps and the tokens that the module trained on.

    Args:
        task: Counts the stage's optimizer steps.
        accumulation: Micro-batches an optimizer step.
    """

    def __init__(self, task: Task, accumulation: int) -> None:
        self._task = task
        self._accumulation = accumulation
        self._tokens = 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        micro_batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        self._tokens = _train_tokens(module)
        self._task.start(micro_batches // self._accumulation)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        if (index + 1) % self._accumulation:
            return
        tokens = _train_tokens(module)
        self._task.advance(1, tokens - self._tokens)
        self._tokens = tokens


def in_words(metrics: Mapping[str, float | Tensor]) -> list[str]:
    """The reward, or else the loss, and the learning rate among a step's `metrics`."""
    measured = [key for key in _OBJECTIVES if key in metrics][:1]
    words = [f"{_OBJECTIVES[key]} {float(metrics[key]):.3f}" for key in measured]
    if _LEARNING_RATE in metrics:
        words.append(f"learning rate {float(metrics[_LEARNING_RATE]):.1e}")
    return words


def _train_tokens(module: pl.LightningModule) -> int:
    tokens: int = module.train_tokens  # type: ignore[assignment]  # A PolicyModule's.
    return tokens
