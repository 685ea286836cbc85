"""Plain data back into typed configs: how a stage's own processes read their job."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from reasoning_lab.config.plain import SCHEMA, Component
from reasoning_lab.config.targets import resolve
from reasoning_lab.types import UserError


def from_plain(schema: Any, plain: Mapping[str, Any]) -> Any:
    """The `schema`, or the component below it, whose `as_plain` is `plain`.

    Raises:
        UserError: It names a schema that a config may not name.
    """
    typed = _typed_parts(plain)
    return OmegaConf.to_object(typed if SCHEMA in plain else OmegaConf.merge(_blank(schema), typed))


def _typed_parts(plain: Any) -> Any:
    """`plain` with a typed node in the place of every component."""
    if isinstance(plain, list):
        return [_typed_parts(item) for item in plain]
    if not isinstance(plain, Mapping):
        return plain
    content = {key: _typed_parts(item) for key, item in plain.items() if key != SCHEMA}
    if SCHEMA not in plain:
        return content
    path = str(plain[SCHEMA])
    schema = resolve(path, SCHEMA)
    if not (isinstance(schema, type) and issubclass(schema, Component)):
        raise UserError(f"{SCHEMA}: '{path}' is no schema of a component; name one")
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
