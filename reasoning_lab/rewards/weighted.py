r"""The reward of a rollout: a weighted sum of the functions that a config names.

A reward function asks for what it needs by its parameters' names, any of `ROLLOUT_ARGUMENTS`; its
other parameters are options of the config. It returns a number, or None where it cannot judge. None
takes the rollout out of the update, so that a missing verdict is not taken for a wrong answer.

To add a reward, write one function in one file and name it in the config:
`'+stages.rl.rewards.mine={_target_: my_package.mine, weight: 0.5}'`. A package outside of this one
must be listed in `REASONING_LAB_TRUSTED`.
"""

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reasoning_lab.config.targets import resolve
from reasoning_lab.rewards.options import OPTION_CHECKS, finite_float, finite_option
from reasoning_lab.types import Rollout, UserError

# `prompt` is the user's last message; `problem` has what comes before it in a conversation.
# `thought_prefix` is what the chat template writes of the thought before the completion begins.
ROLLOUT_ARGUMENTS = (
    "prompt",
    "completion",
    "gold",
    "problem",
    "verdict",
    "passed_frac",
    "truncated",
    "completion_tokens",
    "max_new_tokens",
    "thought_prefix",
)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class RewardTerm:
    """One reward function: its config key, weight and options, and what each rollout fills in."""

    key: str
    weight: float
    function: Callable[..., Any]
    options: Mapping[str, Any]
    rollout_arguments: Sequence[str]

    def value(self, arguments: Mapping[str, Any]) -> float | None:
        """The function's value, not weighted; None = it cannot judge the rollout."""
        selected = {name: arguments[name] for name in self.rollout_arguments}
        try:
            value = self.function(**selected, **self.options)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            cause = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(
                f"{self.key}: the function failed at {frame.filename}:{frame.lineno} ({cause}); "
                "mend it, or return None for such a rollout"
            ) from error
        if value is None:
            return None
        number = finite_float(value)
        if number is None:
            shown = " ".join(repr(value).split())[:80]
            raise UserError(
                f"{self.key}: the function returned {shown}; return a finite number, or None where "
                "it cannot judge"
            )
        return number


class WeightedRewards:
    """The weighted sum of a config's reward terms.

    Args:
        terms: By name: `_target_`, `weight` and the function's options.
        max_new_tokens: Most tokens of a completion.
        key: The config key that holds the terms, for errors.
        thought_prefix: What the chat template writes of the thought, e.g. `<think>` and a newline.

    Raises:
        UserError: There is no term, every weight is 0, a function does not exist or asks for an
            argument that no rollout has, or an option or a weight is impossible.
    """

    def __init__(
        self, terms: Mapping[str, Any], max_new_tokens: int, key: str, thought_prefix: str = ""
    ) -> None:
        if not terms:
            raise UserError(f"{key}: there is no reward; name at least one")
        self._terms = {
            name: _term(options, max_new_tokens, f"{key}.{name}") for name, options in terms.items()
        }
        if not any(term.weight for term in self._terms.values()):
            raise UserError(f"{key}: every weight is 0, so nothing is rewarded; raise one")
        self._max_new_tokens = max_new_tokens
        self._thought_prefix = thought_prefix

    def terms(self, rollout: Rollout) -> dict[str, float] | None:
        """Each term's weighted value, by name; their sum is the rollout's reward.

        Returns:
            None where a term cannot judge the rollout.

        Raises:
            UserError: A term's function failed, or returned something other than a finite number.
        """
        arguments = self._arguments(rollout)
        weighted = {}
        for name, term in self._terms.items():
            value = term.value(arguments)
            if value is None:
                return None
            weighted[name] = term.weight * value
        return weighted

    def declining_key(self, rollout: Rollout) -> str | None:
        """Config key of the first term that cannot judge the rollout; None = all of them can."""
        arguments = self._arguments(rollout)
        declining = (term for term in self._terms.values() if term.value(arguments) is None)
        return next((term.key for term in declining), None)

    def _arguments(self, rollout: Rollout) -> dict[str, Any]:
        return {
            "prompt": rollout.problem.prompt,
            "completion": rollout.completion.text,
            "gold": rollout.problem.gold,
            "problem": rollout.problem,
            "verdict": rollout.verdict,
            "passed_frac": rollout.passed_frac,
            "truncated": rollout.completion.truncated,
            "completion_tokens": len(rollout.completion.token_ids),
            "max_new_tokens": self._max_new_tokens,
            "thought_prefix": self._thought_prefix,
        }


def _term(config: Any, max_new_tokens: int, key: str) -> RewardTerm:
    """The term that a config describes, with every option checked."""
    if not isinstance(config, Mapping) or not isinstance(config.get("_target_"), str):
        raise UserError(f"{key}: there is no _target_; name a function, or remove it by ~{key}")
    options = dict(config)
    target, weight = options.pop("_target_"), options.pop("weight", 1.0)
    function = resolve(target, f"{key}._target_")
    if finite_option(weight) is None:
        raise UserError(f"{key}.weight: {weight!r} is not a finite number; give one such as 1.0")
    parameters = _checked_parameters(function, target, options, key)
    if function in OPTION_CHECKS:
        defaults = {parameter.name: parameter.default for parameter in parameters}
        all_options = {**defaults, "max_new_tokens": max_new_tokens, **options}
        OPTION_CHECKS[function](all_options, float(weight), key)
    rollout_arguments = [
        parameter.name
        for parameter in parameters
        if parameter.name in ROLLOUT_ARGUMENTS and parameter.name not in options
    ]
    return RewardTerm(key, float(weight), function, options, rollout_arguments)


def _checked_parameters(
    function: Callable[..., Any], target: str, options: Mapping[str, Any], key: str
) -> list[inspect.Parameter]:
    """The function's named parameters, which every option and rollout must fit."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise UserError(f"{key}._target_: '{target}' is not a function; name one") from error
    named = [parameter for parameter in parameters if parameter.kind not in _VARIADIC]
    for parameter in named:
        is_required = parameter.default is inspect.Parameter.empty
        if is_required and parameter.name not in (*options, *ROLLOUT_ARGUMENTS):
            raise UserError(
                f"{key}: '{target}' asks for '{parameter.name}', which no rollout has; "
                f"give it as an option, or ask for {', '.join(ROLLOUT_ARGUMENTS)}"
            )
    names = [parameter.name for parameter in named]
    accepts_any = any(item.kind is inspect.Parameter.VAR_KEYWORD for item in parameters)
    for name in options:
        if name not in names and not accepts_any:
            known = ", ".join(other for other in names if other not in ROLLOUT_ARGUMENTS) or "none"
            raise UserError(f"{key}.{name}: '{target}' has no such option; there is {known}")
    return named
