"""Typed configs as plain data: what a fingerprint, a record and a saved job hold.

A component, which is one implementation among several, carries its class's import path as
`_class_`. In a saved job every dataclass does, so that `config.targets.from_plain` reads it back.
"""

import dataclasses
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

CLASS_KEY = "_class_"


@dataclasses.dataclass
class Component:
    """Options of one implementation among several; a subclass adds its own."""

    def check(self, key: str) -> None:
        """Refuse options with which it cannot work; `key` is where they stand in the config."""

    def arguments(self) -> dict[str, Any]:
        """The options by name, nested parts as they are."""
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}


def identity_of(value: Any) -> Any:
    """`value` as plain data without its placement fields; what a fingerprint is made of.

    A field that is identity `when_set` is left out while it has its default, which decides nothing.
    """

    def decides(item: dataclasses.Field[Any], content: Any) -> bool:
        may_be_unset = item.metadata.get("when_set", False)
        unset = may_be_unset and identity_of(content) == identity_of(_default_of(item))
        return not unset and not item.metadata.get("placement", False)

    return _plain(value, Component, decides, str)


def _default_of(item: dataclasses.Field[Any]) -> Any:
    factory = item.default_factory
    return item.default if factory is dataclasses.MISSING else factory()


def as_plain(value: Any, tagged: type = Component) -> Any:
    """`value` as plain data, placement included; dataclasses that are `tagged` name their class."""
    return _plain(value, tagged, lambda item, content: True, lambda key: key)


def _plain(
    value: Any,
    tagged: type,
    wanted: Callable[[dataclasses.Field[Any], Any], bool],
    key_of: Callable[[Any], Any],
) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        tag = {CLASS_KEY: f"{kind.__module__}.{kind.__qualname__}"}
        return (tag if isinstance(value, tagged) else {}) | {
            item.name: _plain(getattr(value, item.name), tagged, wanted, key_of)
            for item in dataclasses.fields(value)
            if wanted(item, getattr(value, item.name))
        }
    if isinstance(value, Mapping):
        return {key_of(key): _plain(item, tagged, wanted, key_of) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, tagged, wanted, key_of) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value.value if isinstance(value, Enum) else value
