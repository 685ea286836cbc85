"""The `distill` stage: a teacher works problems, and what it gets right is a corpus."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from reasoning_lab.config.fields import at_least, choice, number
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.problems import ProblemDraw, ProblemsConfig
from reasoning_lab.config.targets import factory
from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.graph.stage import Metrics, Workload
from reasoning_lab.system.files import content_hash
from reasoning_lab.training.stage import LabStage
from reasoning_lab.types import Split

if TYPE_CHECKING:
    from reasoning_lab.training.loop import StageContext


@dataclass
class DistillStage(LabStage):
    """What the teacher is asked.

    Attributes:
        teacher: `_target_` and options of the teacher.
        problems: Drawn from the training split.
        validation: Problems drawn from the validation split, for early stopping.
        judge: `_target_` and options of a model that is asked about answers which the verifier
            cannot read; null = they count as unparseable.
        rollouts: Worked solutions a problem; a recorded teacher may have fewer.
        truncated: What becomes of rollouts that were cut off, at a limit or before the end of the
            thought: `reject` = rejected without being verified; `keep` = verified as all others.
        shard_problems: Problems worked and verified at a time; a kill costs at most one shard.
    """

    name = "distill"
    produces = Corpus
    reads = ("data",)
    version = 2

    teacher: dict[str, Any] = MISSING
    judge: dict[str, Any] | None = None
    problems: ProblemsConfig = field(default_factory=ProblemsConfig)
    validation: int = at_least(1)
    rollouts: int = at_least(1)
    truncated: str = choice("reject", "keep")
    shard_problems: int = number(1024, least=1, placement=True)

    def check(self, key: str, hardware: HardwareConfig) -> None:
        """Refuse a teacher or a judge whose options are wrong."""
        factory(self.teacher, f"{key}.teacher")()
        if self.judge is not None:
            factory(self.judge, f"{key}.judge")()

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
        for asked in (identity["teacher"], identity["judge"] or {}):
            engine = asked.get("engine")
            if engine is not None and Path(engine["model"]).is_dir():
                engine["model"] = content_hash(Path(engine["model"]))
        return identity

    def workload(self) -> Workload:
        return Workload(rows=self.problems.count * self.rollouts + self.validation)

    def made_rows(self, input_rows: Mapping[str, int | None]) -> int | None:
        """All are accepted."""
        return self.problems.count * self.rollouts

    def run(self, context: "StageContext") -> Metrics:
        from reasoning_lab.stages.distill.produce import run

        return run(self, context)
