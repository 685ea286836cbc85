"""Schema of the `distill` stage."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from reasoning_lab.schema import ProblemsConfig, StageConfig, at_least, register_stage


@dataclass
class DistillConfig(StageConfig):
    """What the teacher is asked.

    Attributes:
        teacher: `_target_` and options of the teacher.
        problems: Drawn from the training split.
        validation: Problems drawn from the validation split, for early stopping.
        rollouts: Worked solutions a problem.
    """

    teacher: dict[str, Any] = MISSING
    problems: ProblemsConfig = field(default_factory=ProblemsConfig)
    validation: int = at_least(1)
    rollouts: int = at_least(1)

    def rows(self) -> int | None:
        return self.problems.count * self.rollouts + self.validation


register_stage("distill", DistillConfig)
