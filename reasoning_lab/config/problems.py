"""Which problems a stage draws, and what it takes of a corpus."""

from collections.abc import Sequence
from dataclasses import dataclass

from omegaconf import MISSING

from reasoning_lab.config.components import TeacherConfig
from reasoning_lab.config.fields import at_least
from reasoning_lab.types import Split


@dataclass
class ProblemsConfig:
    """Which problems a stage draws from the training split of the data source.

    Attributes:
        levels: Difficulty levels; a source without levels of its own has level 1.
        count: Number of problems.
    """

    levels: list[int] = MISSING
    count: int = at_least(1)


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
    """

    key: str
    split: Split
    levels: Sequence[int]
    count: int
    teacher: TeacherConfig | None = None
    benchmark: str | None = None
    seed: int | None = None


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
