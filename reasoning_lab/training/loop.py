"""What every training stage shares.

A training stage gives its LightningModule and an ordered plan of batches to `fit`; the loop,
checkpoints and resumption are Lightning's.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.optimization import OptimizationConfig
from reasoning_lab.graph.stage import Metrics
from reasoning_lab.models.adapters import has_adapter, trainable_weights
from reasoning_lab.models.policy import save_policy
from reasoning_lab.models.policy_artifact import LAST_WEIGHTS
from reasoning_lab.system import malloc
from reasoning_lab.system.interrupts import StopRequest
from reasoning_lab.system.ranks import broadcast_from_rank0, rank, world_size
from reasoning_lab.tracking.history import History, TrackerLogger
from reasoning_lab.training.best_weights import BestWeights
from reasoning_lab.training.checkpoints import (
    Checkpoints,
    DirectIO,
    Record,
    last_checkpoint,
    states_of,
)
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.continuing import keep_last_state, kept_state
from reasoning_lab.training.device_use import DeviceUse
from reasoning_lab.training.micro_batches import MicroBatch, PlannedBatches
from reasoning_lab.training.schedules import Schedule, optimizer_of, schedule_of
from reasoning_lab.training.step_progress import TrainingProgress, in_words
from reasoning_lab.training.strategies import (
    clip,
    drives_of,
    gradient_norm,
    mean_over_ranks,
    shard,
    trainer_options,
)

log = logging.getLogger(__name__)

# Batches come in one planned pass; what the policy is stands in its config.
_ONE_PASS: dict[str, Any] = {
    "max_epochs": 1,
    "enable_model_summary": False,
    "enable_progress_bar": False,
    "num_sanity_val_steps": 0,
}


class PolicyModule(pl.LightningModule):
    """A policy with its optimizer and schedule; a stage's module adds `training_step`.

    Args:
        policy: The model that learns.
        optimization: Names the optimizer and its schedule; its length is in steps.
        stage: The stage's name, for errors.

    Attributes:
        weights: The trained policy's, on rank 0, where the policy itself holds only a shard.
        train_tokens: Tokens that all ranks trained on; other batches than a `MicroBatch` are
            counted by the stage.
        device_use: Of this rank, while it trains.
        is_continued: Whether it goes on from the state of a shorter training.
        rate_factor: What a step's learning rate is multiplied by, beside its schedule.
        best_weights: What keeps them while it trains; None = the last are the stage's policy.
        last_metrics: What the last step measured, by the names under which it is logged; the
            means of a step that is not logged are over this rank's micro-batches.
    """

    def __init__(
        self, policy: PreTrainedModel, optimization: OptimizationConfig, stage: str
    ) -> None:
        super().__init__()
        self.policy = policy
        self.strict_loading = not has_adapter(policy)
        self._optimizer = optimizer_of(optimization, stage)
        self._schedule = schedule_of(optimization)
        self.weights: dict[str, Tensor] | None = None
        self.best_weights: BestWeights | None = None
        self.train_tokens = 0
        self.last_metrics: dict[str, float | Tensor] = {}
        self.device_use: DeviceUse | None = None
        self.rate_factor: Schedule = lambda _: 1.0
        self.is_continued = False
        self._sums: dict[str, Tensor] = {}
        self._summed = 0
        self._step_metrics: dict[str, float | Tensor] = {}
        self._gradient_norm: Tensor | None = None

    @property
    def learning_rate(self) -> float:
        """Of the next update."""
        rate: float = self.trainer.optimizers[0].param_groups[0]["lr"]
        return rate

    @property
    def parts(self) -> int:
        """Micro-batches of an optimizer step, on all ranks."""
        return self.trainer.accumulate_grad_batches * world_size()

    def on_train_start(self) -> None:
        """A shorter training's state has that one's rate for the next step."""
        if not self.is_continued:
            return
        for scheduler in self.trainer.lr_scheduler_configs:
            rates = scheduler.scheduler
            assert isinstance(rates, LambdaLR)
            factor = self._schedule(rates.last_epoch) * self.rate_factor(rates.last_epoch)
            for group, peak in zip(rates.optimizer.param_groups, rates.base_lrs, strict=True):
                group["lr"] = peak * factor

    def configure_model(self) -> None:
        shard(self, self.policy)

    def configure_optimizers(self) -> Any:
        named = self.policy.named_parameters()
        optimizer = self._optimizer([item for item in named if item[1].requires_grad])
        schedule = LambdaLR(optimizer, lambda step: self._schedule(step) * self.rate_factor(step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Beside an adapter the weights are frozen, and loaded anew."""
        if self.strict_loading:
            return super().state_dict(*args, **kwargs)
        return {f"policy.{name}": value for name, value in trainable_weights(self.policy).items()}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self._summed == 0:
            self._step_started, self._tokens_before = time.monotonic(), self.train_tokens
            if self.device_use:
                self.device_use.start_step()
        if isinstance(batch, MicroBatch):
            self.train_tokens += len(batch.tokens.input_ids) * world_size()
            if self.device_use:
                self.device_use.add(batch.tokens.lengths)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm over all ranks, which is logged."""
        assert gradient_clip_val is not None
        self._gradient_norm = clip(self, optimizer, gradient_clip_val)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and log its metrics before the state that holds them is saved."""
        super().optimizer_step(*args, **kwargs)
        if self._step_metrics:
            # Reading the norm waits for the device, whose time this is.
            norm = gradient_norm(self, self._gradient_norm)
            seconds = time.monotonic() - self._step_started
            use = self.device_use.metrics(seconds) if self.device_use else {}
            tokens_per_s = (self.train_tokens - self._tokens_before) / seconds
            measured = {"train/gradient_norm": norm, "time/train_tokens_per_s": tokens_per_s, **use}
            self.log_step({**self._step_metrics, **measured}, self.global_step)
            self._step_metrics = {}

    def log_step(self, values: Mapping[str, float | Tensor], step: int) -> None:
        """Give the loggers a step's values and the seconds that it took so far.

        Lightning's own log takes as long as a small model's optimizer, and repeats a value at every
        step until it is measured again.
        """
        metrics = {key: float(value) for key, value in values.items()}
        metrics["time/step_s"] = time.monotonic() - self._step_started
        for logger in self.loggers:
            logger.log_metrics(metrics, step)

    def log_validation(self, values: Mapping[str, float], step: int) -> None:
        """Log what a validation after `step` steps measured; the best weights go by it."""
        for logger in self.loggers:
            logger.log_metrics(dict(values), step)
        if self.best_weights is not None:
            self.best_weights.observe(values, step)

    def log_train(self, values: Mapping[str, float | Tensor]) -> None:
        """Log the mean over a step's micro-batches under `train/`, with the learning rate."""
        for key, value in values.items():
            scalar = torch.as_tensor(value, dtype=torch.float32, device=self.device)
            self._sums[key] = self._sums[key] + scalar if key in self._sums else scalar
        self._summed += 1
        if self._summed < self.trainer.accumulate_grad_batches:
            return
        means = {key: total / self._summed for key, total in self._sums.items()}
        self._sums, self._summed = {}, 0
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # Set by name.
        is_logged = (self.global_step + 1) % every == 0
        if is_logged:
            means = mean_over_ranks(means, self.device)
        self.last_metrics = {f"train/{key}": value for key, value in means.items()}
        self.last_metrics["train/learning_rate"] = self.learning_rate
        self._step_metrics = self.last_metrics if is_logged else {}


def fit(
    module: PolicyModule,
    batches: PlannedBatches,
    context: StageContext,
    optimization: OptimizationConfig,
    callbacks: Sequence[Callback] = (),
    validation: PlannedBatches | None = None,
    validate_every_steps: int | None = None,
) -> float:
    """Train `module` over all `batches`, from the last checkpoint if there is one.

    Args:
        batches: `optimization.steps` times as many micro-batches as a step has on all ranks.
        optimization: Its length is in steps.
        validation: Batches for `validation_step`, every `validate_every_steps` optimizer steps; a
            training that is shorter is validated when it ends.

    Returns:
        Seconds that this call trained.

    Raises:
        Interrupted: Ctrl-C or SIGTERM ended it with its state saved; before it trained, it is
            KeyboardInterrupt.
    """
    rank_batches = batches.rank_share() if module.automatic_optimization else batches
    accumulation = len(rank_batches) // optimization.steps
    folder = states_of(context.work_dir, context.hardware.strategy, accumulation)
    if context.hardware.activation_checkpointing:
        module.policy.gradient_checkpointing_enable({"use_reentrant": False})
    module.device_use = DeviceUse(module.policy, context.hardware)
    choice, steps = context.training.weights, optimization.steps
    every = validate_every_steps and min(validate_every_steps, steps)
    if choice != "last":
        module.best_weights = BestWeights(choice, module.policy, folder, steps, context.name)
    best = module.best_weights
    history = History()
    records: dict[str, Record] = {"history": history}
    with (
        context.progress.task(
            "step", steps, measures=lambda: in_words(module.last_metrics)
        ) as task,
        drives_of(context.hardware, context.work_dir) as drives,
        StopRequest(context.work_dir if rank() == 0 else None) as stop,
    ):
        checkpoints = Checkpoints(
            context.name, folder, optimization, accumulation, every, records, stop, best
        )
        called = [*callbacks, *([best] if best else []), TrainingProgress(task, accumulation)]
        # A state is saved when all others have seen its step.
        called.append(checkpoints)
        trainer = _trainer(
            module, context, optimization, accumulation, drives, history, called, every
        )
        is_new = broadcast_from_rank0(lambda: last_checkpoint(folder)) is None
        before = kept_state(context, optimization, folder) if is_new else None
        module.is_continued = before is not None
        train_s = _resume(trainer, module, rank_batches, validation, folder, before)
        keep_last_state(context, optimization, folder)
    history.write(context.out_dir)
    return train_s


def _trainer(
    module: PolicyModule,
    context: StageContext,
    optimization: OptimizationConfig,
    accumulation: int,
    drives: Path | None,
    history: History,
    callbacks: Sequence[Callback],
    validate_every_steps: int | None,
) -> pl.Trainer:
    """Lightning's trainer; `callbacks` are called in their order, and checkpoints last."""
    accumulated = accumulation if module.automatic_optimization else None
    hardware, dtype = context.hardware, context.model.dtype
    return pl.Trainer(
        **trainer_options(hardware, dtype, optimization.clip_norm, accumulated, drives),
        **_ONE_PASS,
        logger=[TrackerLogger(context.tracker), history],
        log_every_n_steps=optimization.log_every_steps,
        detect_anomaly=bool(optimization.detect_anomaly),
        val_check_interval=validate_every_steps and validate_every_steps * accumulation,
        callbacks=[*callbacks],
        plugins=[DirectIO()],
        default_root_dir=context.work_dir,
    )


def _resume(
    trainer: pl.Trainer,
    module: PolicyModule,
    batches: PlannedBatches,
    validation: PlannedBatches | None,
    states: Path,
    before: Path | None,
) -> float:
    """Train from the last state in `states`, else from `before`; seconds that it took."""
    module.train()  # A loaded policy comes in evaluation mode, and Lightning keeps what it finds.
    last = before or broadcast_from_rank0(lambda: last_checkpoint(states))
    started = time.monotonic()
    try:
        with malloc.tuned_for_training(module.policy.get_memory_footprint()):
            trainer.fit(module, batches, validation, ckpt_path=last, weights_only=True)
    except SystemExit as end:  # What Lightning makes of an interruption.
        interruption = end.__context__
        raise interruption if isinstance(interruption, KeyboardInterrupt) else end from None
    return time.monotonic() - started


def micro_batches_per_step(batch_size: int, hardware: HardwareConfig) -> int:
    """Micro-batches of an optimizer step, on all devices; they divide it, as the schema checks."""
    of_device = batch_size // hardware.world_size
    return batch_size // min(hardware.micro_batch_size or of_device, of_device)


def save_trained(
    module: PolicyModule, tokenizer: PreTrainedTokenizerBase, context: StageContext
) -> None:
    """Write the trained policy, with the weights that the stage chooses; rank 0 does.

    Raises:
        UserError: The best weights were damaged on the disk.
    """
    if rank() != 0:
        return
    best = module.best_weights
    if best is not None and best.value is None:
        log.warning(
            "stages.%s.weights=%s: no validation gave a number, so the last weights are kept.",
            context.name,
            context.training.weights,
        )
    elif best is not None:
        if context.training.keep_last:
            save_policy(module.policy, tokenizer, context.out_dir / LAST_WEIGHTS, module.weights)
        weights = best.load()
        if module.weights is not None:
            module.weights |= weights
        elif missing := module.policy.load_state_dict(weights, strict=False).unexpected_keys:
            raise ValueError(f"the policy has no weights of the names {missing}")
    save_policy(module.policy, tokenizer, context.out_dir, module.weights)


def best_metrics(module: PolicyModule) -> Metrics:
    """Which weights the policy has, where they are not the last: the step and its measure."""
    best = module.best_weights
    if best is None or best.value is None:
        return {}
    return {"weights_step": best.step, best.metric: best.value}
