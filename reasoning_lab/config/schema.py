"""Structured configs: every key that our code reads, with its type and whether it is identity.

Importing this module, or a stage's config module, imports no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from reasoning_lab.config.fields import placement
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.optimization import OptimizationConfig
from reasoning_lab.config.plain import identity_of
from reasoning_lab.config.problems import CorpusSelection, DocumentLimit, ProblemDraw
from reasoning_lab.types import Sequences, UserError

# Each value's update depends on that value alone, so a shard is updated as the whole would be.
_ELEMENTWISE = ("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "SGD", "RMSprop", "Adagrad")


@dataclass
class StageConfig:
    """What every stage's config has; a stage's own schema adds its knobs.

    Attributes:
        run: Import path of the function that runs the stage.
        consumes: Kinds of artifact it needs from earlier stages.
        produces: The kind that it makes: policy, corpus or preferences.
        reads: Root config groups that it depends on, of `model`, `data` and `benchmarks`.
        init_from: Where its policy comes from: `previous`, `base` (model.path) or a stage.
        version: Raised when the algorithm changes, so that old artifacts are not reused.
        after: The stage that it follows in the recipe; null = it stays at its own place, which
            for one that `+stage@stages.NAME=…` adds is the end.
    """

    run: str = MISSING
    consumes: list[str] = field(default_factory=list)
    produces: str = MISSING
    reads: list[str] = field(default_factory=list)
    init_from: str = "previous"
    version: int = 1
    after: str | None = placement(None)

    def identity(self) -> dict[str, Any]:
        """What of the config decides the result, as plain data."""
        identity: dict[str, Any] = identity_of(self)
        return identity

    def rows(self) -> int | None:
        """Rows that it trains on or samples, by which its time is estimated; None = unknown."""
        return None

    def training_rows(self) -> Sequences | None:
        """What it trains on at most; None = nothing, or its data decides how long."""
        return None

    def written_rows(self) -> Sequences | None:
        """What the policy writes in it at most; None = nothing."""
        return None

    def problem_draws(self, key: str) -> Sequence[ProblemDraw]:
        """The problems that it draws; `key` is the stage's."""
        return []

    def corpus_selections(self, key: str) -> Sequence[CorpusSelection]:
        """What it takes of the corpus that reaches it."""
        return []

    def document_limit(self, key: str) -> DocumentLimit | None:
        """The longest document that it takes; None = any."""
        return None

    def frozen_copies(self) -> int:
        """Frozen policies that it keeps in memory beside the one that trains."""
        return 0

    def check(self, key: str, hardware: HardwareConfig) -> None:
        """Refuse what `hardware` cannot run, before anything runs; `key` is the stage's."""


@dataclass
class TrainingConfig(StageConfig):
    """What every stage that steps an optimizer has."""

    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)

    def rows(self) -> int | None:
        return self.optimization.steps * self.optimization.batch_size

    def check(self, key: str, hardware: HardwareConfig) -> None:
        self.check_optimizer(key, hardware)
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

    def check_optimizer(self, key: str, hardware: HardwareConfig) -> None:
        """Refuse an optimizer with a rate of its own, or one that shards would change."""
        if "lr" in self.optimization.optimizer:
            raise UserError(
                f"{key}.optimization.optimizer.lr: the rate is {key}.optimization.learning_rate, "
                "which would override it; set that key and take this one out"
            )
        if hardware.strategy in ("single", "ddp"):
            return
        target = str(self.optimization.optimizer.get("_target_"))
        if target not in [f"torch.optim.{name}" for name in _ELEMENTWISE]:
            raise UserError(
                f"{key}.optimization.optimizer: hardware.strategy={hardware.strategy} updates "
                f"shards, which '{target}' cannot; choose torch.optim.AdamW, or strategy=ddp"
            )


def register_stage(name: str, schema: type[StageConfig]) -> None:
    """Make `schema` the type of the stage options whose defaults name it."""
    ConfigStore.instance().store(group="schema", name=name, node=schema)
