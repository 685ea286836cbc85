r"""Rewards of rollouts: a weighted sum of terms that config names.

A term is a function that names what it wants to see: any of `prompt`, `completion`, `gold`,
`verdict`, `truncated`, `completion_tokens` and `max_new_tokens`; its other parameters are options.
It returns a number, or None where it cannot judge, which takes the rollout out of the update: a
verdict that is missing is then no wrong answer. A function of one's own works alike once
`REASONING_LAB_TRUSTED` names its package.
"""

import inspect
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reasoning_lab.targets import factory
from reasoning_lab.types import Rollout, UserError, Verdict

_SEEN = (
    "prompt",
    "completion",
    "gold",
    "verdict",
    "truncated",
    "completion_tokens",
    "max_new_tokens",
)
_FORMAT = re.compile(r"\s*<think>(?:(?!</?think>).)+</think>(?:(?!</?think>).)*", re.DOTALL)
_BOX = "\\boxed{"


@dataclass(frozen=True, slots=True)
class _Term:
    weight: float
    reward: Callable[..., float | None]
    sees: Sequence[str]


class Rewards:
    """What a rollout earns.

    Args:
        terms: By name, `_target_`, `weight` and the function's options.
        max_new_tokens: Where a rollout is cut off.
        key: The config key that holds the terms, for errors.

    Raises:
        UserError: There is no term, a function is missing, or it asks for what there is not.
    """

    def __init__(self, terms: Mapping[str, Mapping[str, Any]], max_new_tokens: int, key: str):
        if not terms:
            raise UserError(f"{key}: there is no reward; name at least one")
        self._terms = {name: _term(options, f"{key}.{name}") for name, options in terms.items()}
        self._max_new_tokens = max_new_tokens

    def of(self, rollout: Rollout) -> dict[str, float] | None:
        """Each term's share of the rollout's reward; None = a term cannot judge it."""
        seen = {
            "prompt": rollout.problem.prompt,
            "completion": rollout.completion.text,
            "gold": rollout.problem.gold,
            "verdict": rollout.verdict,
            "truncated": rollout.completion.truncated,
            "completion_tokens": len(rollout.completion.token_ids),
            "max_new_tokens": self._max_new_tokens,
        }
        shares = {}
        for name, term in self._terms.items():
            value = term.reward(**{what: seen[what] for what in term.sees})
            if value is None:
                return None
            shares[name] = term.weight * value
        return shares


def _term(options: Mapping[str, Any], key: str) -> _Term:
    named = dict(options)
    weight = float(named.pop("weight", 1.0))
    reward = factory(named, key)
    given = named.keys() - {"_target_"}
    sees = []
    for name, parameter in inspect.signature(reward).parameters.items():
        if name in given:
            continue
        if name in _SEEN:
            sees.append(name)
        elif parameter.default is inspect.Parameter.empty:
            raise UserError(
                f"{key}: '{named['_target_']}' asks for '{name}', which no rollout has; "
                f"give it as an option, or ask for {', '.join(_SEEN)}"
            )
    return _Term(weight, reward, sees)


def correctness(
    verdict: Verdict,
    correct: float = 1.0,
    wrong: float = -1.0,
    unparseable: float | None = -1.0,
    timeout: float | None = -1.0,
) -> float | None:
    """The verifier's word in numbers (paper, step 4); None = such a rollout does not train."""
    return {
        Verdict.CORRECT: correct,
        Verdict.WRONG: wrong,
        Verdict.UNPARSEABLE: unparseable,
        Verdict.TIMEOUT: timeout,
    }[verdict]


def reasoning_format(completion: str) -> float:
    r"""1 for one thought in `<think>` … `</think>` and one \boxed answer behind it, else 0."""
    thought, _, answer = completion.partition("</think>")
    boxes_right = answer.count(_BOX) == 1 and _BOX not in thought
    return float(bool(_FORMAT.fullmatch(completion)) and boxes_right)


def linear_length(completion_tokens: int, max_new_tokens: int) -> float:
    """From 0 for an empty completion down to -1 for the longest."""
    return -completion_tokens / max_new_tokens


def cosine_length(
    verdict: Verdict,
    completion_tokens: int,
    max_new_tokens: int,
    correct: Sequence[float] = (2.0, 1.0),
    wrong: Sequence[float] = (-10.0, 0.0),
    truncated_reward: float = -10.0,
    truncated: bool = False,
) -> float:
    """Correct: the shorter the better; not correct: the longer the better.

    Yeo et al. 2025 (arXiv:2502.03373), section 4: half a cosine between the first value, at
    length 0, and the second, at the limit; one cut off there has a value of its own.
    """
    if truncated:
        return truncated_reward
    short, long = correct if verdict is Verdict.CORRECT else wrong
    part = (1 + math.cos(math.pi * completion_tokens / max_new_tokens)) / 2
    return long + (short - long) * part


def overlong(completion_tokens: int, max_new_tokens: int, soft_tokens: int) -> float:
    """0 but for the last `soft_tokens`, over which it falls to -1 at the limit.

    DAPO's soft overlong punishment (Yu et al. 2025, arXiv:2503.14476, equation 13).
    """
    over = completion_tokens - (max_new_tokens - soft_tokens)
    return -min(max(over / soft_tokens, 0.0), 1.0)


def repetition(completion: str, ngram: int = 8) -> float:
    """Minus the share of the words' n-grams that occurred before; in (-1, 0]."""
    words = completion.split()
    grams = Counter(tuple(words[at : at + ngram]) for at in range(len(words) - ngram + 1))
    total = grams.total()
    return -(total - len(grams)) / total if total else 0.0
