"""Schema of the `sft` stage."""

from dataclasses import dataclass

from omegaconf import MISSING

from reasoning_lab.schema import TrainingConfig, at_least, register_stage


@dataclass
class SFTConfig(TrainingConfig):
    """Which accepted rollouts are learned from.

    Attributes:
        levels: Difficulty levels of the subset.
        count: Its most examples.
    """

    levels: list[int] = MISSING
    count: int = at_least(1)


register_stage("sft", SFTConfig)
