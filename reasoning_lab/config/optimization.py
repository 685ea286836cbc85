"""How a training stage steps: its optimizer, its learning rate and its budget. No torch here."""

import contextlib
import dataclasses
from dataclasses import dataclass, field
from typing import Any, Self

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from reasoning_lab.config.fields import at_least, fraction, number
from reasoning_lab.config.identity import Component
from reasoning_lab.config.length import Length
from reasoning_lab.types import UserError

# Each value's update depends on that value alone, so a shard is updated as the whole would be.
_ELEMENTWISE = ("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "SGD", "RMSprop", "Adagrad")


@dataclass
class OptimizerConfig(Component):
    """A torch optimizer; one without a schema of its own has the keys of this class.

    Attributes:
        _target_: Its import path.
        weight_decay: Of the weights; null = the optimizer's own default.
        options: Further arguments, by name.
    """

    _target_: str = MISSING
    weight_decay: float | None = number(None, least=0.0)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """The import path."""
        return self._target_

    @property
    def is_elementwise(self) -> bool:
        """Whether it updates a shard of the weights as it would update the whole."""
        return self.target in [f"torch.optim.{name}" for name in _ELEMENTWISE]

    def arguments(self) -> dict[str, Any]:
        """`_target_` and every argument that is set, as `config.targets.factory` takes them."""
        return _arguments(self)


@dataclass
class AdamWConfig(OptimizerConfig):
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101).

    Attributes:
        betas: Decay of the running means of the gradient and of its square.
        weight_decay: Decoupled from the gradient.
        fused: Whether one kernel updates all weights.
    """

    _target_: str = "torch.optim.AdamW"
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    weight_decay: float | None = number(0.0, least=0.0)
    fused: bool = True


@dataclass
class MuonConfig(OptimizerConfig):
    """Muon for hidden matrices, AdamW for the rest; see `reasoning_lab.training.muon`.

    Attributes:
        momentum: Muon's.
        betas: AdamW's.
        weight_decay: Decoupled, of both.
    """

    _target_: str = "reasoning_lab.training.muon.MuonAdamW"
    momentum: float = fraction(0.95)
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])
    weight_decay: float | None = number(0.0, least=0.0)


@dataclass
class ScheduleConfig(Component):
    """The factor of the learning rate: a function of the step, the number of steps and these keys.

    All options share the keys, so that the option of a stage can be exchanged in any recipe.

    Attributes:
        _target_: The function's import path.
        warmup_frac: Fraction of the steps over which the rate rises linearly from 0.
        decay_frac: Fraction of the steps, at the end, over which the rate falls; null in all
            schedules but the trapezoid, whatever a recipe sets for that one.
        options: Further arguments, by name, of a function that is not ours.
    """

    _target_: str = MISSING
    warmup_frac: float = fraction(0.0)
    decay_frac: float | None = fraction(None)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """The import path."""
        return self._target_

    def arguments(self) -> dict[str, Any]:
        """`_target_` and every argument that is set, as `config.targets.factory` takes them."""
        return _arguments(self)


@dataclass
class ConstantConfig(ScheduleConfig):
    """The peak after a warm-up."""

    _target_: str = "reasoning_lab.training.schedules.constant"

    def __post_init__(self) -> None:
        self.decay_frac = None


@dataclass
class LinearConfig(ScheduleConfig):
    """A warm-up, then a linear fall to 0 over all other steps."""

    _target_: str = "reasoning_lab.training.schedules.linear"

    def __post_init__(self) -> None:
        self.decay_frac = None


@dataclass
class CosineConfig(ScheduleConfig):
    """A warm-up, then half a cosine down to 0 over all other steps."""

    _target_: str = "reasoning_lab.training.schedules.cosine"

    def __post_init__(self) -> None:
        self.decay_frac = None


@dataclass
class TrapezoidConfig(ScheduleConfig):
    """A warm-up, the peak, a linear fall to 0; also called warm-up, stable, decay."""

    _target_: str = "reasoning_lab.training.schedules.trapezoid"
    decay_frac: float | None = fraction(0.5)


def _arguments(config: OptimizerConfig | ScheduleConfig) -> dict[str, Any]:
    named = {name: value for name, value in vars(config).items() if name != "options"}
    return {name: value for name, value in named.items() if value is not None} | config.options


# What a stage has that names no option of the groups. Each is of the general class, as OmegaConf
# lets the class of an option take its place only so.
def _plain_adamw() -> OptimizerConfig:
    return OptimizerConfig("torch.optim.AdamW")


def _constant() -> ScheduleConfig:
    return ScheduleConfig("reasoning_lab.training.schedules.constant")


@dataclass
class OptimizationConfig:
    """How a training stage steps.

    Attributes:
        optimizer: One of the group `optimizer`.
        learning_rate: The peak of the schedule.
        schedule: One of the group `schedule`.
        clip_norm: Largest norm of the gradient.
        length: `3 epochs`, `500 steps` or `2B tokens`: an epoch is one pass over the stage's rows,
            and tokens are those that it reads. Steps are full batches, so the last rows of a
            length may be left over.
        batch_size: Global batch: rows an optimizer step.
        checkpoint_every_steps: How often the state is saved that a killed run resumes from.
        checkpoint_every_minutes: The same by the clock; whichever comes first. It is looked at
            between two steps.
        log_every_steps: How often metrics are sent to the tracker.
        overfit_batches: Every step reads one of so many batches; null = all rows are read.
        detect_anomaly: Whether torch looks for the operation that makes a gradient NaN, slowly. It
            is identity where it is set, so that no artifact of before stands for such a run.
    """

    optimizer: OptimizerConfig = field(default_factory=_plain_adamw)
    learning_rate: float = number(MISSING, least=0.0)
    schedule: ScheduleConfig = field(default_factory=_constant)
    clip_norm: float = number(1.0, least=0.0)
    length: str = MISSING
    batch_size: int = at_least(1)
    checkpoint_every_steps: int = number(200, least=1, placement=True)
    checkpoint_every_minutes: float = number(10.0, least=0.1, placement=True)
    log_every_steps: int = number(10, least=1, placement=True)
    overfit_batches: int | None = number(None, least=1, when_set=True)
    detect_anomaly: bool | None = field(default=None, metadata={"when_set": True})

    def __post_init__(self) -> None:
        """Write equal lengths alike; one that cannot be read is refused by the stage's check."""
        with contextlib.suppress(UserError):
            self.length = str(Length.parse(self.length, "length"))

    @property
    def planned_steps(self) -> int | None:
        """Optimizer steps; None = they depend on the stage's rows."""
        length = Length.parse(self.length, "optimization.length")
        return int(length.amount) if length.unit == "steps" else None

    @property
    def steps(self) -> int:
        """Optimizer steps of a length that is in steps, as `in_steps` leaves it.

        Raises:
            ValueError: It is in epochs or tokens.
        """
        steps = self.planned_steps
        if steps is None:
            raise ValueError(f"how many steps are {self.length}? call in_steps with the rows first")
        return steps

    @property
    def planned_rows(self) -> int | None:
        """Rows that all steps read together; None = the length is not in steps."""
        steps = self.planned_steps
        return None if steps is None else steps * self.batch_size

    def in_steps(self, rows: int, tokens_per_row: float) -> Self:
        """The same with its length in steps; see `Length.steps`."""
        length = Length.parse(self.length, "optimization.length")
        steps = length.steps(rows, self.batch_size, tokens_per_row)
        return dataclasses.replace(self, length=f"{steps} steps")


_OPTIMIZERS = {"adamw": AdamWConfig, "muon": MuonConfig}
_SCHEDULES = {
    "constant": ConstantConfig,
    "linear": LinearConfig,
    "cosine": CosineConfig,
    "trapezoid": TrapezoidConfig,
}
for _group, _schemas in (("optimizer", _OPTIMIZERS), ("schedule", _SCHEDULES)):
    for _name, _schema in _schemas.items():
        ConfigStore.instance().store(group=f"schema/{_group}", name=_name, node=_schema)
