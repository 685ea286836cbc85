"""The state that a killed training goes on from: written whole or not at all, checked when read.

Lightning collects the state, a folder where ranks hold shards; here it is sealed with its
checksum, flushed and renamed into place; only then are older ones removed. Where a validation
follows a step, the state is saved after it: Lightning skips that validation on resuming, and early
stopping would miss what it saw.
"""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from reasoning_lab.config.optimization import OptimizationConfig
from reasoning_lab.system.files import matches_checksum, remove, rename_with_checksum
from reasoning_lab.system.interrupts import RESUME_HINT, Interrupted, StopRequest
from reasoning_lab.system.ranks import Peers, rank, world_size
from reasoning_lab.training.best_weights import BestWeights

log = logging.getLogger(__name__)

_PATTERN = "step-*"
_DRAFT = "draft"


class Record(Protocol):
    """What a stage counts or keeps beside the weights; its state is plain JSON."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@dataclass(eq=False)
class Checkpoints(Checkpoint):
    """Saves the training state: every so often, and before the stage is stopped.

    A state holds torch's random state and the `records` of each rank as they are at its step, so
    all that a step adds to them must be there when its last micro-batch ends.

    Attributes:
        stage: Its name, for messages.
        folder: Where states are kept.
        optimization: How often one is saved, and of how many steps.
        accumulation: Micro-batches an optimizer step.
        validate_every_steps: Optimizer steps between two validations; None = there is none.
        records: What is saved with the training state and goes on with it, by name; so is `best`.
        stop: Says when the stage is to stop.
        best: Keeps the best weights beside the states; None = the last are the policy.
        step: Optimizer steps that are trained.
    """

    stage: str
    folder: Path
    optimization: OptimizationConfig
    accumulation: int
    validate_every_steps: int | None
    records: Mapping[str, Record]
    stop: StopRequest
    best: BestWeights | None = None
    step: int = field(default=0, init=False)
    _saved_at: float = field(default=0.0, init=False)
    _peers: Peers = field(default_factory=Peers, init=False)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """A kill may have left half a state of sharded processes."""
        if trainer.is_global_zero:
            remove(self.folder / _DRAFT)
        trainer.strategy.barrier()
        self._saved_at = time.monotonic()
        # Not before: Lightning has set handlers of its own, which know nothing of states.
        self.stop.listen()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        self.step, rest = divmod(index + 1, self.accumulation)
        every = self.validate_every_steps
        validates = every and (self.step % every == 0 or self._ends_with_validation)
        if not rest and not validates:
            self._end_step(trainer)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._end_step(trainer)

    @property
    def _ends_with_validation(self) -> bool:
        """Whether this is the last step, and its validation follows."""
        last = self.step == self.optimization.steps
        return last and self.best is not None and self.best.by_loss

    @property
    def _records(self) -> Mapping[str, Record]:
        return self.records if self.best is None else {**self.records, "best": self.best}

    def state_dict(self) -> dict[str, Any]:
        on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        # As text: a state is read without running what it holds, whatever a record is made of.
        records = {name: json.dumps(item.state_dict()) for name, item in self._records.items()}
        of_this_rank = {"cpu": torch.get_rng_state(), "cuda": on_gpus, "records": records}
        return {"step": self.step, "of_rank": self._peers.all_gather(of_this_rank)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step = state["step"]
        of_this_rank = state["of_rank"][rank()]
        torch.set_rng_state(of_this_rank["cpu"].cpu())
        if len(of_this_rank["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([device.cpu() for device in of_this_rank["cuda"]])
        for name, record in self._records.items():
            record.load_state_dict(json.loads(of_this_rank["records"][name]))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """A longer training goes on after what was the last batch of a shorter one.

        Whether a batch is the last follows from the number of batches.
        """
        checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"] = False

    def _end_step(self, trainer: pl.Trainer) -> None:
        """Save the state if it is time, or if the stage is to stop.

        Raises:
            Interrupted: The stage was to stop, and its state is saved.
        """
        waited_minutes = (time.monotonic() - self._saved_at) / 60
        late = waited_minutes >= self.optimization.checkpoint_every_minutes
        # Clocks and signals differ from rank to rank; a signal's number is more than 1.
        wish = self._peers.all_reduce_max(self.stop.signum or int(late))
        kept = self.optimization.keep_state and self.step == self.optimization.steps
        if wish or kept or self.step % self.optimization.checkpoint_every_steps == 0:
            self._save(trainer)
        if wish > 1:
            raise Interrupted(
                f"stages.{self.stage}: stopped, with its state saved at step {self.step} of "
                f"{self.optimization.steps}; {RESUME_HINT}.",
                wish,
            )

    def _save(self, trainer: pl.Trainer) -> None:
        draft = self.folder / _DRAFT
        trainer.save_checkpoint(draft, weights_only=False)
        if trainer.is_global_zero:
            rename_with_checksum(draft, f"step-{self.step:08d}")
            states = sorted(self.folder.glob(_PATTERN))
            for old in states[: -self.optimization.keep_checkpoints]:
                remove(old)
            if self.best is not None:
                kept = states[-self.optimization.keep_checkpoints :]
                self.best.keep_for(self.step, [int(path.name.split("-")[1]) for path in kept])
        trainer.strategy.barrier()
        self._saved_at = time.monotonic()


class DirectIO(TorchCheckpointIO):
    """Writes straight to the path; Lightning's own way makes a copy in memory and one in /tmp."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, path)


def states_of(work_dir: Path, strategy: str, accumulation: int) -> Path:
    """Where training states are kept, which serve only as many processes with equal shares.

    A state counts micro-batches, so one of another division would go on at a wrong place; the name
    says, too, that it holds the stage's records, which states of earlier versions lack.
    """
    folder = work_dir / f"{strategy}-{world_size()}x{accumulation}-with-records"
    others = sorted({path.parent.name for path in work_dir.glob(f"*/{_PATTERN}")} - {folder.name})
    if others and not folder.exists() and rank() == 0:
        log.warning(
            "%s holds training states of another strategy, number of devices or micro-batches, "
            "or of an earlier version (%s): the stage starts anew; with the former options it "
            "goes on.",
            work_dir,
            ", ".join(others),
        )
    return folder


def step_of(state: Path) -> int:
    """Optimizer steps that were trained when it was saved."""
    return int(state.name.split("-")[1].split(".")[0])


def last_checkpoint(folder: Path) -> Path | None:
    """The newest state in `folder` that is what it was when it was saved.

    Damaged ones are named in the log and set aside.
    """
    for path in sorted(folder.glob(_PATTERN), reverse=True):
        if matches_checksum(path):
            return path
        log.warning("%s is damaged; going on from the state before it.", path)
        path.rename(path.with_name(f"damaged-{path.name}"))
    return None
