"""Every key of the config is documented where it is declared."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from reasoning_lab.commands.reference import field_docs, nested_schemas, reference
from reasoning_lab.commands.schemas import register_schemas
from reasoning_lab.config.folder import CONF
from tests.conftest import lab


def registered(tree: dict[str, Any]) -> Iterator[type[Any]]:
    """The dataclasses of this package below a folder of Hydra's store."""
    for entry in tree.values():
        if isinstance(entry, dict):
            yield from registered(entry)
            continue
        schema = OmegaConf.get_type(entry.node)
        if schema is not None and schema.__module__.startswith("reasoning_lab."):
            yield schema


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
                pending += nested_schemas(hints[item.name])
    return sorted(seen, key=lambda schema: schema.__qualname__)


def test_nested_and_registered_schemas_are_walked() -> None:
    names = {schema.__name__ for schema in schemas()}
    assert {"RootConfig", "PathsConfig", "AdapterConfig", "LabStage", "RLStage", "KLConfig"} < names
    assert {"HubConfig", "RowMapping", "VLLMEngineConfig", "SlurmConfig", "AdamWConfig"} < names


@pytest.mark.parametrize("schema", schemas(), ids=lambda schema: schema.__name__)
def test_every_field_has_its_line(schema: type[Any]) -> None:
    fields = [item.name for item in dataclasses.fields(schema)]
    assert [name for name in fields if not field_docs(schema).get(name)] == []


def test_the_reference_is_what_the_command_prints(tmp_path: Path) -> None:
    """Else: `reasoning-lab reference > conf/REFERENCE.md`; other tests register schemas here."""
    code, printed, err = lab("reference", cwd=tmp_path)
    assert code == 0, err
    assert printed == (CONF / "REFERENCE.md").read_text(encoding="utf-8")


def test_the_reference_has_every_key_of_the_root_and_of_a_stage() -> None:
    register_schemas()
    text = reference()
    for key in ("hardware.sampling.url`°", "kl.weight`", "filter.balance`", "protocol.samples`"):
        assert f"| `{key}" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| `max_ratio`")]
    assert (
        row == "| `max_ratio` | number, 1 or more | `20.0` | Where an importance weight is cut. |"
    )
