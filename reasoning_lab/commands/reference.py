"""The subcommand `reference`: every key that a config can have, as Markdown.

Keys, defaults and bounds are the fields of the schemas, and the text of a key is its line in the
schema's docstring. `conf/REFERENCE.md` is what it prints.
"""

import dataclasses
import inspect
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from reasoning_lab.config.identity import Component
from reasoning_lab.training.stage import LabStage
from reasoning_lab.types import UserError

_ATTRIBUTES = re.compile(r"^Attributes:\n((?:    .*\n?|\n)*)", re.MULTILINE)
_LINE = re.compile(r"^    (\w+): +(.*(?:\n {6,}.*)*)", re.MULTILINE)
_KINDS: Mapping[Any, str] = {
    **{int: "integer", float: "number", bool: "true, false", str: "text"},
    **{list: "list", dict: "mapping"},
}
_HEAD = """\
# Reference of keys

Written by `reasoning-lab reference`. An option file of `conf` may set another default;
`reasoning-lab --cfg job` prints the values of a run. A key marked ° never changes a fingerprint.
A default of `???` must be given, by an option or by you.
"""


def main(arguments: Sequence[str]) -> None:
    """Print the reference; `REASONING_LAB_TRUSTED` adds stages and components of your own."""
    if arguments:
        raise UserError(f"{arguments[0]}: reference takes no argument; leave it out")
    print(reference())


def reference() -> str:
    """All tables: the root, what every stage has, each stage, the other groups, shared parts."""
    schemas = dict(_schemas())
    shared = _shared(schemas.values())
    root = schemas.pop("root")
    parts = [_HEAD, _section("Root", root, shared), _section("Every stage", LabStage, shared)]
    for name, schema in schemas.items():
        if issubclass(schema, LabStage):
            parts.append(_section(f"Stage `{name}`", schema, shared, hidden=LabStage))
        else:
            parts.append(_section(f"`{name}`", schema, shared))
    parts += [_section(schema.__name__, schema, shared) for schema in shared]
    return "\n\n".join(part.strip() for part in parts)


def _section(
    title: str, schema: type[Any], shared: Sequence[type[Any]], hidden: type[Any] | None = None
) -> str:
    """A heading, the schema's summary and its table, without the fields of `hidden`."""
    summary = (inspect.getdoc(schema) or "").partition("\n\n")[0]
    if extended := _extended(schema):
        summary += f" Its other keys are those of [`{extended.name}`](#stage-{extended.name})."
    skipped = {item.name for item in dataclasses.fields(hidden)} if hidden else set()
    rows = _rows(schema, shared, skipped=skipped)
    table = ["| key | value | default | meaning |", "|:--|:--|:--|:--|", *rows] if rows else []
    return "\n".join([f"## {title}", "", summary, "", *table])


def field_docs(schema: type[Any]) -> dict[str, str]:
    """The line of each field under `Attributes:`, of the class or of one that it extends."""
    docs: dict[str, str] = {}
    for cls in reversed(schema.__mro__):
        section = _ATTRIBUTES.search(inspect.cleandoc(vars(cls).get("__doc__") or ""))
        lines = _LINE.findall(section[1]) if section else []
        docs |= {name: " ".join(text.split()) for name, text in lines}
    return docs


def nested_schemas(hint: Any) -> Iterator[type[Any]]:
    """The dataclasses that a type names, as `list[A] | None` names A."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        yield hint
    for argument in get_args(hint):
        yield from nested_schemas(argument)


def _schemas() -> Iterator[tuple[str, type[Any]]]:
    """Registered schemas: those without a group, then `group=option`."""
    tree: Mapping[str, Any] = ConfigStore.instance().repo["schema"]
    for name, entry in sorted(tree.items(), key=lambda item: (isinstance(item[1], dict), item[0])):
        nodes = entry if isinstance(entry, dict) else {name: entry}
        for option, node in sorted(nodes.items()):
            schema = OmegaConf.get_type(node.node)
            assert isinstance(schema, type)
            label = option.removesuffix(".yaml")
            yield (f"{name}={label}" if nodes is entry else label), schema


def _shared(schemas: Iterable[type[Any]]) -> list[type[Any]]:
    """Nested schemas that several places have: each gets a table of its own."""
    uses: Counter[type[Any]] = Counter()
    pending, seen = list(schemas), set(schemas)
    while pending:
        schema = pending.pop()
        for nested in (n for _, hint in _fields(schema) for n in nested_schemas(hint)):
            uses[nested] += 1
            if nested not in seen:
                seen.add(nested)
                pending.append(nested)
    several = [schema for schema, count in uses.items() if count > 1]
    return sorted((s for s in several if not _is_chosen(s)), key=lambda s: s.__name__)


def _fields(schema: type[Any]) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    """The fields with their types; of a stage that extends another, those that it declares."""
    hints, extended = get_type_hints(schema), _extended(schema)
    of_other = {item.name for item in dataclasses.fields(extended)} if extended else set()
    inherited = of_other - vars(schema).get("__annotations__", {}).keys()
    items = (item for item in dataclasses.fields(schema) if item.name not in inherited)
    return ((item, hints[item.name]) for item in items)


def _extended(schema: type[Any]) -> type[LabStage] | None:
    """The stage that a stage extends; None = it extends none that has an option."""
    stages = (cls for cls in schema.__mro__[1:] if issubclass(cls, LabStage))
    return next((cls for cls in stages if "name" in vars(cls)), None)


def _is_chosen(schema: type[Any]) -> bool:
    """Whether an option of a group says which implementation it is."""
    return issubclass(schema, Component | LabStage)


def _rows(
    schema: type[Any],
    shared: Sequence[type[Any]],
    prefix: str = "",
    skipped: Collection[str] = (),
) -> list[str]:
    rows, docs = [], field_docs(schema)
    for item, hint in _fields(schema):
        if item.name in skipped:
            continue
        key = f"{prefix}{item.name}"
        nested = next(nested_schemas(hint), None)
        value = _value(item, hint, nested, shared)
        mark = "°" if item.metadata.get("placement") else ""
        text = docs.get(item.name, "").replace("|", r"\|")
        default = "" if nested is not None else f"`{_default(item)}`"
        rows.append(f"| `{key}`{mark} | {value} | {default} | {text} |")
        is_one = nested is not None and (nested is hint or type(None) in get_args(hint))
        if nested is not None and is_one and nested not in shared and not _is_chosen(nested):
            rows += _rows(nested, shared, f"{key}.")
    return rows


def _value(
    item: dataclasses.Field[Any],
    hint: Any,
    nested: type[Any] | None,
    shared: Sequence[type[Any]],
) -> str:
    """What the key takes: choices, bounds, a type, or where the keys below it stand."""
    if nested is not None:
        if nested in shared:
            return f"[{nested.__name__}](#{nested.__name__.lower()})"
        return "an option" if _is_chosen(nested) else "keys"
    if choices := item.metadata.get("choices"):
        return ", ".join(f"`{choice}`" for choice in choices)
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not type(None)]
    kind = _KINDS.get(get_origin(hint)) or _KINDS.get(kinds[0], "any")
    if words := item.metadata.get("words"):
        listed = " or ".join(f"`{word}`" for word in words)
        return f"{_KINDS[int]}, {item.metadata['least']:g} or more; or {listed}"
    least, most = item.metadata.get("least"), item.metadata.get("most")
    if least is not None and most is not None:
        return f"{kind}, {least:g} to {most:g}" if most < 1e6 else f"{kind}, {least:g} to {most:,}"
    return kind if least is None else f"{kind}, {least:g} or more"


def _default(item: dataclasses.Field[Any]) -> str:
    if item.default_factory is not dataclasses.MISSING:
        value = item.default_factory()
    else:
        value = MISSING if item.default is dataclasses.MISSING else item.default
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value).replace("|", r"\|")
