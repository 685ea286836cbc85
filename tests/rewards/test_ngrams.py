"""Repeated n-grams of a text."""

import pytest

from reasoning_lab.rewards.ngrams import repeated_frac


def test_repeated_fraction_by_hand() -> None:
    # Bigrams: ab bc ca ab bc; 3 distinct of 5.
    assert repeated_frac("a b c a b c", 2) == pytest.approx(0.4)
    assert repeated_frac("a b c", 2) == 0
    assert repeated_frac("a", 2) == 0
