"""The state that a killed training goes on from: written whole or not at all, checked when read.

Lightning collects the state, a folder where ranks hold shards; here it is sealed with its
checksum, flushed and renamed into place, and the one before it is kept until then. Where a
validation follows a step, the state is saved after it: Lightning skips that validation on
resuming, and early stopping would miss what it saw.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from reasoning_lab.files import intact, remove, seal
from reasoning_lab.ranks import Peers, rank, world_size

log = logging.getLogger(__name__)

_KEPT = 2
_PATTERN = "step-*"
_DRAFT = "draft"


class Checkpoints(Checkpoint):
    """Saves the training state every so many optimizer steps; also torch's random state.

    Args:
        folder: Where it is kept.
        every_steps: Optimizer steps between two.
        accumulation: Micro-batches an optimizer step.
        validate_every_steps: Optimizer steps between two validations; None = there is none.
    """

    def __init__(
        self,
        folder: Path,
        every_steps: int,
        accumulation: int,
        validate_every_steps: int | None,
    ) -> None:
        self._folder = folder
        self._every_steps = every_steps
        self._accumulation = accumulation
        self._validate_every_steps = validate_every_steps
        self._step = 0
        self._peers = Peers()

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """A kill may have left half a state of sharded processes."""
        if trainer.is_global_zero:
            remove(self._folder / _DRAFT)
        trainer.strategy.barrier()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        self._step, rest = divmod(index + 1, self._accumulation)
        validates = self._validate_every_steps and self._step % self._validate_every_steps == 0
        if not rest and not validates:
            self._save_if_due(trainer)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._save_if_due(trainer)

    def state_dict(self) -> dict[str, Any]:
        on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        own = {"cpu": torch.get_rng_state(), "cuda": on_gpus}
        return {"of_rank": self._peers.gathered(own)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        own = state["of_rank"][rank()]
        torch.set_rng_state(own["cpu"].cpu())
        if len(own["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([each.cpu() for each in own["cuda"]])

    def _save_if_due(self, trainer: pl.Trainer) -> None:
        if self._step % self._every_steps:
            return
        draft = self._folder / _DRAFT
        trainer.save_checkpoint(draft, weights_only=False)
        if trainer.is_global_zero:
            seal(draft, f"step-{self._step:08d}")
            for old in sorted(self._folder.glob(_PATTERN))[:-_KEPT]:
                remove(old)
        trainer.strategy.barrier()


class DirectIO(TorchCheckpointIO):
    """Writes straight to the path; Lightning's own way makes a copy in memory and one in /tmp."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, path)


def states_of(work_dir: Path, strategy: str, accumulation: int) -> Path:
    """Where training states are kept, which serve only as many processes with equal shares.

    A state counts micro-batches, so one of another division would go on at a wrong place.
    """
    folder = work_dir / f"{strategy}-{world_size()}x{accumulation}"
    others = sorted({path.parent.name for path in work_dir.glob(f"*/{_PATTERN}")} - {folder.name})
    if others and not folder.exists() and rank() == 0:
        log.warning(
            "%s holds training states of another strategy, number of devices or micro-batches "
            "(%s): the stage starts anew; with the former options it goes on.",
            work_dir,
            ", ".join(others),
        )
    return folder


def last_checkpoint(folder: Path) -> Path | None:
    """The newest state in `folder` that is what it was when it was saved.

    Damaged ones are named in the log and set aside.
    """
    for path in sorted(folder.glob(_PATTERN), reverse=True):
        if intact(path):
            return path
        log.warning("%s is damaged; going on from the state before it.", path)
        path.rename(path.with_name(f"damaged-{path.name}"))
    return None
