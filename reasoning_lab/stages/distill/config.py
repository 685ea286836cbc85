"""Schema of the `distill` stage."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from reasoning_lab.config.components import JudgeConfig, TeacherConfig
from reasoning_lab.config.fields import at_least, choice, number
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.problems import ProblemDraw, ProblemsConfig
from reasoning_lab.config.schema import StageConfig, register_stage
from reasoning_lab.system.files import content_hash
from reasoning_lab.types import Split


@dataclass
class DistillConfig(StageConfig):
    """What the teacher is asked.

    Attributes:
        teacher: What writes the worked solutions.
        problems: Drawn from the training split.
        validation: Problems drawn from the validation split, for early stopping.
        judge: What is asked about answers that the verifier cannot read; null = they count as
            unparseable.
        rollouts: Worked solutions a problem; a recorded teacher may have fewer.
        truncated: What becomes of rollouts that were cut off, at a limit or before the end of the
            thought: `reject` = rejected without being verified; `keep` = verified as all others.
        shard_problems: Problems worked and verified at a time; a kill costs at most one shard.
    """

    teacher: TeacherConfig = MISSING
    judge: JudgeConfig | None = None
    problems: ProblemsConfig = field(default_factory=ProblemsConfig)
    validation: int = at_least(1)
    rollouts: int = at_least(1)
    truncated: str = choice("reject", "keep")
    shard_problems: int = number(1024, least=1, placement=True)
    version: int = 2

    def check(self, key: str, hardware: HardwareConfig) -> None:
        """Refuse a teacher or a judge whose options are wrong."""
        self.teacher.check(f"{key}.teacher")
        if self.judge is not None:
            self.judge.check(f"{key}.judge")

    def problem_draws(self, key: str) -> list[ProblemDraw]:
        levels, count = self.problems.levels, self.problems.count
        draws = (
            (f"{key}.problems", Split.TRAIN, count),
            (f"{key}.validation", Split.VALIDATION, self.validation),
        )
        return [ProblemDraw(name, split, levels, n, self.teacher) for name, split, n in draws]

    def identity(self) -> dict[str, Any]:
        """A model in a local folder counts by content, not by place."""
        identity = super().identity()
        for options in (identity["teacher"], identity["judge"] or {}):
            engine = options.get("engine")
            if engine is not None and Path(engine["model"]).is_dir():
                engine["model"] = content_hash(Path(engine["model"]))
        return identity

    def rows(self) -> int | None:
        return self.problems.count * self.rollouts + self.validation


register_stage("distill", DistillConfig)
