"""Verdicts to rewards: the terms that a config names by `reasoning_lab.rewards.NAME`."""

from reasoning_lab.rewards.functions import (
    correctness,
    cosine_length,
    linear_length,
    overlong,
    reasoning_format,
    repetition,
)

__all__ = [
    "correctness",
    "cosine_length",
    "linear_length",
    "overlong",
    "reasoning_format",
    "repetition",
]
