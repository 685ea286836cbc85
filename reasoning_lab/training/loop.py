"""What every stage is given and what every training stage shares.

A stage is a function `run(config, context) -> metrics` that fills `context.out_dir`. A
training stage gives its LightningModule and an ordered plan of batches to `fit`; the loop,
checkpoints and resumption are Lightning's.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.config.benchmark import BenchmarkConfig
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.config.optimization import OptimizationConfig
from reasoning_lab.config.problems import ProblemsConfig
from reasoning_lab.config.targets import factory
from reasoning_lab.data.sources.problem_source import ProblemSource, draw_benchmark
from reasoning_lab.data.sources.unreadable import ReadableGoldFilter, UnreadablePolicy
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.stage import Metrics as Metrics
from reasoning_lab.models.adapters import add_adapter, has_adapter, trainable_weights
from reasoning_lab.models.chat import add_missing_tokens
from reasoning_lab.models.policy import load_policy, sampling_device, save_policy, to_device
from reasoning_lab.sampling.engine import Engine
from reasoning_lab.sampling.hf import HFEngine
from reasoning_lab.sampling.probe import check_engine, hf_remedy
from reasoning_lab.sampling.rollouts import RolloutSampler
from reasoning_lab.system import malloc
from reasoning_lab.system.interrupts import StopRequest
from reasoning_lab.system.ranks import broadcast_from_rank0, rank, world_size
from reasoning_lab.tracking.history import History
from reasoning_lab.tracking.tracker import Tracker
from reasoning_lab.training.checkpoints import (
    Checkpoints,
    DirectIO,
    Record,
    last_checkpoint,
    states_of,
)
from reasoning_lab.training.micro_batches import Batch, Steps
from reasoning_lab.training.probe import check_student
from reasoning_lab.training.progress import StageProgress
from reasoning_lab.training.schedules import OptimizerFactory, Schedule
from reasoning_lab.training.strategies import drives_of, mean_over_ranks, shard, trainer_options
from reasoning_lab.types import Problem, Split, UserError
from reasoning_lab.verify import Verifier

# Batches come in one planned pass; what the policy is stands in its config.
_ONE_PASS: dict[str, Any] = {
    "max_epochs": 1,
    "enable_model_summary": False,
    "enable_progress_bar": False,
    "num_sanity_val_steps": 0,
}


@dataclass(frozen=True, slots=True)
class StageContext:
    """All that a stage may use besides its own config.

    Attributes:
        name: The stage's name in the recipe.
        seed: Of everything random in the stage.
        out_dir: Empty folder that becomes the artifact.
        work_dir: Folder that outlives a kill; checkpoints live here.
        inputs: Artifact folder of each kind that the stage consumes.
        authors: Fingerprint of each input, by kind.
        lineage: Artifact folders of the inputs and of every stage whose problems reached them.
        model: The student's config.
        source: Where problems come from.
        hardware: Devices and sizes that change no result.
        verifier: Checks answers.
        tracker: Where metrics and tables go.
        benchmarks: What the run's policies are evaluated on.
        benchmark_sources: Where the problems of those come from that have a source of their own.
        ledger: Counts what came in, what was dropped and why.
    """

    name: str
    seed: int
    out_dir: Path
    work_dir: Path
    inputs: Mapping[str, Path]
    authors: Mapping[str, str]
    lineage: Sequence[Path]
    model: ModelConfig
    source: ProblemSource
    hardware: HardwareConfig
    verifier: Verifier
    tracker: Tracker
    benchmarks: Mapping[str, BenchmarkConfig] = field(default_factory=dict)
    benchmark_sources: Mapping[str, ProblemSource] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)

    def load_policy(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The policy to sample from: the input's, or the base checkpoint's."""
        return self._load(self.model.sampling_dtype)

    def load_student(self, packs: bool = False) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The same policy, ready to be trained.

        It has the tokens that a hub's checkpoint lacks, and the adapter that is configured.

        Args:
            packs: Whether the stage reads packed rows.

        Raises:
            UserError: Training would not compute what the model does; see `check_student`.
        """
        policy, tokenizer = self._load(self.model.dtype)
        add_missing_tokens(policy, tokenizer)
        if self.model.adapter is not None:
            add_adapter(policy, self.model.adapter, self.seed)
        check_student(policy, self.hardware, self.name, packs)
        return policy, tokenizer

    def _load(self, dtype: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        kernels = self.hardware.kernels
        if "policy" in self.inputs:
            return load_policy(self.inputs["policy"], dtype, kernels=kernels)
        if self.model.path is None:
            raise UserError(f"stages.{self.name}: no policy to start from; set model.path")
        return load_policy(self.model.path, dtype, self.model.revision, kernels=kernels)

    def problems(self, split: Split, asked: ProblemsConfig) -> list[Problem]:
        """What the source gives for a stage's `problems`, under the run's seed.

        Raises:
            UserError: There are fewer, or golds cannot be read that the source does not drop.
        """
        drawn = self.source.problems(split, asked.levels, asked.count, self.seed)
        return list(self.readable_golds().filter(drawn))

    def readable_golds(self) -> ReadableGoldFilter:
        """Passes on what is drawn from the source and has a readable gold.

        The ledger counts what it drops, and once the rows that the source read.
        """
        if "rows" not in self.ledger.flows:
            self.source.record_rows(self.ledger)
        return ReadableGoldFilter(self.verifier, self.ledger, self.unreadable)

    def unreadable(self, problem: Problem) -> UnreadablePolicy:
        """What holds for a problem of the source whose gold cannot be read."""
        return self.source.unreadable(problem) or UnreadablePolicy("refuse", 0.0, "data")

    def benchmark_prompts(self) -> dict[str, list[str]]:
        """Of each benchmark, by its name."""
        return {
            name: [problem.prompt for problem in draw_benchmark(self.benchmark_source(name), held)]
            for name, held in self.benchmarks.items()
        }

    def benchmark_source(self, name: str) -> ProblemSource:
        """The benchmark's own, or the run's."""
        return self.benchmark_sources.get(name, self.source)

    def sampler(
        self,
        policy: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        instruction: str = "",
    ) -> RolloutSampler:
        """Draws verified rollouts from `policy`, under the fingerprint that it came with.

        Raises:
            UserError: Its decoding is not the model's forward; see `check_engine`.
        """
        placed = to_device(policy, sampling_device(self.hardware))
        engine = HFEngine(
            placed,
            tokenizer,
            self.hardware.generation_batch_size,
            cache=self.hardware.sampling.cache,
        )
        remedy = hf_remedy(self.hardware)
        check_engine(
            placed, tokenizer, engine.generate, 1.0, self.hardware, f"stages.{self.name}", remedy
        )
        return self.sampler_through(engine.reporting_to, instruction=instruction)

    def engine_sampler(self, engine: Mapping[str, Any], instruction: str) -> RolloutSampler:
        """Draws verified rollouts from the stage's policy through a configured engine."""
        options = {**engine, "model": str(self.inputs.get("policy", self.model.path))}
        if "revision" in engine and "policy" not in self.inputs:
            options["revision"] = self.model.revision
        if "dtype" in engine:
            options["dtype"] = self.model.sampling_dtype

        def made(on_progress: Callable[[int], None]) -> Engine:
            opened: Engine = factory(options, "engine")(hardware=self.hardware)
            return opened

        return self.sampler_through(made, instruction=instruction)

    def sampler_through(
        self,
        engine: Callable[[Callable[[int], None]], Engine],
        sync: Callable[[Engine, int], None] = lambda engine, version: None,
        instruction: str = "",
    ) -> RolloutSampler:
        """Draws verified rollouts through an engine; see `RolloutSampler`."""
        author = self.authors.get("policy", "base")
        return RolloutSampler(engine, self.verifier, author, self.name, sync, instruction)


class PolicyModule(pl.LightningModule):
    """A policy with its optimizer and schedule; a stage's module adds `training_step`.

    Args:
        policy: The model that learns.
        optimizer: Makes the optimizer from the named parameters.
        schedule: Factor of the learning rate at each optimizer step, from 0.

    Attributes:
        weights: The trained policy's, on rank 0, where the policy itself holds only a shard.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        optimizer: OptimizerFactory,
        schedule: Schedule,
    ) -> None:
        super().__init__()
        self.policy = policy
        self.strict_loading = not has_adapter(policy)
        self._optimizer = optimizer
        self._schedule = schedule
        self.weights: dict[str, Tensor] | None = None
        self._sums: dict[str, Tensor] = {}
        self._summed = 0
        self._told: dict[str, float | Tensor] = {}

    @property
    def parts(self) -> int:
        """Micro-batches of an optimizer step, on all ranks."""
        return self.trainer.accumulate_grad_batches * world_size()

    def configure_model(self) -> None:
        shard(self, self.policy)

    def configure_optimizers(self) -> Any:
        named = self.policy.named_parameters()
        optimizer = self._optimizer([each for each in named if each[1].requires_grad])
        schedule = LambdaLR(optimizer, self._schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Beside an adapter the weights are frozen, and loaded anew."""
        if self.strict_loading:
            return super().state_dict(*args, **kwargs)
        return {f"policy.{name}": value for name, value in trainable_weights(self.policy).items()}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self._summed == 0:
            self._step_started = time.monotonic()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and tell its values before its state is saved, which holds them."""
        super().optimizer_step(*args, **kwargs)
        if self._told:
            self.tell(self._told, self.global_step)
            self._told = {}

    def tell(self, values: Mapping[str, float | Tensor], step: int) -> None:
        """Give the loggers a step's values and the seconds that it took so far.

        Lightning's own log takes as long as a small model's optimizer, and repeats a value at every
        step until it is measured again.
        """
        told = {key: float(value) for key, value in values.items()}
        told["time/step_s"] = time.monotonic() - self._step_started
        for logger in self.loggers:
            logger.log_metrics(told, step)

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        return batch.to(device)

    def log_train(self, values: Mapping[str, float | Tensor]) -> None:
        """Have the mean over a step's micro-batches told under `train/`, with the learning rate."""
        for key, value in values.items():
            scalar = torch.as_tensor(value, dtype=torch.float32, device=self.device)
            self._sums[key] = self._sums[key] + scalar if key in self._sums else scalar
        self._summed += 1
        if self._summed < self.trainer.accumulate_grad_batches:
            return
        means = {key: total / self._summed for key, total in self._sums.items()}
        self._sums, self._summed = {}, 0
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # Set by name.
        if (self.global_step + 1) % every == 0:
            told = mean_over_ranks(means, self.device)
            self._told = {f"train/{key}": value for key, value in told.items()}
            self._told["train/learning_rate"] = self.trainer.optimizers[0].param_groups[0]["lr"]


def fit(
    module: PolicyModule,
    batches: Steps,
    context: StageContext,
    optimization: OptimizationConfig,
    callbacks: Sequence[Callback] = (),
    validation: Steps | None = None,
    validate_every_steps: int | None = None,
) -> float:
    """Train `module` over all `batches`, from the last checkpoint if there is one.

    Args:
        batches: `optimization.steps` times as many micro-batches as a step has on all ranks.
        optimization: Its length is in steps.
        validation: Batches for `validation_step`, every `validate_every_steps` optimizer steps.

    Returns:
        Seconds that this call trained.

    Raises:
        Interrupted: Ctrl-C or SIGTERM ended it, with its state saved for the next run.
        KeyboardInterrupt: Likewise, before it trained.
    """
    own = batches.of_rank() if module.automatic_optimization else batches
    accumulation = len(own) // optimization.steps
    folder = states_of(context.work_dir, context.hardware.strategy, accumulation)
    if context.hardware.activation_checkpointing:
        module.policy.gradient_checkpointing_enable({"use_reentrant": False})
    history = History()
    records: dict[str, Record] = {"history": history}
    with (
        drives_of(context.hardware, context.work_dir) as drives,
        StopRequest(context.work_dir if rank() == 0 else None) as stop,
    ):
        checkpoints = Checkpoints(
            context.name, folder, optimization, accumulation, validate_every_steps, records, stop
        )
        progress = StageProgress(context.name, optimization.steps, accumulation, history)
        options = trainer_options(
            context.hardware,
            context.model.dtype,
            optimization.clip_norm,
            accumulation if module.automatic_optimization else None,
            drives,
        )
        trainer = pl.Trainer(
            **options,
            **_ONE_PASS,
            logger=[logger for logger in (context.tracker.lightning_logger, history) if logger],
            log_every_n_steps=optimization.log_every_steps,
            detect_anomaly=bool(optimization.detect_anomaly),
            val_check_interval=validate_every_steps and validate_every_steps * accumulation,
            callbacks=[*callbacks, progress, checkpoints],
            plugins=[DirectIO()],
            default_root_dir=context.work_dir,
        )
        train_s = _go_on(trainer, module, own, validation, folder)
    history.write(context.out_dir)
    return train_s


def _go_on(
    trainer: pl.Trainer,
    module: PolicyModule,
    batches: Steps,
    validation: Steps | None,
    states: Path,
) -> float:
    """Train from the last state in `states`, if there is one; seconds that it took."""
    module.train()  # A loaded policy comes in evaluation mode, and Lightning keeps what it finds.
    last = broadcast_from_rank0(lambda: last_checkpoint(states))
    started = time.monotonic()
    try:
        with malloc.tuned_for_training(module.policy.get_memory_footprint()):
            trainer.fit(module, batches, validation, ckpt_path=last, weights_only=True)
    except SystemExit as end:  # What Lightning makes of an interruption.
        interruption = end.__context__
        raise interruption if isinstance(interruption, KeyboardInterrupt) else end from None
    return time.monotonic() - started


def parts_of(batch_size: int, hardware: HardwareConfig) -> int:
    """Micro-batches of an optimizer step, on all devices; they divide it, as the schema checks."""
    of_device = batch_size // hardware.world_size
    return batch_size // min(hardware.micro_batch_size or of_device, of_device)


def save_trained(
    module: PolicyModule, tokenizer: PreTrainedTokenizerBase, context: StageContext
) -> None:
    """Write the trained policy; rank 0 does."""
    if rank() == 0:
        save_policy(module.policy, tokenizer, context.out_dir, module.weights)
