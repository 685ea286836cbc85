"""Streams: parts of the training split, so that each stage has prompts of its own.

The hash of a problem's canonical form gives it a place from 0 to 1, apart from the one that decides
its split. Streams that do not overlap share no prompt and no twin, whatever the seed, the levels
and the counts.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from reasoning_lab.config.problems import WHOLE_SPLIT, in_words
from reasoning_lab.data.sources.canonical import form_id
from reasoning_lab.data.sources.draw_counts import note_draw
from reasoning_lab.data.sources.problem_source import ProblemSource
from reasoning_lab.types import Problem, Split, UserError

# So many standard deviations more than a stream's share are asked of the source at once.
_MARGIN_DEVIATIONS = 4
_GROWTH = 1.5


def stream_of(source: ProblemSource, bounds: Sequence[float], key: str) -> "ProblemSource | Stream":
    """The source's `stream`, or itself where that is all; `key` is the config key above it."""
    low, high = bounds
    return source if (low, high) == WHOLE_SPLIT else Stream(source, (low, high), key)


@dataclass(frozen=True, slots=True)
class Stream:
    """A source of which the training split is cut down to one stream; other splits are whole.

    Attributes:
        source: The source.
        bounds: Lowest place, and the end, which does not belong to it.
        key: The config key above `stream`, for errors.
    """

    source: ProblemSource
    bounds: tuple[float, float]
    key: str

    def problems(
        self, split: Split, levels: Sequence[int] | None, count: int, seed: int
    ) -> Iterator[Problem]:
        """As `ProblemSource.problems`: the source draws more, and this passes on the stream's.

        Raises:
            UserError: The stream has fewer.
        """
        if split is not Split.TRAIN:
            yield from self.source.problems(split, levels, count, seed)
            return
        share = self.bounds[1] - self.bounds[0]
        limit = self.source.available(split, levels)
        margin = _MARGIN_DEVIATIONS * math.sqrt(count) + _MARGIN_DEVIATIONS
        requested = math.ceil((count + margin) / share)
        seen: set[int] = set()
        arguments = (self.bounds, None if levels is None else tuple(levels), seed)
        while True:
            requested = requested if limit is None else min(requested, limit)
            drawn, shortage = 0, ""
            try:
                for problem in self.source.problems(split, levels, requested, seed):
                    drawn += 1
                    if not self.has(problem) or int(problem.id, 16) in seen:
                        continue
                    seen.add(int(problem.id, 16))
                    other = {"other_stream": drawn - len(seen)}
                    note_draw(self.source, arguments, "prompts", drawn, other)
                    yield problem
                    if len(seen) == count:
                        return
            except UserError as error:
                # What it raises before it yields anything is another mistake.
                if not drawn:
                    raise
                shortage = f" ({error})"
            if shortage or requested == limit:
                raise UserError(
                    f"{self.key}.stream={list(self.bounds)}: this part of the training split of "
                    f"'{self.provenance()['name']}' has {len(seen)} prompts at {in_words(levels)}, "
                    f"and {count} are asked for"
                    f"{shortage}; ask for fewer, or widen it, up to {list(WHOLE_SPLIT)}, where "
                    "other stages train on the same prompts"
                )
            requested = math.ceil(_GROWTH * requested)

    def available(self, split: Split, levels: Sequence[int] | None) -> int | None:
        """How many problems there are; None = the source does not know. It looks at each once."""
        number = self.source.available(split, levels)
        if number is None or split is not Split.TRAIN:
            return number
        return sum(map(self.has, self.source.problems(split, levels, number, 0)))

    def provenance(self) -> Mapping[str, str]:
        return self.source.provenance()

    def has(self, problem: Problem) -> bool:
        """Whether a problem's place is in the stream."""
        return self.bounds[0] <= int(form_id(problem)[8:], 16) / 16**8 < self.bounds[1]
