"""Preference pairs of the policy's own rollouts, of the teacher's, or of both: three stages."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from reasoning_lab.config.benchmark import SHARD_ROLLOUTS, SamplingConfig
from reasoning_lab.config.components import require_package
from reasoning_lab.config.fields import at_least, choice
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.problems import (
    WHOLE_SPLIT,
    CorpusSelection,
    CountProblems,
    ProblemDraw,
    ProblemsConfig,
)
from reasoning_lab.data.artifacts import Corpus, Preferences
from reasoning_lab.graph.artifact import Artifact
from reasoning_lab.graph.stage import Workload
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.training.stage import LabStage
from reasoning_lab.types import Sequences, UserError


@dataclass
class PreferStage(LabStage):
    """Preference pairs of the policy's own rollouts.

    Attributes:
        problems: Drawn from the training split.
        group_size: Rollouts a problem.
        sampling: Sampling options of these rollouts.
        rollout_engine: Engine that samples them: hf, or vllm, of which `hardware.sampling` spreads
            copies over the devices.
        pairs_per_problem: Most pairs of one problem.
        pairing: How correct and incorrect rollouts are paired: random, or length_matched, which
            pairs those whose lengths differ least.
    """

    name = "prefer"
    implementation = "reasoning_lab.stages.prefer.produce.from_policy"
    consumes: ClassVar[tuple[type[Artifact], ...]] = (Policy,)
    produces = Preferences
    reads: ClassVar[tuple[str, ...]] = ("model", "data")
    version = 3

    problems: ProblemsConfig = field(default_factory=ProblemsConfig)
    group_size: int = at_least(2)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    rollout_engine: str = choice("hf", "vllm", when_set=True)
    pairs_per_problem: int = at_least(1)
    pairing: str = choice("random", "length_matched")

    def check(self, key: str, hardware: HardwareConfig) -> None:
        """Refuse weights of levels that are no shares, and vLLM where it is not installed."""
        self.problems.check(f"{key}.problems")
        self.check_engine(key)

    def check_engine(self, key: str) -> None:
        """Refuse vLLM where it is not installed."""
        if self.rollout_engine == "vllm":
            require_package("vllm", f"{key}.rollout_engine", "vllm")

    def problem_draws(self, key: str) -> list[ProblemDraw]:
        return [self.problems.draw(f"{key}.problems")]

    def with_counts(self, key: str, count: CountProblems) -> Self:
        return replace(self, problems=self.problems.with_counts(f"{key}.problems", count))

    def workload(self) -> Workload:
        if self.problems.known_count is None:
            return Workload()
        rows = self.problems.known_count * self.group_size
        # A shard, and the pairs that are not written yet.
        in_memory = min(rows, 3 * max(SHARD_ROLLOUTS, self.group_size))
        tokens = self.sampling.max_new_tokens
        if isinstance(tokens, str):
            return Workload(rows=rows, engine=self.rollout_engine)
        written = Sequences(rows, tokens, rows_in_memory=in_memory)
        return Workload(rows=rows, written=written, engine=self.rollout_engine)

    def output_rows(self, input_rows: Mapping[str, int | None]) -> int | None:
        problems = self.problems.known_count
        return None if problems is None else problems * self.pairs_per_problem


@dataclass
class PreferTeacherStage(LabStage):
    """Preference pairs of the teacher's rollouts; incorrect ones were rejected by distillation.

    Attributes:
        pairs_per_problem: Most pairs of one problem.
        pairing: How correct and incorrect rollouts are paired: random, or length_matched, which
            pairs those whose lengths differ least.
    """

    name = "prefer_teacher"
    implementation = "reasoning_lab.stages.prefer.produce.from_corpus"
    consumes = (Corpus,)
    produces = Preferences
    version = 2

    pairs_per_problem: int = at_least(1)
    pairing: str = choice("random", "length_matched")

    def output_rows(self, input_rows: Mapping[str, int | None]) -> int | None:
        """A problem that has a pair has two rollouts."""
        rollouts = input_rows.get(Corpus.kind)
        return None if rollouts is None else rollouts // 2 * self.pairs_per_problem


@dataclass
class PreferMixedStage(PreferStage):
    """Preference pairs of the policy's and the teacher's rollouts of the corpus's problems.

    Attributes:
        chosen_from: Author of the chosen rollouts: any, policy or teacher.
        rejected_from: Author of the rejected rollouts, likewise.
    """

    name = "prefer_mixed"
    implementation = "reasoning_lab.stages.prefer.produce.from_both"
    consumes = (Policy, Corpus)
    produces = Preferences
    reads = ("model",)
    version = 3

    chosen_from: str = choice("any", "policy", "teacher")
    rejected_from: str = choice("any", "policy", "teacher")

    def check(self, key: str, hardware: HardwareConfig) -> None:
        """Refuse weights and a stream, because the corpus's problems were drawn already."""
        self.check_engine(key)
        if tuple(self.problems.stream) != WHOLE_SPLIT:
            raise UserError(
                f"{key}.problems.stream: this stage takes the corpus's problems, whose stream the "
                "stage that distils has; leave it out"
            )
        for name in ("level_weights", "source_weights"):
            if getattr(self.problems, name):
                raise UserError(
                    f"{key}.problems.{name}: this stage takes the corpus's problems as they were "
                    "distilled; give weights to the stage that distils, and none here"
                )

    def problem_draws(self, key: str) -> list[ProblemDraw]:
        """None: its problems are the corpus's."""
        return []

    def with_counts(self, key: str, count: CountProblems) -> Self:
        return self

    def corpus_selections(self, key: str) -> list[CorpusSelection]:
        levels, least = self.problems.levels, self.problems.known_count or 1
        return [CorpusSelection(f"{key}.problems", levels, least)]
