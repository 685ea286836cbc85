"""Every key of the config is documented where it is declared."""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from reasoning_lab.commands.compose import register_schemas

_ATTRIBUTES = re.compile(r"^Attributes:\n((?:    .*\n?|\n)*)", re.MULTILINE)
_LINE = re.compile(r"^    (\w+): +\S", re.MULTILINE)


def registered(tree: dict[str, Any]) -> Iterator[type[Any]]:
    """The dataclasses of this package below a folder of Hydra's store."""
    for entry in tree.values():
        if isinstance(entry, dict):
            yield from registered(entry)
            continue
        schema = OmegaConf.get_type(entry.node)
        if schema is not None and schema.__module__.startswith("reasoning_lab."):
            yield schema


def dataclasses_in(hint: Any) -> Iterator[type[Any]]:
    """The dataclasses that a type names, as `list[A] | None` names A."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        yield hint
    for argument in get_args(hint):
        yield from dataclasses_in(argument)


def schemas() -> list[type[Any]]:
    """Every registered schema and every dataclass nested in one."""
    register_schemas()
    pending = list(registered(ConfigStore.instance().repo["schema"]))
    seen: dict[type[Any], None] = {}
    while pending:
        schema = pending.pop()
        if schema not in seen:
            seen[schema] = None
            hints = get_type_hints(schema)
            for item in dataclasses.fields(schema):
                pending += dataclasses_in(hints[item.name])
    return sorted(seen, key=lambda schema: schema.__qualname__)


def documented(schema: type[Any]) -> set[str]:
    """Names with a line under `Attributes:`, of the class or of one that it extends."""
    names: set[str] = set()
    for cls in schema.__mro__:
        section = _ATTRIBUTES.search(inspect.cleandoc(vars(cls).get("__doc__") or ""))
        names |= set(_LINE.findall(section[1])) if section else set()
    return names


def test_nested_and_registered_schemas_are_walked() -> None:
    names = {schema.__name__ for schema in schemas()}
    assert {"RootConfig", "PathsConfig", "AdapterConfig", "LabStage", "RLStage", "KLConfig"} < names
    assert {"HubConfig", "RowMapping", "VLLMEngineConfig", "SlurmConfig", "AdamWConfig"} < names


@pytest.mark.parametrize("schema", schemas(), ids=lambda schema: schema.__name__)
def test_every_field_has_its_line(schema: type[Any]) -> None:
    fields = [item.name for item in dataclasses.fields(schema)]
    assert [name for name in fields if name not in documented(schema)] == []
