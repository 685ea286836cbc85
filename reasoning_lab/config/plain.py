"""Typed configs as plain data and back: what a fingerprint, a record and a job's file hold.

A component, which is one implementation among several, carries its class's import path as
`_schema_`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from reasoning_lab.config.components import Component
from reasoning_lab.config.targets import resolve
from reasoning_lab.types import UserError

_SCHEMA = "_schema_"


def identity_of(value: Any) -> Any:
    """`value` as plain data without its placement fields; what a fingerprint is made of.

    A field that is identity `when_set` is left out while it is null: it then decides nothing.
    """

    def decides(item: dataclasses.Field[Any], content: Any) -> bool:
        unset = item.metadata.get("when_set", False) and content is None
        return not unset and not item.metadata.get("placement", False)

    return _plain(value, decides, str)


def as_plain(value: Any) -> Any:
    """`value` as plain data, placement included; for records, trackers and `from_plain`."""
    return _plain(value, lambda item, content: True, lambda key: key)


def from_plain(schema: Any, plain: Mapping[str, Any]) -> Any:
    """The `schema`, or the component below it, whose `as_plain` is `plain`.

    Raises:
        UserError: It names a schema that a config may not name.
    """
    typed = _typed_parts(plain)
    return OmegaConf.to_object(
        typed if _SCHEMA in plain else OmegaConf.merge(_blank(schema), typed)
    )


def _plain(
    value: Any,
    wanted: Callable[[dataclasses.Field[Any], Any], bool],
    key_of: Callable[[Any], Any],
) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        tag = {_SCHEMA: f"{kind.__module__}.{kind.__qualname__}"}
        return (tag if isinstance(value, Component) else {}) | {
            item.name: _plain(getattr(value, item.name), wanted, key_of)
            for item in dataclasses.fields(value)
            if wanted(item, getattr(value, item.name))
        }
    if isinstance(value, Mapping):
        return {key_of(key): _plain(item, wanted, key_of) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, wanted, key_of) for item in value]
    return value


def _typed_parts(plain: Any) -> Any:
    """`plain` with a typed node in the place of every component."""
    if isinstance(plain, list):
        return [_typed_parts(item) for item in plain]
    if not isinstance(plain, Mapping):
        return plain
    content = {key: _typed_parts(item) for key, item in plain.items() if key != _SCHEMA}
    if _SCHEMA not in plain:
        return content
    path = str(plain[_SCHEMA])
    schema = resolve(path, _SCHEMA)
    if not (isinstance(schema, type) and issubclass(schema, Component)):
        raise UserError(f"{_SCHEMA}: '{path}' is no schema of a component; name one")
    return OmegaConf.merge(_blank(schema), content)


def _blank(schema: Any) -> DictConfig:
    """Its defaults, without those of free mappings, to which a merge would add."""
    node: DictConfig = OmegaConf.structured(schema)
    _empty_mappings(node)
    return node


def _empty_mappings(node: DictConfig) -> None:
    for key in node:
        child = None if OmegaConf.is_missing(node, key) else node[key]
        if isinstance(child, DictConfig) and OmegaConf.get_type(child) is dict:
            node[key] = {}
        elif isinstance(child, DictConfig):
            _empty_mappings(child)
