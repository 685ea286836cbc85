"""Dataclasses as plain data and back by their types, for what is handed to another process."""

import dataclasses
import types
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from reasoning_lab.config.targets import resolve

T = TypeVar("T")
# The import path of a dataclass, as a field may hold a subclass of its declared type.
_CLASS = "_class_"


def to_plain(value: Any) -> Any:
    """`value` as dicts, lists and scalars; each dataclass names its class."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        cls = type(value)
        fields = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
        return {_CLASS: f"{cls.__module__}.{cls.__qualname__}", **to_plain(fields)}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [to_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value.value if isinstance(value, Enum) else value


def from_plain(kind: type[T], plain: Any) -> T:
    """The value of type `kind` that `to_plain` was given.

    Raises:
        UserError: It names a class that a config may not name.
    """
    value: T = _typed(kind, plain)
    return value


def _typed(kind: Any, plain: Any) -> Any:
    if isinstance(plain, Mapping) and _CLASS in plain:
        cls: Any = resolve(plain[_CLASS], _CLASS)
        hints = get_type_hints(cls)
        return cls(**{key: _typed(hints[key], plain[key]) for key in plain if key != _CLASS})
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
