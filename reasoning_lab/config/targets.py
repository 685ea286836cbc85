"""`_target_` keys: which import paths a config may name, and how they are resolved.

A config can come with data from elsewhere, so it names only code of these packages, and of those
that the machine's user trusts: the environment says so, which no config can change.
"""

import importlib
import inspect
import os
import types
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from reasoning_lab.config.identity import CLASS_KEY
from reasoning_lab.system.files import sha256
from reasoning_lab.types import UserError

T = TypeVar("T")

ALLOWED_PREFIXES = ("reasoning_lab.", "torch.optim.")
# Names of packages, separated by commas.
TRUSTED_VARIABLE = "REASONING_LAB_TRUSTED"


def resolve(path: str, key: str) -> Callable[..., Any]:
    """Import the object at `path`, which the config key `key` names.

    Raises:
        UserError: The path is not allowed, or there is nothing there.
    """
    check_path(path, key)
    module, _, name = path.rpartition(".")
    try:
        target: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{key}: there is no '{path}' ({error}); check the spelling") from error
    return target


def factory(options: Mapping[str, Any], key: str) -> Callable[..., Any]:
    """The object that `options["_target_"]` names, with the other options bound."""
    arguments = dict(options)
    if "_target_" not in arguments:
        raise UserError(f"{key}: there is no _target_; name what to build")
    return partial(resolve(arguments.pop("_target_"), f"{key}._target_"), **arguments)


def check_arguments(path: str, arguments: Mapping[str, Any], key: str) -> None:
    """Raise UserError unless the class or function at `path` takes exactly these arguments.

    `key` of the config holds `_target_` and `options`.
    """
    target = resolve(path, f"{key}._target_")
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError) as error:
        raise UserError(f"{key}._target_: '{path}' cannot be called; name a class") from error
    try:
        signature.bind(**arguments)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "no arguments"
        raise UserError(
            f"{key}.options: {error} of '{path}'; it takes {takes}; correct the options"
        ) from error


def check_path(path: str, key: str) -> None:
    """Raise UserError unless a config may name `path`; imports nothing."""
    allowed = (*ALLOWED_PREFIXES, *(f"{name}." for name in trusted_packages()))
    if not path.startswith(allowed):
        raise UserError(
            f"{key}: '{path}' may not be named in a config; use one that begins with "
            f"{' or '.join(allowed)}, or name its package in {TRUSTED_VARIABLE}"
        )


def import_trusted() -> None:
    """Import every package that the user trusts, which registers the schemas of its stages.

    Raises:
        UserError: There is no such package.
    """
    for name in trusted_packages():
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise UserError(
                f"{TRUSTED_VARIABLE}: '{name}' cannot be imported ({error}); install it, or put "
                "the folder that holds it into PYTHONPATH"
            ) from error


def trusted_packages() -> list[str]:
    """Their names, as the environment gives them."""
    names = os.environ.get(TRUSTED_VARIABLE, "").split(",")
    return [name.strip() for name in names if name.strip()]


def trusted_folders() -> list[Path]:
    """Where those packages lie, which are imported when first needed."""
    specs = [find_spec(name) for name in trusted_packages()]
    return [Path(spec.origin).parent for spec in specs if spec is not None and spec.origin]


def is_trusted(path: str) -> bool:
    """Whether `path` is code of the user's own."""
    return path.startswith(tuple(f"{name}." for name in trusted_packages()))


def user_code_hashes(value: Any) -> dict[str, str]:
    """The user's own code that a config names: import path to sha256 of its module's file.

    Only that file counts; what it imports may change without notice.
    """
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return {path: digest for item in value for path, digest in user_code_hashes(item).items()}
    if not isinstance(value, str) or not is_trusted(value):
        return {}
    try:
        spec = find_spec(value.rpartition(".")[0])
    except ModuleNotFoundError:
        spec = None
    return {value: sha256(Path(spec.origin))} if spec is not None and spec.origin else {}


def from_plain(kind: type[T], plain: Any) -> T:
    """The value of type `kind` that `as_plain(value, tagged=object)` gave.

    Raises:
        UserError: It names a class that a config may not name.
    """
    value: T = _typed(kind, plain)
    return value


def _typed(kind: Any, plain: Any) -> Any:
    if isinstance(plain, Mapping) and CLASS_KEY in plain:
        cls: Any = resolve(plain[CLASS_KEY], CLASS_KEY)
        hints = get_type_hints(cls)
        return cls(**{key: _typed(hints[key], plain[key]) for key in plain if key != CLASS_KEY})
    arguments = get_args(kind)
    if get_origin(kind) in (Union, types.UnionType):
        members = [member for member in arguments if member is not types.NoneType]
        # Several members are scalars, such as `str | int`, which YAML tells apart by itself.
        return plain if plain is None or len(members) > 1 else _typed(members[0], plain)
    if isinstance(plain, Mapping):
        item = arguments[1] if arguments else Any
        return {key: _typed(item, value) for key, value in plain.items()}
    if isinstance(plain, list):
        item = arguments[0] if arguments else Any
        items = [_typed(item, value) for value in plain]
        return tuple(items) if get_origin(kind) is tuple else items
    if isinstance(kind, type) and issubclass(kind, Path | Enum):
        return kind(plain)
    return plain
