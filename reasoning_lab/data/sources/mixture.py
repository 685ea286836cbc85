"""A mixture of problem sources, e.g. generated arithmetic beside a dataset's word problems."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from reasoning_lab.data.sources.config import MixtureConfig
from reasoning_lab.data.sources.problem_source import ProblemSource, check_fractions
from reasoning_lab.data.sources.unreadable import UnreadablePolicy, errors_under
from reasoning_lab.data.sources.weighted_draw import weighted_draw
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

    def available(self, split: Split, levels: Sequence[int] | None) -> int | None:
        return None

    def problems(
        self, split: Split, levels: Sequence[int] | None, count: int, seed: int
    ) -> Iterator[Problem]:
        """Yield `count` distinct problems; the sources alternate at random by their shares.

        None is yielded that another source holds out.
        """
        draws = {
            name: partial(self._source_problems, name, split, levels, seed=seed)
            for name in self._sources
        }

        def is_not_held_out(problem: Problem) -> bool:
            return self.fixed_split(problem.id) in (None, split)

        return weighted_draw(draws, self._weights, count, seed, is_not_held_out)

    def _source_problems(
        self, name: str, split: Split, levels: Sequence[int] | None, count: int, seed: int
    ) -> Iterator[Problem]:
        """Yield the problems of one source; its errors name its own key."""
        with errors_under(f"data.sources.{name}"):
            yield from self._sources[name].problems(split, levels, count, seed)
