"""A mixture of problem sources, e.g. generated arithmetic beside a dataset's word problems."""

import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence

from reasoning_lab.config.components import SourceConfig
from reasoning_lab.data.sources.problems import ProblemSource, check_fractions
from reasoning_lab.data.sources.unreadable import Unreadable, errors_under
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.types import Problem, Split, UserError

# The split that holds a prompt out most firmly comes first.
_FIRMNESS = (Split.TEST, Split.VALIDATION, Split.TRAIN)


class MixtureSource:
    """Draws from several sources by weight; every source must have the levels asked for.

    A prompt has one split in all of them: they share the fractions here, and what one of them
    holds out by itself is drawn from none for training.

    Args:
        sources: Name to the options of a source.
        weights: Name to its share of the problems, in any unit.
        test_frac: Replaces that of every source.
        validation_frac: Replaces that of every source.

    Raises:
        UserError: When names do not match or no weight is positive.
    """

    def __init__(
        self,
        sources: Mapping[str, SourceConfig],
        weights: Mapping[str, float],
        test_frac: float,
        validation_frac: float,
    ) -> None:
        check_fractions(test_frac, validation_frac)
        if set(weights) != set(sources):
            raise UserError(
                f"data.weights: it names {', '.join(weights) or 'none'}, the sources are "
                f"{', '.join(sources) or 'none'}; give each source one weight"
            )
        if not weights or min(weights.values()) < 0 or not sum(weights.values()):
            raise UserError(
                f"data.weights: {dict(weights)} are no shares; give numbers of at least 0, one "
                "of them above"
            )
        self._weights = weights
        self._sources: dict[str, ProblemSource] = {}
        for name, options in sources.items():
            with errors_under(f"data.sources.{name}"):
                self._sources[name] = options.with_fractions(test_frac, validation_frac).build()

    def content(self) -> str:
        return "; ".join(f"{name}: {each.content()}" for name, each in self._sources.items())

    def is_local(self) -> bool:
        return all(source.is_local() for source in self._sources.values())

    def about(self) -> Mapping[str, str]:
        told = [source.about() for source in self._sources.values()]
        return {key: "; ".join(each[key] for each in told) for key in told[0]}

    def fixed_split(self, problem_id: str) -> Split | None:
        fixed = {source.fixed_split(problem_id) for source in self._sources.values()}
        return next((split for split in _FIRMNESS if split in fixed), None)

    def unreadable(self, problem: Problem) -> Unreadable | None:
        for name, source in self._sources.items():
            policy = source.unreadable(problem)
            if policy is not None:
                key = policy.key.replace("data", f"data.sources.{name}", 1)
                return dataclasses.replace(policy, key=key)
        return None

    def record_rows(self, ledger: Ledger) -> None:
        for name, source in self._sources.items():
            with errors_under(f"data.sources.{name}"):
                source.record_rows(ledger)

    def available(self, split: Split, levels: Sequence[int]) -> int | None:
        return None

    def problems(
        self, split: Split, levels: Sequence[int], count: int, seed: int
    ) -> Iterator[Problem]:
        """Yield `count` distinct problems, each source's share spread over all of them."""
        remaining = self._shares(count)
        seen: set[int] = set()
        streams = {
            name: self._fresh(name, split, levels, remaining[name], seed, seen)
            for name in self._sources
        }
        rng = random.Random(seed)
        while sum(remaining.values()):
            (name,) = rng.choices(list(remaining), weights=list(remaining.values()))
            remaining[name] -= 1
            yield next(streams[name])

    def _shares(self, count: int) -> dict[str, int]:
        """Whole numbers that sum to `count`; what rounding leaves goes to the largest rests."""
        total = sum(self._weights.values())
        exact = {name: count * weight / total for name, weight in self._weights.items()}
        shares = {name: int(share) for name, share in exact.items()}
        by_rest = sorted(exact, key=lambda name: shares[name] - exact[name])
        for name in by_rest[: count - sum(shares.values())]:
            shares[name] += 1
        return shares

    def _fresh(
        self,
        name: str,
        split: Split,
        levels: Sequence[int],
        count: int,
        seed: int,
        seen: set[int],
    ) -> Iterator[Problem]:
        """`count` problems that no source has given and none holds out more firmly."""
        given, asked = 0, count
        while given < count:
            for problem in self._drawn(name, split, levels, asked, seed):
                number = int(problem.id, 16)
                fixed = self.fixed_split(problem.id)
                if number in seen or (fixed is not None and fixed is not split):
                    continue
                seen.add(number)
                given += 1
                yield problem
                if given == count:
                    return
            # Some were another source's: draw again, longer, past those already given.
            asked += count - given

    def _drawn(
        self, name: str, split: Split, levels: Sequence[int], count: int, seed: int
    ) -> Iterator[Problem]:
        """What one source yields; its errors name its own key."""
        with errors_under(f"data.sources.{name}"):
            yield from self._sources[name].problems(split, levels, count, seed)
