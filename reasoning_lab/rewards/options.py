"""Checks of a reward's options, made when the config is read and not at the first rollout.

A reward function names its check with `@check_options`; one without a check accepts any option that
it has a parameter for.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from reasoning_lab.types import UserError

Function = TypeVar("Function", bound=Callable[..., Any])
# Takes all options with their defaults (`max_new_tokens` included), the weight and the config key.
OptionCheck = Callable[[Mapping[str, Any], float, str], None]

# By reward function.
OPTION_CHECKS: dict[Callable[..., Any], OptionCheck] = {}


def check_options(check: OptionCheck) -> Callable[[Function], Function]:
    """Decorate a reward function whose options `check` refuses when they are impossible."""

    def register(function: Function) -> Function:
        OPTION_CHECKS[function] = check
        return function

    return register


def finite_float(value: Any) -> float | None:
    """A returned value as a float; None = it is not a finite number."""
    if isinstance(value, str | bytes):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None
    return number if math.isfinite(number) else None


def finite_option(value: Any) -> float | None:
    """An option as a float; None = it is not a finite number. A bool is not a number here."""
    return None if isinstance(value, bool) else finite_float(value)


def check_not_reversed(options: Mapping[str, Any], weight: float, key: str) -> None:
    """Refuse a negative weight, for rewards whose opposite nobody wants."""
    if weight < 0:
        raise UserError(f"{key}.weight: {weight} reverses this reward; give 0 or more")
    check_token_limit(options, weight, key)


def check_token_limit(options: Mapping[str, Any], weight: float, key: str) -> None:
    """Refuse an impossible `max_new_tokens`, which a config may set for one reward."""
    check_whole_number(options, "max_new_tokens", key)


def check_whole_number(
    options: Mapping[str, Any], name: str, key: str, largest: int | None = None
) -> None:
    """Refuse anything but a whole number from 1 to `largest`; None = no upper bound."""
    value = options[name]
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or value < 1 or (largest is not None and value > largest):
        bounds = "1 or more" if largest is None else f"1 to {largest}, which is max_new_tokens"
        raise UserError(f"{key}.{name}: {value!r} is impossible; give a whole number, {bounds}")
