"""The `distill` stage: a teacher solves problems, and its correct solutions form a corpus."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from omegaconf import MISSING

from reasoning_lab.config.components import JudgeConfig, TeacherConfig
from reasoning_lab.config.fields import ALL, at_least, choice, number
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.problems import (
    WHOLE_SPLIT,
    CountProblems,
    ProblemDraw,
    ProblemsConfig,
    known_count,
)
from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.graph.stage import Workload
from reasoning_lab.graph.stat_cache import folder_hash
from reasoning_lab.training.stage import LabStage
from reasoning_lab.types import Split, UserError


@dataclass
class DistillStage(LabStage):
    """Rejection sampling of a teacher's solutions.

    Attributes:
        teacher: What writes the worked solutions.
        problems: Drawn from the training split.
        validation: Problems drawn from the validation split, for early stopping; or `all`.
        judge: What judges answers that the verifier cannot read; null = they count as unparseable.
        rollouts: Solutions a problem; a recorded teacher may have fewer.
        truncated: Treatment of rollouts that end at a token limit or inside the thought: `reject`
            = rejected without being verified; `keep` = verified like all others.
        level_pass_rates: Falling pass rates that divide the corpus's problems by difficulty, in
            place of their source's levels: with `[0.75, 0.25]` level 1 has at least 3 correct
            rollouts in 4, level 2 at least 1 in 4, level 3 fewer. A single rollout says nothing of
            difficulty, so such a problem keeps its source's level. null = the source's levels.
        shard_problems: Problems solved and verified at a time; a kill loses at most one shard.
    """

    name = "distill"
    implementation = "reasoning_lab.stages.distill.produce.run"
    produces = Corpus
    reads = ("data",)
    version = 3

    teacher: TeacherConfig = MISSING
    judge: JudgeConfig | None = None
    problems: ProblemsConfig = field(default_factory=ProblemsConfig)
    validation: int | str = at_least(1, ALL)
    rollouts: int = at_least(1)
    truncated: str = choice("reject", "keep")
    level_pass_rates: list[float] | None = field(default=None, metadata={"when_set": True})
    shard_problems: int = number(1024, least=1, placement=True)

    def check(self, key: str, hardware: HardwareConfig) -> None:
        """Refuse a teacher, a judge, a draw or bounds of levels whose options are wrong."""
        self.problems.check(f"{key}.problems")
        bounds = self.level_pass_rates
        if bounds is not None and (
            not bounds
            or sorted(set(bounds), reverse=True) != bounds
            or not 0 < bounds[-1] <= bounds[0] <= 1
        ):
            raise UserError(
                f"{key}.level_pass_rates: {bounds} are no falling pass rates above 0; give some "
                "like [0.75, 0.25]"
            )
        self.teacher.check(f"{key}.teacher")
        if self.judge is not None:
            self.judge.check(f"{key}.judge")

    def problem_draws(self, key: str) -> list[ProblemDraw]:
        bounds = self.level_pass_rates
        corpus_levels = None if bounds is None else range(1, len(bounds) + 2)
        train = replace(
            self.problems.draw(f"{key}.problems"), teacher=self.teacher, corpus_levels=corpus_levels
        )
        validation = replace(
            train,
            key=f"{key}.validation",
            split=Split.VALIDATION,
            count=known_count(self.validation),
            stream=WHOLE_SPLIT,
        )
        return [train, validation]

    def with_counts(self, key: str, count: CountProblems) -> Self:
        levels, validation_key = self.problems.levels, f"{key}.validation"
        validation = count(Split.VALIDATION, levels, self.validation, validation_key, WHOLE_SPLIT)
        problems = self.problems.with_counts(f"{key}.problems", count)
        return replace(self, problems=problems, validation=validation)

    def identity(self) -> dict[str, Any]:
        """Local models are identified by their content, not by their path."""
        identity = super().identity()
        teacher, judge = identity["teacher"], identity["judge"] or {}
        for options in (teacher, teacher.get("otherwise") or {}, judge):
            engine = options.get("engine")
            if engine is not None and Path(engine["model"]).is_dir():
                engine["model"] = folder_hash(Path(engine["model"]))
        return identity

    def workload(self) -> Workload:
        problems, validation = self.problems.known_count, known_count(self.validation)
        if problems is None or validation is None:
            return Workload()
        return Workload(rows=problems * self.rollouts + validation)

    def output_rows(self, input_rows: Mapping[str, int | None]) -> int | None:
        """All are accepted."""
        problems = self.problems.known_count
        return None if problems is None else problems * self.rollouts
