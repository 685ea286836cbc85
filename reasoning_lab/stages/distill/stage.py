"""The `distill` stage: a teacher solves problems, and its correct solutions form a corpus."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from reasoning_lab.config.components import JudgeConfig, TeacherConfig
from reasoning_lab.config.fields import at_least, choice, number
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.problems import ProblemDraw, ProblemsConfig
from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.graph.stage import Workload
from reasoning_lab.graph.stat_cache import folder_hash
from reasoning_lab.training.stage import LabStage
from reasoning_lab.types import Split


@dataclass
class DistillStage(LabStage):
    """Rejection sampling of a teacher's solutions.

    Attributes:
        teacher: What writes the worked solutions.
        problems: Drawn from the training split.
        validation: Problems drawn from the validation split, for early stopping.
        judge: What judges answers that the verifier cannot read; null = they count as unparseable.
        rollouts: Solutions a problem; a recorded teacher may have fewer.
        truncated: Treatment of rollouts that end at a token limit or inside the thought: `reject`
            = rejected without being verified; `keep` = verified like all others.
        shard_problems: Problems solved and verified at a time; a kill loses at most one shard.
    """

    name = "distill"
    implementation = "reasoning_lab.stages.distill.produce.run"
    produces = Corpus
    reads = ("data",)
    version = 2

    teacher: TeacherConfig = MISSING
    judge: JudgeConfig | None = None
    problems: ProblemsConfig = field(default_factory=ProblemsConfig)
    validation: int = at_least(1)
    rollouts: int = at_least(1)
    truncated: str = choice("reject", "keep")
    shard_problems: int = number(1024, least=1, placement=True)

    def check(self, key: str, hardware: HardwareConfig) -> None:
        """Refuse a teacher, a judge or a draw whose options are wrong."""
        self.problems.check(f"{key}.problems")
        self.teacher.check(f"{key}.teacher")
        if self.judge is not None:
            self.judge.check(f"{key}.judge")

    def problem_draws(self, key: str) -> list[ProblemDraw]:
        levels, count, weights = (
            self.problems.levels,
            self.problems.count,
            self.problems.level_weights,
        )
        draws = (
            (f"{key}.problems", Split.TRAIN, count),
            (f"{key}.validation", Split.VALIDATION, self.validation),
        )
        return [
            ProblemDraw(name, split, levels, n, self.teacher, level_weights=weights)
            for name, split, n in draws
        ]

    def identity(self) -> dict[str, Any]:
        """Local models are identified by their content, not by their path."""
        identity = super().identity()
        for options in (identity["teacher"], identity["judge"] or {}):
            engine = options.get("engine")
            if engine is not None and Path(engine["model"]).is_dir():
                engine["model"] = folder_hash(Path(engine["model"]))
        return identity

    def workload(self) -> Workload:
        return Workload(rows=self.problems.count * self.rollouts + self.validation)

    def output_rows(self, input_rows: Mapping[str, int | None]) -> int | None:
        """All are accepted."""
        return self.problems.count * self.rollouts
