"""Which problems a stage draws, and what it takes of a corpus."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from omegaconf import MISSING

from reasoning_lab.config.components import TeacherConfig
from reasoning_lab.config.fields import FREE_KEYS_WHEN_SET, at_least
from reasoning_lab.types import Split, UserError


@dataclass
class ProblemsConfig:
    """Which problems a stage draws from the training split of the data source.

    Attributes:
        levels: Difficulty levels; a source without levels of its own has level 1.
        count: Number of problems.
        level_weights: Level to its share of the problems, in any unit; every level has one, from
            0. Without any, all problems at these levels are as likely.
    """

    levels: list[int] = MISSING
    count: int = at_least(1)
    level_weights: dict[int, float] = field(default_factory=dict, metadata=FREE_KEYS_WHEN_SET)

    def check(self, key: str) -> None:
        """Raise UserError for weights that are no shares; `key` is where this stands."""
        weights = self.level_weights
        if not weights:
            return
        if sorted(weights) != sorted(set(self.levels)):
            raise UserError(
                f"{key}.level_weights: it names levels {sorted(weights)}, and {key}.levels are "
                f"{list(self.levels)}; give each level one weight"
            )
        if min(weights.values()) < 0 or not sum(weights.values()):
            raise UserError(
                f"{key}.level_weights: {dict(weights)} are no shares; give numbers of at least 0, "
                "one of them above"
            )


@dataclass(frozen=True, slots=True)
class ProblemDraw:
    """Problems that a node draws, which are looked for before anything trains.

    Attributes:
        key: The config key that asks for them.
        split: Of the source.
        levels: Difficulty levels.
        count: How many.
        teacher: The teacher that must be able to work them; None = nobody works them.
        benchmark: The benchmark whose source they come from; None = the run's source.
        seed: Of the draw; None = the run's.
        level_weights: Level to its share of them; empty = as the source has them.
    """

    key: str
    split: Split
    levels: Sequence[int]
    count: int
    teacher: TeacherConfig | None = None
    benchmark: str | None = None
    seed: int | None = None
    level_weights: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CorpusSelection:
    """What a stage takes of a corpus.

    Attributes:
        key: The config key that asks for it.
        levels: Difficulty levels.
        least: Problems at these levels without which the stage cannot run.
    """

    key: str
    levels: Sequence[int]
    least: int = 1


@dataclass(frozen=True, slots=True)
class DocumentLimit:
    """The longest document that a stage takes: the key that says so, and its tokens."""

    key: str
    tokens: int
