"""Schema of the `pretrain` stage."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from reasoning_lab.fields import at_least, number
from reasoning_lab.schema import ProblemsConfig, TrainingConfig, register_stage


@dataclass
class PretrainConfig(TrainingConfig):
    """What the stage learns from.

    Attributes:
        problems: Those whose direct answers are learned.
        steps_frac: Fraction of the documents that hold single arithmetic steps, out of context.
        steps_per_row: Steps in such a document; each sees those before it, as in a thought.
    """

    steps_frac: float = number(MISSING, least=0.0, most=0.99)
    steps_per_row: int = at_least(1)
    problems: ProblemsConfig = field(default_factory=ProblemsConfig)


register_stage("pretrain", PretrainConfig)
