"""A mixture of problem sources, e.g. generated arithmetic beside a dataset's word problems."""

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from reasoning_lab.config.problems import WHOLE_SPLIT, DrawWeights
from reasoning_lab.data.sources.config import MixtureConfig
from reasoning_lab.data.sources.problem_source import ProblemSource, check_fractions
from reasoning_lab.data.sources.streams import stream_of
from reasoning_lab.data.sources.unreadable import UnreadablePolicy, errors_under
from reasoning_lab.data.sources.weighted_draw import Drawable, WeightedLevels, weighted_draw
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
        _check_shares(weights, "data.weights")
        self._weights = weights
        self._sources: dict[str, ProblemSource] = {}
        for name, options in config.sources.items():
            with errors_under(f"data.sources.{name}"):
                part = options.with_fractions(config.test_frac, config.validation_frac)
                self._sources[name] = part.build()
        # The sources, or a stream of each.
        self._drawables: Mapping[str, Drawable] = self._sources

    def with_weights(self, weights: Mapping[str, float]) -> "MixtureSource":
        """The same sources, of which some have other weights.

        Raises:
            UserError: One of them is no source of it, or no weight is positive.
        """
        if unknown := sorted(weights.keys() - self._sources.keys()):
            raise UserError(
                f"source_weights: '{unknown[0]}' is no source of data.sources; choose among "
                f"{', '.join(self._sources)}"
            )
        other = copy.copy(self)
        other._weights = {**self._weights, **weights}
        _check_shares(other._weights, "source_weights")
        return other

    def in_stream(self, bounds: Sequence[float], key: str) -> "MixtureSource":
        """The same sources, each cut down to one stream; `key` is the config key above `stream`."""
        other = copy.copy(self)
        other._drawables = {
            name: stream_of(source, bounds, key) for name, source in self._sources.items()
        }
        return other

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
            yield from self._drawables[name].problems(split, levels, count, seed)


def weighted(
    source: ProblemSource,
    weights: DrawWeights,
    stream: Sequence[float] = WHOLE_SPLIT,
    key: str = "",
) -> Drawable:
    """What a stage draws from: the source, with its levels and a mixture's sources by weight.

    Args:
        source: The run's.
        weights: Of levels and sources.
        stream: The part of the training split.
        key: The config key above `stream`, for errors.

    Raises:
        UserError: There are weights of sources, and it is no mixture or lacks one of them.
    """
    drawable: Drawable
    if isinstance(source, MixtureSource):
        # Its weights hold within the stream, and no source is asked for more than its share.
        drawable = source.with_weights(weights.sources).in_stream(stream, key)
    elif weights.sources:
        raise UserError(
            "source_weights: the data is no mixture of sources; choose data=mixture, or leave them "
            "out"
        )
    else:
        drawable = stream_of(source, stream, key)
    return WeightedLevels(drawable, weights.levels) if weights.levels else drawable


def _check_shares(weights: Mapping[str, float], key: str) -> None:
    if not weights or min(weights.values()) < 0 or not sum(weights.values()):
        raise UserError(
            f"{key}: {dict(weights)} are no shares; give numbers of at least 0, one of them above"
        )
