"""The weights with the best validation measure so far, kept as a file beside the training states.

Each state says which weights were the best when it was saved, and that file stays as long as the
state does. So a run that is killed anywhere ends with the same weights. A sharded policy is
gathered on rank 0, which writes the file.
"""

import logging
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from reasoning_lab.system.files import find_checksummed, remove, rename_with_checksum
from reasoning_lab.system.ranks import rank
from reasoning_lab.training.strategies import gathered_weights
from reasoning_lab.types import UserError

log = logging.getLogger(__name__)

# The files of the weights, in the folder of the training states.
WEIGHTS_PATTERN = "best-*"
_LOSS, _PASS_AT_1 = "val/loss", "val/pass@1"
_METRICS = {"best_loss": _LOSS, "best_pass@1": _PASS_AT_1}


class BestWeights(Callback):
    """Keeps the weights of the lowest validation loss, or of the highest pass@1.

    Args:
        choice: `best_loss` or `best_pass@1`, as in `TrainingStage.weights`.
        policy: The policy that learns.
        folder: That of the training states.
        steps: All that are planned.
        stage: The stage's name, for messages.

    Attributes:
        by_loss: Whether the loss decides, which Lightning's validation measures.
        value: The best value so far; None = nothing was measured, or never a number.
        step: Optimizer steps, in RL batches of prompts, after which it was measured.
    """

    def __init__(
        self, choice: str, policy: PreTrainedModel, folder: Path, steps: int, stage: str
    ) -> None:
        self.metric = _METRICS[choice]
        self.by_loss = self.metric == _LOSS
        self.value: float | None = None
        self.step = 0
        self._policy, self._folder = policy, folder
        self._steps, self._stage = steps, stage
        # Of each state that is kept, the step of its best weights.
        self._of_states: dict[int, int] = {}
        self._at_start: int | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Have Lightning validate after the last step too, as it does before it stops early."""
        if self.by_loss and trainer.global_step == self._steps:
            trainer.should_stop = True

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.by_loss:
            self.observe({_LOSS: float(trainer.callback_metrics[_LOSS])}, trainer.global_step)

    def observe(self, metrics: Mapping[str, float], step: int) -> None:
        """Keep the policy's weights if they are better; every rank calls it with equal values.

        Args:
            metrics: Of a validation; without the one that decides, nothing is compared.
            step: Optimizer steps that the policy has seen.
        """
        value = metrics.get(self.metric)
        if value is None or math.isnan(value) or not self._is_better(value):
            return
        self.value, self.step = value, step
        weights = gathered_weights(self._policy)
        if rank() == 0:
            draft = self._folder / "best.draft"
            draft.parent.mkdir(parents=True, exist_ok=True)
            save_file({name: weight.contiguous() for name, weight in weights.items()}, draft)
            path = rename_with_checksum(draft, _stem(step))
            for other in self._folder.glob(f"{_stem(step)}-*"):
                if other != path:  # Of an attempt that was killed, on a device that rounds anew.
                    remove(other)
            self._remove_unneeded()

    def keep_for(self, state: int, kept: Collection[int]) -> None:
        """A state was saved at step `state`; those at the steps `kept` are there now."""
        if self.value is not None:
            self._of_states[state] = self.step
        self._of_states = {s: best for s, best in self._of_states.items() if s in kept}
        if self._of_states.keys() >= set(kept):
            self._at_start = None
        self._remove_unneeded()

    def load(self) -> dict[str, Tensor]:
        """The best weights, by name, on the CPU; rank 0 calls it where there is a `value`.

        Raises:
            UserError: Their file is damaged.
        """
        file = find_checksummed(self._folder, _stem(self.step))
        if file is None:
            raise UserError(
                f"stages.{self._stage}: the best weights, of step {self.step}, are damaged; remove "
                f"{self._folder.parent} and run the same command again, which trains anew"
            )
        return load_file(file)

    def state_dict(self) -> dict[str, Any]:
        of_states = [[*self._of_states], [*self._of_states.values()]]
        return {"value": self.value, "step": self.step, "of_states": of_states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.value, self.step = state["value"], state["step"]
        self._of_states = dict(zip(*state["of_states"], strict=True))
        self._at_start = self.step
        if self.value is not None and rank() == 0:
            self.load()

    def _is_better(self, value: float) -> bool:
        if self.value is None:
            return True
        return value < self.value if self.by_loss else value > self.value

    def _remove_unneeded(self) -> None:
        needed = {self.step, self._at_start, *self._of_states.values()}
        stems = {_stem(step) for step in needed if step is not None}
        for path in self._folder.glob(WEIGHTS_PATTERN):
            if path.name.rpartition("-")[0] not in stems:
                remove(path)


def _stem(step: int) -> str:
    return f"best-{step:08d}"
