"""Rewards of the length of a completion, in tokens."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reasoning_lab.rewards.options import (
    check_not_reversed,
    check_options,
    check_token_limit,
    check_whole_number,
    finite_option,
)
from reasoning_lab.types import UserError, Verdict


# Either sign of the weight makes sense: it favours short completions, or long ones.
@check_options(check_token_limit)
def linear_length(completion_tokens: int, max_new_tokens: int) -> float:
    """From 0 for an empty completion down to -1 for the longest."""
    return -completion_tokens / max_new_tokens


def _check_cosine(options: Mapping[str, Any], weight: float, key: str) -> None:
    check_not_reversed(options, weight, key)
    for name in ("correct", "wrong"):
        value = options[name]
        is_pair = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2
        if not is_pair or None in map(finite_option, value):
            raise UserError(
                f"{key}.{name}: {value!r} is not a pair of finite numbers; give the value at "
                "length 0 and the value at the limit"
            )
    value = options["truncated_reward"]
    if finite_option(value) is None:
        raise UserError(f"{key}.truncated_reward: {value!r} is not a finite number; give one")


@check_options(_check_cosine)
def cosine_length(
    verdict: Verdict,
    completion_tokens: int,
    max_new_tokens: int,
    correct: Sequence[float] = (2.0, 1.0),
    wrong: Sequence[float] = (-10.0, 0.0),
    truncated_reward: float = -10.0,
    truncated: bool = False,
) -> float:
    """Correct completions earn more when short, the others when long.

    Yeo et al. 2025 (arXiv:2502.03373), section 4: half a cosine from the first value, at length 0,
    to the second, at the limit. A truncated completion has a value of its own.
    """
    if truncated:
        return truncated_reward
    short, long = correct if verdict is Verdict.CORRECT else wrong
    cosine = (1 + math.cos(math.pi * completion_tokens / max_new_tokens)) / 2
    return long + (short - long) * cosine


def _check_overlong(options: Mapping[str, Any], weight: float, key: str) -> None:
    check_not_reversed(options, weight, key)
    check_whole_number(options, "soft_tokens", key, options["max_new_tokens"])


@check_options(_check_overlong)
def overlong(completion_tokens: int, max_new_tokens: int, soft_tokens: int) -> float:
    """0 until the last `soft_tokens` before the limit, over which it falls to -1.

    DAPO's soft overlong punishment (Yu et al. 2025, arXiv:2503.14476, equation 13).
    """
    excess_tokens = completion_tokens - (max_new_tokens - soft_tokens)
    return -min(max(excess_tokens / soft_tokens, 0.0), 1.0)
