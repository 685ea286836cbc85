"""How a training stage steps: its optimizer, its learning rate and its budget. No torch here."""

import contextlib
import re
from dataclasses import dataclass, field, replace
from typing import Literal, Self, cast

from omegaconf import MISSING

from reasoning_lab.config.components import Targeted, register_component
from reasoning_lab.config.fields import at_least, fraction, number, placement
from reasoning_lab.types import UserError

Unit = Literal["steps", "epochs", "tokens"]

# Each value's update depends on that value alone, so a shard is updated as the whole would be.
_ELEMENTWISE = ("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "SGD", "RMSprop", "Adagrad")

_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*([KMB]?)\s*(step|epoch|token)s?", re.IGNORECASE)
_SIZES = {"B": 10**9, "M": 10**6, "K": 10**3}
# Between the lengths of runs that went on from each other.
LENGTHS_SEPARATOR = " then "
_REMEDY = "write a length like 3 epochs, 500 steps or 2B tokens"


@dataclass(frozen=True, slots=True)
class Length:
    """A number of optimizer steps, of passes over a stage's rows, or of tokens.

    Attributes:
        amount: How many; whole for steps and tokens.
        unit: Of what.
    """

    amount: float
    unit: Unit

    @classmethod
    def parse(cls, text: str, key: str) -> Self:
        """Read `text`, which `key` of the config gives.

        Raises:
            UserError: It is no length, nothing, or a part of a step.
        """
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise UserError(f"{key}: '{text}' does not say how long; {_REMEDY}")
        number, size, word = match.groups()
        amount = float(number) * _SIZES.get(size.upper(), 1)
        unit = cast(Unit, f"{word.lower()}s")
        if amount <= 0 or (unit != "epochs" and not amount.is_integer()):
            raise UserError(f"{key}: '{text}' is not a whole number above 0 of {unit}; {_REMEDY}")
        return cls(amount, unit)

    @classmethod
    def parse_all(cls, text: str, key: str) -> list[Self]:
        """Read what is between the words `then`, each as `parse` does."""
        return [cls.parse(part, key) for part in text.split(LENGTHS_SEPARATOR)]

    def __str__(self) -> str:
        """The shortest text that `parse` reads as this length."""
        whole_sizes = [item for item in _SIZES.items() if self.amount % item[1] == 0]
        suffix, size = whole_sizes[0] if self.unit == "tokens" and whole_sizes else ("", 1)
        amount = self.amount / size
        unit = self.unit.removesuffix("s") if self.amount == 1 else self.unit
        return f"{int(amount) if amount.is_integer() else amount}{suffix} {unit}"

    def steps(self, rows: int, batch_size: int, tokens_per_row: float) -> int:
        """Whole optimizer steps that are no longer than this, and at least one.

        `rows` are those of one epoch, with `tokens_per_row` in the mean; a step has `batch_size`.
        """
        if self.unit == "steps":
            return int(self.amount)
        step = batch_size * (tokens_per_row if self.unit == "tokens" else 1)
        whole = self.amount if self.unit == "tokens" else self.amount * rows
        return max(1, int(whole / step))


@dataclass
class OptimizerConfig(Targeted):
    """A torch optimizer; one without a schema of its own has the keys of this class.

    Attributes:
        weight_decay: Of the weights; null = the optimizer's own default.
    """

    weight_decay: float | None = number(None, least=0.0)

    @property
    def is_elementwise(self) -> bool:
        """Whether it updates a shard of the weights as it would update the whole."""
        return self.target in [f"torch.optim.{name}" for name in _ELEMENTWISE]


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
class ScheduleConfig(Targeted):
    """The factor of the learning rate: a function of the step, the number of steps and these keys.

    All options share the keys, so that the option of a stage can be exchanged in any recipe.

    Attributes:
        warmup_frac: Fraction of the steps over which the rate rises linearly from 0.
        decay_frac: Fraction of the steps, at the end, over which the rate falls; null in all
            schedules but the trapezoid, whatever a recipe sets for that one.
    """

    warmup_frac: float = fraction(0.0)
    decay_frac: float | None = fraction(None)


@dataclass
class _WithoutDecay(ScheduleConfig):
    def __post_init__(self) -> None:
        self.decay_frac = None


@dataclass
class ConstantConfig(_WithoutDecay):
    """The peak after a warm-up."""

    _target_: str = "reasoning_lab.training.schedules.constant"


@dataclass
class LinearConfig(_WithoutDecay):
    """A warm-up, then a linear fall to 0 over all other steps."""

    _target_: str = "reasoning_lab.training.schedules.linear"


@dataclass
class CosineConfig(_WithoutDecay):
    """A warm-up, then half a cosine down to 0 over all other steps."""

    _target_: str = "reasoning_lab.training.schedules.cosine"


@dataclass
class TrapezoidConfig(ScheduleConfig):
    """A warm-up, the peak, a linear fall to 0; also called warm-up, stable, decay."""

    _target_: str = "reasoning_lab.training.schedules.trapezoid"
    decay_frac: float | None = fraction(0.5)


@dataclass
class OptimizationConfig:
    """How a training stage steps.

    Attributes:
        optimizer: One of the group `optimizer`.
        learning_rate: The peak of the schedule.
        schedule: One of the group `schedule`.
        clip_norm: Largest norm of the gradient; 0 = it is not clipped.
        length: `3 epochs`, `500 steps` or `2B tokens`: an epoch is one pass over the stage's rows,
            and tokens are those that it reads. Steps are full batches, so the last rows of a
            length may be left over.
        batch_size: Global batch: rows an optimizer step.
        checkpoint_every_steps: How often the state is saved that a killed run resumes from.
        checkpoint_every_minutes: The same by the clock; whichever comes first. It is looked at
            between two steps.
        keep_checkpoints: How many of the newest training states are kept. From one of several, a
            stage goes on if the newest is damaged. They serve resumption alone, so all are removed
            when the stage ends, where TRL's `save_total_limit` leaves its checkpoints.
        keep_state: Whether the state of the last step is kept in `runs/work/states` for a longer
            training; it takes the disk of the weights and the optimizer's state.
        continues: The length of an earlier run of this stage, whose last state this one goes on
            from; see `reasoning_lab.training.continuing`. If that one went on from others, all
            lengths in their order: `1 epoch then 2 epochs`. null = it begins anew.
        log_every_steps: How often metrics are sent to the tracker.
        overfit_batches: Every step reads one of so many batches; null = all rows are read.
        detect_anomaly: Whether torch looks for the operation that makes a gradient NaN, slowly. It
            is identity where it is set, so that no artifact of before stands for such a run.
    """

    # What a stage has that names no option of the groups. Each is of the general class, as
    # OmegaConf lets the class of an option take its place only so.
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig("torch.optim.AdamW"))
    learning_rate: float = number(MISSING, least=0.0)
    schedule: ScheduleConfig = field(
        default_factory=lambda: ScheduleConfig("reasoning_lab.training.schedules.constant")
    )
    clip_norm: float = number(1.0, least=0.0)
    length: str = MISSING
    batch_size: int = at_least(1)
    checkpoint_every_steps: int = number(200, least=1, placement=True)
    checkpoint_every_minutes: float = number(10.0, least=0.1, placement=True)
    keep_checkpoints: int = number(2, least=1, placement=True)
    keep_state: bool = placement(False)
    continues: str | None = field(default=None, metadata={"when_set": True})
    log_every_steps: int = number(10, least=1, placement=True)
    overfit_batches: int | None = number(None, least=1, when_set=True)
    detect_anomaly: bool | None = field(default=None, metadata={"when_set": True})

    def __post_init__(self) -> None:
        """Write equal lengths alike; one that cannot be read is refused by the stage's check."""
        with contextlib.suppress(UserError):
            self.length = str(Length.parse(self.length, "length"))
            if self.continues is not None:
                lengths = Length.parse_all(self.continues, "continues")
                self.continues = LENGTHS_SEPARATOR.join(map(str, lengths))

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
        return replace(self, length=f"{steps} steps")


@dataclass
class DebugConfig:
    """What the group `debug` changes in every training stage; null = as it is configured.

    Attributes:
        steps: Optimizer steps, in place of the stage's length.
        overfit_batches: As in `OptimizationConfig`.
        detect_anomaly: As in `OptimizationConfig`.
    """

    steps: int | None = number(None, least=1)
    overfit_batches: int | None = number(None, least=1)
    detect_anomaly: bool | None = None

    def applied(self, optimization: OptimizationConfig) -> OptimizationConfig:
        """`optimization` under these changes, which are part of what the stage is."""
        return replace(
            optimization,
            length=f"{self.steps} steps" if self.steps else optimization.length,
            overfit_batches=self.overfit_batches or optimization.overfit_batches,
            detect_anomaly=self.detect_anomaly or optimization.detect_anomaly,
        )


for _kind, _name, _schema in (
    ("optimizer", "adamw", AdamWConfig),
    ("optimizer", "muon", MuonConfig),
    ("schedule", "constant", ConstantConfig),
    ("schedule", "linear", LinearConfig),
    ("schedule", "cosine", CosineConfig),
    ("schedule", "trapezoid", TrapezoidConfig),
):
    register_component(_kind, _name, _schema)
