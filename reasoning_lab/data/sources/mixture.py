"""A mixture of problem sources, e.g. generated arithmetic beside a dataset's word problems."""

import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence

from reasoning_lab.data.sources.config import MixtureConfig
from reasoning_lab.data.sources.problem_source import ProblemSource, check_fractions
from reasoning_lab.data.sources.unreadable import UnreadablePolicy, errors_under
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.types import Problem, Split, UserError

# If sources disagree on a prompt's split, the first of these wins.
_SPLIT_PRECEDENCE = (Split.TEST, Split.VALIDATION, Split.TRAIN)


class MixtureSource:
    """Draws from several sources by weight; every source must have the requested levels.

    A prompt has one split in all sources. They share the fractions given here, and a prompt that
    one dataset holds out is drawn from none of them for training.

    Raises:
        UserError: The names do not match, or no weight is positive.
    """

    def __init__(self, config: MixtureConfig) -> None:
        check_fractions(config.test_frac, config.validation_frac)
        weights = config.weights
        if weights.keys() != config.sources.keys():
            raise UserError(
                f"data.weights: it names {', '.join(weights) or 'none'}, the sources are "
                f"{', '.join(config.sources) or 'none'}; give each source one weight"
            )
        if not weights or min(weights.values()) < 0 or not sum(weights.values()):
            raise UserError(
                f"data.weights: {dict(weights)} are no shares; give numbers of at least 0, one "
                "of them above"
            )
        self._weights = weights
        self._sources: dict[str, ProblemSource] = {}
        for name, options in config.sources.items():
            with errors_under(f"data.sources.{name}"):
                part = options.with_fractions(config.test_frac, config.validation_frac)
                self._sources[name] = part.build()

    def content(self) -> str:
        return "; ".join(f"{name}: {source.content()}" for name, source in self._sources.items())

    def is_local(self) -> bool:
        return all(source.is_local() for source in self._sources.values())

    def provenance(self) -> Mapping[str, str]:
        cards = [source.provenance() for source in self._sources.values()]
        return {key: "; ".join(card[key] for card in cards) for key in cards[0]}

    def fixed_split(self, problem_id: str) -> Split | None:
        splits = {source.fixed_split(problem_id) for source in self._sources.values()}
        return next((split for split in _SPLIT_PRECEDENCE if split in splits), None)

    def unreadable(self, problem: Problem) -> UnreadablePolicy | None:
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
        """Yield `count` distinct problems; the sources alternate at random by their shares."""
        remaining = self._shares(count)
        seen: set[int] = set()
        streams = {
            name: self._unseen_problems(name, split, levels, remaining[name], seed, seen)
            for name in self._sources
        }
        rng = random.Random(seed)
        while sum(remaining.values()):
            (name,) = rng.choices(list(remaining), weights=list(remaining.values()))
            remaining[name] -= 1
            yield next(streams[name])

    def _shares(self, count: int) -> dict[str, int]:
        """Round the shares to sum to `count`; the largest remainders are rounded up."""
        total = sum(self._weights.values())
        exact = {name: count * weight / total for name, weight in self._weights.items()}
        shares = {name: int(share) for name, share in exact.items()}
        by_remainder = sorted(exact, key=lambda name: shares[name] - exact[name])
        for name in by_remainder[: count - sum(shares.values())]:
            shares[name] += 1
        return shares

    def _unseen_problems(
        self,
        name: str,
        split: Split,
        levels: Sequence[int],
        count: int,
        seed: int,
        seen: set[int],
    ) -> Iterator[Problem]:
        """Yield `count` problems that no source has yielded and none holds out."""
        yielded, requested = 0, count
        while yielded < count:
            for problem in self._source_problems(name, split, levels, requested, seed):
                number = int(problem.id, 16)
                if number in seen or self.fixed_split(problem.id) not in (None, split):
                    continue
                seen.add(number)
                yielded += 1
                yield problem
                if yielded == count:
                    return
            # Other sources had yielded some of them: draw a longer stream, which repeats these.
            requested += count - yielded

    def _source_problems(
        self, name: str, split: Split, levels: Sequence[int], count: int, seed: int
    ) -> Iterator[Problem]:
        """Yield the problems of one source; its errors name its own key."""
        with errors_under(f"data.sources.{name}"):
            yield from self._sources[name].problems(split, levels, count, seed)
