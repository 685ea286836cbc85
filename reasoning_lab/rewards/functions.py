r"""Rewards of rollouts: a weighted sum of terms that config names.

A term is a function that names what it wants to see: any of `prompt`, `completion`, `gold`,
`verdict`, `truncated`, `completion_tokens`, `max_new_tokens` and `opened`, which is what the chat
template writes of the thought before the completion begins; its other parameters are options. It
returns a number, or None where it cannot judge, which takes the rollout out of the update: a
verdict that is missing is then no wrong answer. A function of one's own works alike once
`REASONING_LAB_TRUSTED` names its package.
"""

import inspect
import math
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reasoning_lab.config.targets import resolve
from reasoning_lab.rewards.ngrams import repeated_frac
from reasoning_lab.types import Rollout, UserError, Verdict

_SEEN = (
    "prompt",
    "completion",
    "gold",
    "verdict",
    "truncated",
    "completion_tokens",
    "max_new_tokens",
    "opened",
)
_NO_MARK = r"(?!</?think>)"
_FORMAT = re.compile(
    rf"\s*<think>\s*{_NO_MARK}\S(?:{_NO_MARK}.)*</think>(?:{_NO_MARK}.)*", re.DOTALL
)
_BOX = "\\boxed{"
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class _Term:
    key: str
    weight: float
    reward: Callable[..., Any]
    options: Mapping[str, Any]
    sees: Sequence[str]

    def value(self, seen: Mapping[str, Any]) -> float | None:
        """What the function says of a rollout; None = it cannot judge it."""
        try:
            value = self.reward(**{name: seen[name] for name in self.sees}, **self.options)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            what = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(
                f"{self.key}: the reward failed at {frame.filename}:{frame.lineno} ({what}); "
                "mend it, or return None for such a rollout"
            ) from error
        if value is None:
            return None
        number = _finite(value)
        if number is None:
            shown = " ".join(repr(value).split())[:80]
            raise UserError(
                f"{self.key}: the reward returned {shown}; return a finite number, or None where "
                "it cannot judge"
            )
        return number


class Rewards:
    """What a rollout earns.

    Args:
        terms: By name, `_target_`, `weight` and the function's options.
        max_new_tokens: Where a rollout is cut off.
        key: The config key that holds the terms, for errors.
        opened: What the chat template writes of the thought, e.g. `<think>` and a line break.

    Raises:
        UserError: There is no term, a function is missing, it asks for what there is not, or an
            option or a weight is impossible.
    """

    def __init__(
        self,
        terms: Mapping[str, Any],
        max_new_tokens: int,
        key: str,
        opened: str = "",
    ) -> None:
        if not terms:
            raise UserError(f"{key}: there is no reward; name at least one")
        self._terms = {
            name: _term(options, max_new_tokens, f"{key}.{name}") for name, options in terms.items()
        }
        if not any(term.weight for term in self._terms.values()):
            raise UserError(f"{key}: every weight is 0, so nothing is rewarded; raise one")
        self._max_new_tokens = max_new_tokens
        self._opened = opened

    def of(self, rollout: Rollout) -> dict[str, float] | None:
        """Each term's share of the rollout's reward; None = a term cannot judge it.

        Raises:
            UserError: A term's function failed, or returned what is no finite number.
        """
        seen = self._seen(rollout)
        shares = {}
        for name, term in self._terms.items():
            value = term.value(seen)
            if value is None:
                return None
            shares[name] = term.weight * value
        return shares

    def declining(self, rollout: Rollout) -> str | None:
        """Config key of the first term that cannot judge the rollout; None = all of them can."""
        seen = self._seen(rollout)
        return next((term.key for term in self._terms.values() if term.value(seen) is None), None)

    def _seen(self, rollout: Rollout) -> dict[str, Any]:
        return {
            "prompt": rollout.problem.prompt,
            "completion": rollout.completion.text,
            "gold": rollout.problem.gold,
            "verdict": rollout.verdict,
            "truncated": rollout.completion.truncated,
            "completion_tokens": len(rollout.completion.token_ids),
            "max_new_tokens": self._max_new_tokens,
            "opened": self._opened,
        }


def _term(options: Any, max_new_tokens: int, key: str) -> _Term:
    if not isinstance(options, Mapping) or not isinstance(options.get("_target_"), str):
        raise UserError(f"{key}: there is no _target_; name a function, or remove it by ~{key}")
    given = dict(options)
    target, weight = given.pop("_target_"), given.pop("weight", 1.0)
    reward = resolve(target, f"{key}._target_")
    if _number(weight) is None:
        raise UserError(f"{key}.weight: {weight!r} is no finite number; give one such as 1.0")
    try:
        parameters = inspect.signature(reward).parameters.values()
    except (TypeError, ValueError) as error:
        raise UserError(f"{key}._target_: '{target}' is no function; name one") from error
    named = [item for item in parameters if item.kind not in _VARIADIC]
    for item in named:
        if item.default is inspect.Parameter.empty and item.name not in (*given, *_SEEN):
            raise UserError(
                f"{key}: '{target}' asks for '{item.name}', which no rollout has; "
                f"give it as an option, or ask for {', '.join(_SEEN)}"
            )
    known = [item.name for item in named]
    takes_any = any(item.kind is inspect.Parameter.VAR_KEYWORD for item in parameters)
    for name in given:
        if name not in known and not takes_any:
            there = ", ".join(other for other in known if other not in _SEEN) or "none"
            raise UserError(f"{key}.{name}: '{target}' has no such option; there is {there}")
    check = _CHECKS.get(reward)
    if check is not None:
        defaults = {item.name: item.default for item in named}
        seen = {"max_new_tokens": max_new_tokens}
        check({**defaults, **seen, **given}, float(weight), key)
    sees = [name for name in known if name in _SEEN and name not in given]
    return _Term(key, float(weight), reward, given, sees)


def _finite(value: Any) -> float | None:
    """What a function returned as a float; None = it is no finite number."""
    if isinstance(value, str | bytes):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None
    return number if math.isfinite(number) else None


def _number(value: Any) -> float | None:
    """An option as a float; None = it is no finite number."""
    return None if isinstance(value, bool) else _finite(value)


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


def reasoning_format(completion: str, opened: str = "") -> float:
    r"""1 for one thought in `<think>` … `</think>` and one \boxed answer behind it, else 0.

    The thought is not empty. Where the chat template opens it, the completion begins inside it.
    """
    text = opened + completion
    thought, _, answer = text.partition("</think>")
    boxes_right = answer.count(_BOX) == 1 and _BOX not in thought
    return float(bool(_FORMAT.fullmatch(text)) and boxes_right)


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
    """Minus the share of n-grams that occurred before; in (-1, 0].

    Of words, and of single characters where a script writes no spaces.
    """
    return -repeated_frac(completion, ngram) or 0.0


def _check_weight(options: Mapping[str, Any], weight: float, key: str) -> None:
    """Of a term whose opposite no one wants, and that may have been given a limit of its own."""
    if weight < 0:
        raise UserError(f"{key}.weight: {weight} turns the term round; give 0 or more")
    _check_whole(options, "max_new_tokens", key)


def _check_whole(options: Mapping[str, Any], name: str, key: str, most: int | None = None) -> None:
    value = options[name]
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < 1 or (most is not None and value > most):
        bounds = "1 or more" if most is None else f"1 to {most}, which is max_new_tokens"
        raise UserError(f"{key}.{name}: {value!r} is impossible; give a whole number, {bounds}")


def _check_correctness(options: Mapping[str, Any], weight: float, key: str) -> None:
    _check_weight(options, weight, key)
    values = {verdict.value: options[verdict.value] for verdict in Verdict}
    for name, value in values.items():
        if value is not None and _number(value) is None:
            raise UserError(f"{key}.{name}: {value!r} is no finite number; give one, or null")
    correct = values.pop("correct")
    for name, value in values.items():
        if None not in (correct, value) and value >= correct:
            raise UserError(f"{key}.{name}: {value} is not below correct={correct}; lower it")


def _check_cosine(options: Mapping[str, Any], weight: float, key: str) -> None:
    _check_weight(options, weight, key)
    for name in ("correct", "wrong"):
        value = options[name]
        pair = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2
        if not pair or None in map(_number, value):
            raise UserError(
                f"{key}.{name}: {value!r} is no pair of finite numbers; give the value at length "
                "0 and the value at the limit"
            )
    if _number(options["truncated_reward"]) is None:
        value = options["truncated_reward"]
        raise UserError(f"{key}.truncated_reward: {value!r} is no finite number; give one")


def _check_overlong(options: Mapping[str, Any], weight: float, key: str) -> None:
    _check_weight(options, weight, key)
    _check_whole(options, "soft_tokens", key, options["max_new_tokens"])


def _check_repetition(options: Mapping[str, Any], weight: float, key: str) -> None:
    _check_weight(options, weight, key)
    _check_whole(options, "ngram", key)


def _check_limit(options: Mapping[str, Any], weight: float, key: str) -> None:
    """Either sign has a meaning: a wish for short completions, or for long ones."""
    _check_whole(options, "max_new_tokens", key)


_CHECKS: Mapping[Callable[..., Any], Callable[[Mapping[str, Any], float, str], None]] = {
    correctness: _check_correctness,
    reasoning_format: _check_weight,
    linear_length: _check_limit,
    cosine_length: _check_cosine,
    overlong: _check_overlong,
    repetition: _check_repetition,
}
