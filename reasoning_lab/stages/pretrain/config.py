"""Schema of the `pretrain` stage."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from reasoning_lab.config.fields import at_least, number
from reasoning_lab.config.problems import ProblemDraw, ProblemsConfig
from reasoning_lab.config.schema import TrainingConfig, register_stage
from reasoning_lab.data.teachers.config import ProceduralTeacherConfig
from reasoning_lab.types import Split

# Who works the problems, whatever the recipe distills with; its slips are the stage's business.
_TEACHER = ProceduralTeacherConfig(noticed_slip_rate=0.0, unnoticed_slip_rate=0.0)


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

    def problem_draws(self, key: str) -> list[ProblemDraw]:
        levels, count = self.problems.levels, self.problems.count
        return [ProblemDraw(f"{key}.problems", Split.TRAIN, levels, count, _TEACHER)]


register_stage("pretrain", PretrainConfig)
