"""Schema of the `sft` stage."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from reasoning_lab.schema import OptimizationConfig, StageConfig, at_least, register_stage


@dataclass
class SFTConfig(StageConfig):
    """Which accepted rollouts are learned from.

    Attributes:
        levels: Difficulty levels of the subset.
        count: Its most examples.
    """

    levels: list[int] = MISSING
    count: int = at_least(1)
    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)


register_stage("sft", SFTConfig)
