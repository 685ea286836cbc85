"""`_target_` keys: which import paths a config may name, and how they are resolved.

A config can come with data from elsewhere, so it names only code of these packages, and of those
that the machine's user trusts: the environment says so, which no config can change.
"""

import importlib
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from reasoning_lab.types import UserError

ALLOWED_PREFIXES = ("reasoning_lab.", "torch.optim.")
# Names of packages, separated by commas.
TRUSTED_VARIABLE = "REASONING_LAB_TRUSTED"


def resolve(path: str, key: str) -> Callable[..., Any]:
    """Import the object at `path`.

    Args:
        path: Dotted import path.
        key: The config key that names it, for the error.

    Raises:
        UserError: When the path is not allowed or there is nothing there.
    """
    check_path(path, key)
    module, _, name = path.rpartition(".")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{key}: there is no '{path}' ({error}); check the spelling") from error
    return found


def factory(options: Mapping[str, Any], key: str) -> Callable[..., Any]:
    """The object that `options["_target_"]` names, with the other options bound."""
    arguments = dict(options)
    if "_target_" not in arguments:
        raise UserError(f"{key}: there is no _target_; name what to build")
    return partial(resolve(arguments.pop("_target_"), f"{key}._target_"), **arguments)


def check_path(path: str, key: str) -> None:
    """Raise UserError unless a config may name `path`; imports nothing."""
    trusted = [name.strip() for name in os.environ.get(TRUSTED_VARIABLE, "").split(",")]
    allowed = (*ALLOWED_PREFIXES, *(f"{name}." for name in trusted if name))
    if not path.startswith(allowed):
        raise UserError(
            f"{key}: '{path}' may not be named in a config; use one that begins with "
            f"{' or '.join(allowed)}, or name its package in {TRUSTED_VARIABLE}"
        )
