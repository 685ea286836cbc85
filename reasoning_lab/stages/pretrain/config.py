"""Schema of the `pretrain` stage."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from reasoning_lab.schema import OptimizationConfig, ProblemsConfig, StageConfig, register_stage


@dataclass
class PretrainConfig(StageConfig):
    """What the stage learns from.

    Attributes:
        problems: Those whose direct answers are learned.
        steps_frac: Fraction of the documents that are single arithmetic steps, out of context.
    """

    steps_frac: float = MISSING

    problems: ProblemsConfig = field(default_factory=ProblemsConfig)
    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)


register_stage("pretrain", PretrainConfig)
