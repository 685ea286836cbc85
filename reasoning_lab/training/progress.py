"""How far a training is: a bar in a terminal, elsewhere a line now and then."""

import time
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from reasoning_lab.tracking.history import History

# The first of these that the stage measures is shown, under its word.
_SHOWN = {"rollout/reward_mean": "reward", "train/loss": "loss"}
_LINE_EVERY_S = 60.0


class StageProgress(Callback):
    """Shows the stage, its step of how many, loss or reward, rate and remaining time.

    Args:
        stage: Its name.
        steps: Optimizer steps of the stage.
        accumulation: Micro-batches an optimizer step.
        history: Has the values.
    """

    def __init__(self, stage: str, steps: int, accumulation: int, history: History) -> None:
        self._stage = stage
        self._steps = steps
        self._accumulation = accumulation
        self._history = history
        self._console = Console()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            console=self._console,
            transient=True,
        )
        self._first = 0
        self._started = self._printed = 0.0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        micro_batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        self._first = micro_batches // self._accumulation
        self._started = self._printed = time.monotonic()
        if self._console.is_terminal:
            self._bar.add_task(self._stage, total=self._steps, completed=self._first, status="")
            self._bar.start()
        else:
            resumed = f"goes on from step {self._first} of {self._steps}"
            what = resumed if self._first else f"trains for {self._steps} steps"
            self._print(f"{self._stage}: {what}")

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        step, rest = divmod(index + 1, self._accumulation)
        if rest or not trainer.is_global_zero:
            return
        now = time.monotonic()
        step_s = (now - self._started) / max(1, step - self._first)
        if self._console.is_terminal:
            for task in self._bar.task_ids:
                self._bar.update(task, completed=step, status=self._status(step, step_s))
        elif now - self._printed >= _LINE_EVERY_S:
            self._printed = now
            status = self._status(step, step_s)
            self._print(f"{self._stage}: step {step} of {self._steps}, {status}")

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._close()

    def on_exception(
        self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._close()

    def _status(self, step: int, step_s: float) -> str:
        values = ((word, self._history.latest(metric)) for metric, word in _SHOWN.items())
        shown = [f"{word} {value:.3f}" for word, value in values if value is not None][:1]
        rate = f"{step_s:.2f} s a step" if step_s >= 0.1 else f"{1 / step_s:.0f} steps a second"
        left = timedelta(seconds=round((self._steps - step) * step_s))
        return ", ".join([*shown, rate, f"{left} left"])

    def _close(self) -> None:
        if self._bar.task_ids:  # One that never started would print an empty line.
            self._bar.stop()

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
