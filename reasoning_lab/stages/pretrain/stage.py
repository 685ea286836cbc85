"""The `pretrain` stage: a base policy from nothing, in place of a pretrained checkpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from omegaconf import MISSING

from reasoning_lab.config.fields import at_least, number
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.problems import CountProblems, DrawWeights, ProblemDraw, ProblemsConfig
from reasoning_lab.data.teachers.config import ProceduralTeacherConfig
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.training.stage import OfflineStage

# Who works the problems, whatever the recipe distills with; its slips are the stage's business.
_TEACHER = ProceduralTeacherConfig(noticed_slip_rate=0.0, unnoticed_slip_rate=0.0)


@dataclass
class PretrainStage(OfflineStage):
    """What the stage learns from.

    Attributes:
        problems: Those whose direct answers are learned.
        steps_frac: Fraction of the documents that hold single arithmetic steps, out of context.
        steps_per_row: Steps in such a document; each sees those before it, as in a thought.
    """

    name = "pretrain"
    implementation = "reasoning_lab.stages.pretrain.module.run"
    produces = Policy
    reads = ("model", "data")
    version = 3

    steps_frac: float = number(MISSING, least=0.0, most=0.99)
    steps_per_row: int = at_least(1)
    problems: ProblemsConfig = field(default_factory=ProblemsConfig)

    def check(self, key: str, hardware: HardwareConfig) -> None:
        super().check(key, hardware)
        self.problems.check(f"{key}.problems")

    def problem_draws(self, key: str) -> list[ProblemDraw]:
        draw = replace(self.problems.draw(f"{key}.problems"), teacher=_TEACHER)
        return [draw, *super().problem_draws(key)]

    @property
    def validation_levels(self) -> Sequence[int] | None:
        return self.validation.levels or self.problems.levels

    @property
    def validation_weights(self) -> DrawWeights:
        weights = self.problems.weights
        return replace(weights, levels={}) if self.validation.levels else weights

    def with_counts(self, key: str, count: CountProblems) -> Self:
        return replace(self, problems=self.problems.with_counts(f"{key}.problems", count))

    def epoch_rows(self, input_rows: Mapping[str, int | None]) -> int | None:
        """Answers, and the documents of single steps beside them."""
        answers = self.problems.known_count
        return None if answers is None else answers + self.step_documents(answers)

    def step_documents(self, answers: int) -> int:
        """Documents of single steps beside so many answers."""
        return round(answers * self.steps_frac / (1 - self.steps_frac))
