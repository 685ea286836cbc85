"""Whether a JSON value fits a schema: the part of JSON Schema (2020-12) that needs no patterns.

A schema of a dataset is hostile, so regular expressions and references are left out. A keyword
that is not checked here makes a schema unreadable, except for annotations such as `title`.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_ANNOTATIONS = frozenset(
    ("$comment", "$id", "$schema", "default", "deprecated", "description", "examples", "title")
)
_MAX_DEPTH = 32


def _is_integer(value: Any) -> bool:
    is_whole = isinstance(value, float) and value.is_integer()
    return (isinstance(value, int) and not isinstance(value, bool)) or is_whole


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "array": lambda value: isinstance(value, list),
    "boolean": lambda value: isinstance(value, bool),
    "integer": _is_integer,
    "null": lambda value: value is None,
    "number": _is_number,
    "object": lambda value: isinstance(value, dict),
    "string": lambda value: isinstance(value, str),
}
# Keyword to what it bounds, and how.
_SIZES: Mapping[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "minItems": ("array", operator.ge),
    "maxItems": ("array", operator.le),
    "minLength": ("string", operator.ge),
    "maxLength": ("string", operator.le),
    "minProperties": ("object", operator.ge),
    "maxProperties": ("object", operator.le),
}
_BOUNDS: Mapping[str, Callable[[Any, Any], bool]] = {
    "minimum": operator.ge,
    "maximum": operator.le,
    "exclusiveMinimum": operator.gt,
    "exclusiveMaximum": operator.lt,
}
_APPLICATORS = ("additionalProperties", "anyOf", "items", "properties")
_KEYWORDS = frozenset(("type", "enum", "const", "required", *_APPLICATORS, *_SIZES, *_BOUNDS))


def check_schema(schema: Any, depth: int = 0) -> None:
    """Raise ValueError for a schema that `matches_schema` cannot check."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping):
        raise ValueError(f"{_shown(schema)} is no schema; give an object")
    if depth > _MAX_DEPTH:
        raise ValueError(f"it is nested more than {_MAX_DEPTH} deep")
    for keyword, value in schema.items():
        if keyword in _ANNOTATIONS:
            continue
        if keyword not in _KEYWORDS:
            listed = ", ".join(sorted(_KEYWORDS))
            raise ValueError(f"'{keyword}' is not checked; choose among {listed}")
        if not _is_readable(keyword, value):
            raise ValueError(f"'{keyword}' is {_shown(value)}, which it cannot be")
        for part in _parts(keyword, value):
            check_schema(part, depth + 1)


def _is_readable(keyword: str, value: Any) -> bool:
    """Whether the keyword may have the value, whose own schemas are not looked at."""
    if keyword == "type":
        names = value if isinstance(value, list) else [value]
        return bool(names) and all(isinstance(name, str) and name in _TYPES for name in names)
    if keyword in ("enum", "anyOf"):
        return isinstance(value, list) and bool(value)
    if keyword == "required":
        return isinstance(value, list) and all(isinstance(name, str) for name in value)
    if keyword == "properties":
        return isinstance(value, Mapping)
    if keyword in _SIZES:
        return _is_integer(value) and value >= 0
    return _is_number(value) if keyword in _BOUNDS else True


def _parts(keyword: str, value: Any) -> Sequence[Any]:
    """The schemas inside a keyword."""
    if keyword in ("items", "additionalProperties"):
        return [value]
    if keyword == "anyOf":
        return list(value)
    return list(value.values()) if keyword == "properties" else []


def matches_schema(value: Any, schema: Mapping[str, Any] | bool) -> bool:
    """Whether a parsed JSON value fits a schema that `check_schema` accepts."""
    if isinstance(schema, bool):
        return schema
    return all(
        _holds(keyword, wanted, value, schema)
        for keyword, wanted in schema.items()
        if keyword not in _ANNOTATIONS
    )


def _holds(keyword: str, wanted: Any, value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether one keyword of a schema allows the value."""
    if keyword == "type":
        names = [wanted] if isinstance(wanted, str) else wanted
        return any(_TYPES[name](value) for name in names)
    if keyword in ("enum", "const"):
        return any(_are_equal(value, one) for one in (wanted if keyword == "enum" else [wanted]))
    if keyword == "anyOf":
        return any(matches_schema(value, one) for one in wanted)
    if keyword in _SIZES:
        kind, compare = _SIZES[keyword]
        return not _TYPES[kind](value) or compare(len(value), wanted)
    if keyword in _BOUNDS:
        return not _is_number(value) or _BOUNDS[keyword](value, wanted)
    if keyword == "items":
        return not isinstance(value, list) or all(matches_schema(item, wanted) for item in value)
    if not isinstance(value, dict):
        return True
    if keyword == "required":
        return all(name in value for name in wanted)
    if keyword == "properties":
        return all(matches_schema(value[name], wanted[name]) for name in wanted if name in value)
    further = (value[name] for name in value if name not in schema.get("properties", {}))
    return all(matches_schema(item, wanted) for item in further)


def _are_equal(value: Any, other: Any) -> bool:
    """Equality of JSON values, for which true is not 1. `other` is not deep, `value` may be."""
    if _is_number(value) and _is_number(other):
        return bool(value == other)
    if isinstance(value, list) and isinstance(other, list):
        return len(value) == len(other) and all(map(_are_equal, value, other))
    if isinstance(value, dict) and isinstance(other, Mapping):
        return value.keys() == other.keys() and all(_are_equal(value[k], other[k]) for k in value)
    return type(value) is type(other) and bool(value == other)


def _shown(value: Any) -> str:
    return repr(value)[:60]
