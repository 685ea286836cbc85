"""What every stage of the lab declares of itself, before anything runs. No torch here.

`plan` and the checks before a run read it: which problems a stage draws, what it wants of a corpus,
how long a document may be, and what of `hardware` it cannot use.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, ClassVar, Self

from reasoning_lab.config.fields import choice
from reasoning_lab.config.frozen_policy import FrozenPolicyConfig
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.config.optimization import Length, OptimizationConfig
from reasoning_lab.config.problems import (
    CorpusSelection,
    CountProblems,
    DocumentLimit,
    DrawWeights,
    ProblemDraw,
)
from reasoning_lab.config.rollout_engine import check_vllm
from reasoning_lab.config.targets import check_path
from reasoning_lab.config.validation import OfflineValidationConfig, ValidationConfig
from reasoning_lab.graph.stage import Metrics, NamedInput, Stage, Workload
from reasoning_lab.graph.stat_cache import folder_hash
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.types import Sequences, Split, UserError


@dataclass
class LabStage(Stage):
    """A stage of the lab; a subclass overrides what it has to declare.

    Attributes:
        implementation: Import path of what `run` calls, with the stage before its own arguments. It
            is imported then, so that a plan stays quick; empty = the subclass has a `run`.
    """

    implementation: ClassVar[str] = ""

    def run(self, *context: Any, **inputs: Any) -> Metrics:
        if not self.implementation:
            return super().run(*context, **inputs)
        metrics: Metrics = resolve_name(self.implementation)(self, *context, **inputs)
        return metrics

    def frozen_policies(self) -> Mapping[str, FrozenPolicyConfig]:
        """Policies that it reads and does not train, by the knob that names each."""
        return {}

    def sampling_dtype(self, model: ModelConfig) -> str:
        """Precision of what samples from the policy."""
        return model.sampling_dtype

    def identity(self) -> dict[str, Any]:
        """The knobs; of a frozen policy's folder its content, wherever it lies."""
        identity = super().identity()
        for knob, policy in self.frozen_policies().items():
            if policy.path is not None and Path(policy.path).is_dir():
                identity[knob]["path"] = folder_hash(Path(policy.path))
        return identity

    def named_inputs(self) -> dict[str, NamedInput]:
        """The frozen policies that earlier stages make."""
        return {
            knob: NamedInput(f"{knob}.stage", policy.stage, Policy)
            for knob, policy in self.frozen_policies().items()
            if policy.stage is not None
        }

    def problem_draws(self, key: str) -> Sequence[ProblemDraw]:
        """The problems that it draws; `key` is the stage's."""
        return []

    def with_counts(self, key: str, count: CountProblems) -> Self:
        """The stage with a number in place of each `all` that `count` knows."""
        return self

    def corpus_selections(self, key: str) -> Sequence[CorpusSelection]:
        """What it takes of the corpus that reaches it."""
        return []

    def document_limit(self, key: str) -> DocumentLimit | None:
        """The longest document that it takes; None = any."""
        return None

    def is_spread(self, hardware: HardwareConfig) -> bool:
        """Whether a strategy spreads it over processes; else it is one process."""
        return False

    def check(self, key: str, hardware: HardwareConfig) -> None:
        """Refuse what `hardware` cannot run, before anything runs; `key` is the stage's."""


@dataclass
class TrainingStage(LabStage):
    """A stage that steps an optimizer.

    Attributes:
        sequences_per_row: As in `Sequences`.
        packs_rows: True = a row holds several documents.
        samples_rollouts: True = it samples, so it has a token limit of its own.
        optimization: How.
        validation: pass@1 on validation problems while it trains.
        weights: Which weights the stage's policy is: the last, or the best of those that were
            validated. `best_loss` has the lowest validation loss, `best_pass@1` the highest pass@1
            on the problems of `validation`. Of equal ones the earliest counts. The last weights
            are always validated.
        keep_last: Whether the last weights are kept beside the best, in the folder `last` of the
            artifact.
    """

    sequences_per_row: ClassVar[int] = 1
    packs_rows: ClassVar[bool] = False
    samples_rollouts: ClassVar[bool] = False

    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)
    validation: ValidationConfig = field(
        default_factory=ValidationConfig, metadata={"when_set": True}
    )
    weights: str = choice("last", "best_loss", "best_pass@1", when_set=True)
    keep_last: bool = field(default=False, metadata={"when_set": True})

    @property
    def has_validation_loss(self) -> bool:
        """Whether a loss is measured on validation documents while it trains."""
        return False

    @property
    def validation_levels(self) -> Sequence[int] | None:
        """Difficulty levels of the validation problems; None = all."""
        return self.validation.levels

    @property
    def validation_weights(self) -> DrawWeights:
        """Weights of these levels and of a mixture's sources."""
        return DrawWeights()

    @property
    def validation_engine(self) -> str:
        """The engine of its validation, hf or vllm."""
        return "hf"

    @property
    def validation_max_new_tokens(self) -> int | None:
        """Token limit of a validation completion; None = it must be given, or the data has it."""
        return self.validation.max_new_tokens

    def groups_read(self) -> tuple[str, ...]:
        """Validation problems come from `data`."""
        reads_more = self.validation.count and "data" not in self.reads
        return (*self.reads, "data") if reads_more else self.reads

    def problem_draws(self, key: str) -> list[ProblemDraw]:
        count, levels = self.validation.count, self.validation_levels
        if not count:
            return []
        name, weights = f"{key}.validation.count", self.validation_weights
        return [ProblemDraw(name, Split.VALIDATION, levels, count, weights=weights)]

    def workload(self) -> Workload:
        rows, tokens = self.optimization.planned_rows, self.row_tokens_at_most()
        written = self._validation_completions()
        if rows is None or tokens is None:
            return Workload(rows=rows, written=written)
        sequences = self.sequences_per_row
        size = self.optimization.batch_size
        trained = Sequences(rows * sequences, tokens // sequences, size, sequences, self.packs_rows)
        return Workload(rows=rows, trained=trained, written=written)

    def validation_rollouts(self) -> int | None:
        """Completions of all its validations at most; None = its steps are unknown."""
        steps, validation = self.optimization.planned_steps, self.validation
        if steps is None:
            return None
        # One before the first step, and one after the last.
        times = 2 + (steps - 1) // validation.every_steps
        return times * validation.count * validation.samples

    def _validation_completions(self) -> Sequences | None:
        rollouts, tokens = self.validation_rollouts(), self.validation_max_new_tokens
        if not rollouts or tokens is None:
            return None
        in_memory = self.validation.count * self.validation.samples
        return Sequences(rollouts, tokens, rows_in_memory=in_memory)

    def epoch_rows(self, input_rows: Mapping[str, int | None]) -> int | None:
        """Rows of one pass over its data at most; None = unknown.

        `input_rows` are those of its inputs at most, by kind of artifact.
        """
        return None

    def row_tokens_at_most(self) -> int | None:
        """Tokens of one of these rows at most; None = unknown."""
        return None

    def at_most(self, input_rows: Mapping[str, int | None]) -> Self:
        """The stage with its length in steps, as far as configs bound these; see `epoch_rows`."""
        rows, tokens = self.epoch_rows(input_rows), self.row_tokens_at_most()
        unit = Length.parse(self.optimization.length, "optimization.length").unit
        if (
            unit == "steps"
            or (rows is None and unit == "epochs")
            or (tokens is None and unit == "tokens")
        ):
            return self
        return replace(self, optimization=self.optimization.in_steps(rows or 0, tokens or 1))

    def frozen_copies(self) -> int:
        """Frozen copies of the policy that it reads beside the one that trains."""
        return 0

    def sampling_copies(self) -> int:
        """Copies of the policy for sampling that it keeps in memory whatever the hardware."""
        return 0

    def is_spread(self, hardware: HardwareConfig) -> bool:
        return hardware.strategy != "single"

    def check(self, key: str, hardware: HardwareConfig) -> None:
        self.check_optimizer(key, hardware)
        self.check_validation(key)
        size, micro = self.optimization.batch_size, hardware.micro_batch_size
        world = hardware.world_size
        among = f"hardware.devices={hardware.devices}"
        if hardware.nodes > 1:
            among += f" × hardware.nodes={hardware.nodes}"
        if size % world:
            raise UserError(
                f"{among} does not divide {key}.optimization.batch_size={size}; choose a divisor"
            )
        if micro is not None and micro < size // world and size // world % micro:
            of = f" / {among}" if world > 1 else ""
            raise UserError(
                f"hardware.micro_batch_size={micro} does not divide "
                f"{key}.optimization.batch_size={size}{of}; choose a divisor"
            )

    def check_validation(self, key: str) -> None:
        """Refuse a validation without its limits, and best weights that nothing measures."""
        limit = self.validation_max_new_tokens
        if self.validation.count and limit is None and not self.samples_rollouts:
            raise UserError(
                f"{key}.validation.max_new_tokens: the stage has none of its own to take; give it, "
                f"as in {key}.validation.max_new_tokens=512"
            )
        if self.weights == "best_pass@1" and not self.validation.count:
            raise UserError(
                f"{key}.weights=best_pass@1: no problem is validated; set {key}.validation.count"
            )
        if self.weights == "best_loss" and not self.has_validation_loss:
            raise UserError(
                f"{key}.weights=best_loss: the stage measures no validation loss; set "
                f"{key}.validate_every_steps, which sft has, or choose best_pass@1 or last"
            )
        if self.keep_last and self.weights == "last":
            raise UserError(
                f"{key}.keep_last: the last weights are the policy itself; leave it out, or set "
                f"{key}.weights to best_loss or best_pass@1"
            )

    def _check_continues(self, key: str, length: Length) -> None:
        """Refuse to go on from a run that is not shorter."""
        if self.optimization.continues is None:
            return
        lengths = [*Length.parse_all(self.optimization.continues, key), length]
        for shorter, longer in pairwise(lengths):
            if shorter.unit == longer.unit and shorter.amount >= longer.amount:
                raise UserError(
                    f"{key}={self.optimization.continues}: a run of {longer} goes on from one of "
                    f"{shorter}, which is no less; give it a longer length"
                )

    def check_optimizer(self, key: str, hardware: HardwareConfig) -> None:
        """Refuse an optimizer with a rate of its own, or one that shards would change.

        A length that cannot be read is refused as well.
        """
        optimizer, schedule = self.optimization.optimizer, self.optimization.schedule
        length = Length.parse(self.optimization.length, f"{key}.optimization.length")
        self._check_continues(f"{key}.optimization.continues", length)
        check_path(optimizer.target, f"{key}.optimization.optimizer._target_")
        check_path(schedule.target, f"{key}.optimization.schedule._target_")
        if "lr" in optimizer.options:
            raise UserError(
                f"{key}.optimization.optimizer.options.lr: the rate is "
                f"{key}.optimization.learning_rate, which would override it; set that key and "
                "take this one out"
            )
        if hardware.strategy not in ("single", "ddp") and not optimizer.is_elementwise:
            raise UserError(
                f"{key}.optimization.optimizer: hardware.strategy={hardware.strategy} updates "
                f"shards, which '{optimizer.target}' cannot; choose adamw, as in "
                f"optimizer@{key}.optimization.optimizer=adamw, or strategy=ddp"
            )


@dataclass
class OfflineStage(TrainingStage):
    """A stage that trains on what is there before it begins; only its validation samples."""

    validation: OfflineValidationConfig = field(
        default_factory=OfflineValidationConfig, metadata={"when_set": True}
    )

    @property
    def validation_engine(self) -> str:
        return self.validation.rollout_engine if self.validation.count else "hf"

    def workload(self) -> Workload:
        return replace(super().workload(), engine=self.validation_engine)

    def check(self, key: str, hardware: HardwareConfig) -> None:
        super().check(key, hardware)
        if self.validation_engine == "vllm":
            check_vllm(f"{key}.validation.rollout_engine", hardware)
