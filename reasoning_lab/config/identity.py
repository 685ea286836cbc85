"""Typed configs as plain data: what a fingerprint and a record hold.

A component, which is one implementation among several, carries its class's import path as
`_class_`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

_CLASS = "_class_"


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

    A field that is identity `when_set` is left out while it is null: it then decides nothing.
    """

    def decides(item: dataclasses.Field[Any], content: Any) -> bool:
        unset = item.metadata.get("when_set", False) and content is None
        return not unset and not item.metadata.get("placement", False)

    return _plain(value, decides, str)


def as_plain(value: Any) -> Any:
    """`value` as plain data, placement included; for records and trackers."""
    return _plain(value, lambda item, content: True, lambda key: key)


def _plain(
    value: Any,
    wanted: Callable[[dataclasses.Field[Any], Any], bool],
    key_of: Callable[[Any], Any],
) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        tag = {_CLASS: f"{kind.__module__}.{kind.__qualname__}"}
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
