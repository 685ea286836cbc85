"""Reward of a completion that does not repeat itself."""

from collections.abc import Mapping
from typing import Any

from reasoning_lab.rewards.ngrams import repeated_frac
from reasoning_lab.rewards.options import check_not_reversed, check_options, check_whole_number


def _check(options: Mapping[str, Any], weight: float, key: str) -> None:
    check_not_reversed(options, weight, key)
    check_whole_number(options, "ngram", key)


@check_options(_check)
def repetition(completion: str, ngram: int = 8) -> float:
    """Minus the fraction of n-grams that occurred before; in (-1, 0].

    N-grams are of words, and of single characters where a script writes no spaces.
    """
    return -repeated_frac(completion, ngram) or 0.0
