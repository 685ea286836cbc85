"""Which problems a stage draws, and what it takes of a corpus."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from omegaconf import MISSING

from reasoning_lab.config.components import TeacherConfig
from reasoning_lab.config.fields import ALL, FREE_KEYS_WHEN_SET, at_least
from reasoning_lab.types import Split, UserError

# Bounds of a stream that is all of the training split.
WHOLE_SPLIT = (0.0, 1.0)
# From a split, levels, a count, its config key and a stream of the training split to the number
# that `all` is, where it is known.
CountProblems = Callable[[Split, Sequence[int] | None, int | str, str, Sequence[float]], int | str]


@dataclass(frozen=True, slots=True)
class DrawWeights:
    """How a draw is weighed; an empty mapping leaves the shares to the data source.

    Attributes:
        levels: Level to its share, in any unit.
        sources: Source of a mixture to its share, in the unit of the mixture's own weights.
    """

    levels: Mapping[int, float] = field(default_factory=dict)
    sources: Mapping[str, float] = field(default_factory=dict)


@dataclass
class ProblemsConfig:
    """Which problems a stage draws from the training split of the data source.

    Attributes:
        levels: Difficulty levels; a source without levels of its own has level 1. null = all.
        count: Number of problems, or `all` that the split has at these levels.
        level_weights: Level to its share of the problems, in any unit; every level has one, from
            0. Without any, all problems at these levels are as likely.
        source_weights: Source of `data=mixture` to the weight that it has in this draw, in place
            of its `data.weights`. Other sources keep theirs.
        stream: The part of the training split that they come from, as two bounds from 0 to 1.
            Stages whose streams do not overlap share no prompt and no twin of one; `[0, 1]` = all.
    """

    levels: list[int] | None = MISSING
    count: int | str = at_least(1, ALL)
    level_weights: dict[int, float] = field(default_factory=dict, metadata=FREE_KEYS_WHEN_SET)
    source_weights: dict[str, float] = field(default_factory=dict, metadata=FREE_KEYS_WHEN_SET)
    stream: list[float] = field(default_factory=lambda: list(WHOLE_SPLIT))

    @property
    def weights(self) -> DrawWeights:
        """The weights of the levels and of a mixture's sources."""
        return DrawWeights(self.level_weights, self.source_weights)

    def check(self, key: str) -> None:
        """Raise UserError for a stream or weights that are none; `key` is where this stands."""
        if len(self.stream) != 2 or not 0 <= self.stream[0] < self.stream[1] <= 1:
            raise UserError(
                f"{key}.stream: {self.stream} are no bounds of a part; give two rising numbers "
                "from 0 to 1, like [0, 0.5]"
            )
        weights = self.level_weights
        if not weights:
            return
        if self.levels is None or sorted(weights) != sorted(set(self.levels)):
            raise UserError(
                f"{key}.level_weights: it names levels {sorted(weights)}, and {key}.levels are "
                f"{self.levels or 'all'}; give each level one weight"
            )
        if min(weights.values()) < 0 or not sum(weights.values()):
            raise UserError(
                f"{key}.level_weights: {dict(weights)} are no shares; give numbers of at least 0, "
                "one of them above"
            )

    @property
    def known_count(self) -> int | None:
        """The number; None = all, of data that is not on this machine."""
        return known_count(self.count)

    def draw(self, key: str) -> "ProblemDraw":
        """The draw of these problems; `key` is where this stands in the config."""
        return ProblemDraw(
            key,
            Split.TRAIN,
            self.levels,
            self.known_count,
            weights=self.weights,
            stream=self.stream,
        )

    def with_counts(self, key: str, count: CountProblems) -> Self:
        """The same with a number in place of `all`; `key` is where this stands in the config."""
        number = count(Split.TRAIN, self.levels, self.count, f"{key}.count", self.stream)
        return replace(self, count=number)


def known_count(count: int | str) -> int | None:
    """The number of problems; None = `all`, of which composition does not know the number."""
    return None if isinstance(count, str) else count


def in_words(levels: Sequence[int] | None) -> str:
    """`levels` for a message: `levels [1, 2]`, or `any level` where None stands for all."""
    return "any level" if levels is None else f"levels {list(levels)}"


@dataclass(frozen=True, slots=True)
class ProblemDraw:
    """Problems that a node draws, which are looked for before anything trains.

    Attributes:
        key: The config key that asks for them.
        split: Of the source.
        levels: Difficulty levels; None = all.
        count: How many; None = all.
        teacher: The teacher that must be able to work them; None = nobody works them.
        benchmark: The benchmark whose source they come from; None = the run's source.
        seed: Of the draw; None = the run's.
        weights: Of its levels and of a mixture's sources.
        corpus_levels: Levels that a corpus of them may have, where these are not the problems' own.
        stream: The part of the training split that they come from; see `ProblemsConfig`.
    """

    key: str
    split: Split
    levels: Sequence[int] | None
    count: int | None
    teacher: TeacherConfig | None = None
    benchmark: str | None = None
    seed: int | None = None
    weights: DrawWeights = DrawWeights()
    corpus_levels: Sequence[int] | None = None
    stream: Sequence[float] = WHOLE_SPLIT


@dataclass(frozen=True, slots=True)
class CorpusSelection:
    """What a stage takes of a corpus.

    Attributes:
        key: The config key that asks for it.
        levels: Difficulty levels; None = all.
        least: Problems at these levels without which the stage cannot run.
    """

    key: str
    levels: Sequence[int] | None
    least: int = 1


@dataclass(frozen=True, slots=True)
class DocumentLimit:
    """The longest document that a stage takes: the key that says so, and its tokens."""

    key: str
    tokens: int
