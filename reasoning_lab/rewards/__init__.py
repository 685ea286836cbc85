"""Verdicts to rewards: the functions that a config names as `reasoning_lab.rewards.NAME`.

Each is a plain function of what a rollout has; `weighted` adds them up.
"""

from reasoning_lab.rewards.formats import reasoning_format
from reasoning_lab.rewards.lengths import cosine_length, linear_length, overlong
from reasoning_lab.rewards.repetitions import repetition
from reasoning_lab.rewards.verdicts import correctness

__all__ = [
    "correctness",
    "cosine_length",
    "linear_length",
    "overlong",
    "reasoning_format",
    "repetition",
]
