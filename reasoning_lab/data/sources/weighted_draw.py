"""Draw from several streams of problems by weight: the sources of a mixture, or levels."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from reasoning_lab.data.sources.canonical import form_id
from reasoning_lab.types import Problem, Split

Name = TypeVar("Name")


class Drawable(Protocol):
    """What problems are drawn from: a source, or a view of one."""

    def problems(
        self, split: Split, levels: Sequence[int] | None, count: int, seed: int
    ) -> Iterator[Problem]:
        """As `ProblemSource.problems`."""
        ...


@dataclass(frozen=True, slots=True)
class WeightedLevels:
    """A source of which the levels come by weight; every level must have its share.

    Attributes:
        source: The source.
        weights: Level to its share of the problems, in any unit.
    """

    source: Drawable
    weights: Mapping[int, float]

    def problems(
        self, split: Split, levels: Sequence[int] | None, count: int, seed: int
    ) -> Iterator[Problem]:
        """Yield `count` distinct problems; the levels alternate at random by their shares."""
        wanted = self.weights if levels is None else levels
        draws = {level: partial(self._level_problems, split, level, seed=seed) for level in wanted}
        return weighted_draw(draws, self.weights, count, seed)

    def _level_problems(self, split: Split, level: int, count: int, seed: int) -> Iterator[Problem]:
        return self.source.problems(split, [level], count, seed)


def weighted_draw(
    draws: Mapping[Name, Callable[[int], Iterator[Problem]]],
    weights: Mapping[Name, float],
    count: int,
    seed: int,
    accepts: Callable[[Problem], bool] = lambda problem: True,
) -> Iterator[Problem]:
    """Yield `count` problems of distinct forms; the draws alternate at random by their shares.

    Args:
        draws: From a number to so many distinct problems; more begin with the same ones.
        weights: The share of each draw, in any unit.
        count: Number of problems.
        seed: Of the order.
        accepts: Whether a problem may be yielded; another one takes its place.
    """
    remaining = _shares({name: weights[name] for name in draws}, count)
    seen: set[int] = set()
    streams = {name: _unseen(draw, remaining[name], seen, accepts) for name, draw in draws.items()}
    rng = random.Random(seed)
    while sum(remaining.values()):
        (name,) = rng.choices(list(remaining), weights=list(remaining.values()))
        remaining[name] -= 1
        yield next(streams[name])


def _shares(weights: Mapping[Name, float], count: int) -> dict[Name, int]:
    """Round the shares to sum to `count`; the largest remainders are rounded up."""
    total = sum(weights.values())
    exact = {name: count * weight / total for name, weight in weights.items()}
    shares = {name: int(share) for name, share in exact.items()}
    by_remainder = sorted(exact, key=lambda name: shares[name] - exact[name])
    for name in by_remainder[: count - sum(shares.values())]:
        shares[name] += 1
    return shares


def _unseen(
    draw: Callable[[int], Iterator[Problem]],
    count: int,
    seen: set[int],
    accepts: Callable[[Problem], bool],
) -> Iterator[Problem]:
    """Yield `count` accepted problems of forms that no stream has yielded."""
    yielded, requested = 0, count
    while yielded < count:
        for problem in draw(requested):
            number = int(form_id(problem), 16)
            if number in seen or not accepts(problem):
                continue
            seen.add(number)
            yielded += 1
            yield problem
            if yielded == count:
                return
        # Other streams had yielded some of them: draw a longer one, which repeats these.
        requested += count - yielded
