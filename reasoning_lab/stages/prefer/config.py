"""Schemas of the `prefer` stage: pairs of the policy's own rollouts, the teacher's, or both."""

from dataclasses import dataclass, field

from reasoning_lab.config.benchmark import SamplingConfig
from reasoning_lab.config.fields import at_least, choice
from reasoning_lab.config.problems import CorpusSelection, ProblemDraw, ProblemsConfig
from reasoning_lab.config.schema import StageConfig, register_stage
from reasoning_lab.types import Sequences, Split


@dataclass
class PreferConfig(StageConfig):
    """The policy's own rollouts.

    Attributes:
        problems: Drawn from the training split.
        group_size: Rollouts a problem.
        sampling: How they are drawn.
        pairs_per_problem: At most so many pairs of one problem.
        pairing: Which correct rollout meets which incorrect one: random, or length_matched, those
            whose lengths differ least.
    """

    problems: ProblemsConfig = field(default_factory=ProblemsConfig)
    group_size: int = at_least(2)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    pairs_per_problem: int = at_least(1)
    pairing: str = choice("random", "length_matched")
    version: int = 2

    def problem_draws(self, key: str) -> list[ProblemDraw]:
        problems = self.problems
        return [ProblemDraw(f"{key}.problems", Split.TRAIN, problems.levels, problems.count)]

    def rows(self) -> int | None:
        return self.problems.count * self.group_size

    def written_rows(self) -> Sequences | None:
        return Sequences(self.problems.count * self.group_size, self.sampling.max_new_tokens)


@dataclass
class PreferTeacherConfig(StageConfig):
    """The teacher's rollouts: those that rejection sampling threw away are the rejected.

    Attributes:
        pairs_per_problem: At most so many pairs of one problem.
        pairing: Which correct rollout meets which incorrect one: random, or length_matched, those
            whose lengths differ least.
    """

    pairs_per_problem: int = at_least(1)
    pairing: str = choice("random", "length_matched")
    version: int = 2


@dataclass
class PreferMixedConfig(PreferConfig):
    """The policy's rollouts beside the teacher's, of problems that are in the corpus.

    Attributes:
        chosen_from: Whose correct rollouts may be chosen: any, policy or teacher.
        rejected_from: Whose incorrect rollouts may be rejected.
    """

    chosen_from: str = choice("any", "policy", "teacher")
    rejected_from: str = choice("any", "policy", "teacher")

    def problem_draws(self, key: str) -> list[ProblemDraw]:
        """None: its problems are the corpus's."""
        return []

    def corpus_selections(self, key: str) -> list[CorpusSelection]:
        problems = self.problems
        return [CorpusSelection(f"{key}.problems", problems.levels, problems.count)]


register_stage("prefer", PreferConfig)
register_stage("prefer_mixed", PreferMixedConfig)
register_stage("prefer_teacher", PreferTeacherConfig)
