"""Rows in the layout of a dataset of the hub, where the dataset itself cannot be reached.

`layouts.jsonl` has one row of each dataset that conf names, with its real columns, nesting and
marks, and places for a text. The texts are made here: word problems with one-digit answers, some of
them solved wrongly. So a mapping that names a column that the dataset lacks is refused as it would
be by the dataset, and nobody's data is shipped.
"""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from reasoning_lab.data.sources.row_mapping import RowMapping

_FILE = Path(__file__).with_suffix(".jsonl")
_WORDS = {
    "name": "Ada Boris Chen Dina Emil Farah Gita Hugo Ines Jonas Kofi Lena Mira Nils Olga Pablo",
    "verb": "finds buys counts draws sees packs sells paints sorts carries",
    "kind": "red small old heavy round bright cheap wooden quiet long fresh plain",
    "thing": "apples boats cards doors eggs flags gloves hats keys lamps maps nuts pens rings tins",
    "place": "Lima Oslo Bern Accra Cairo Delhi Hanoi Kyoto Lagos Malmo Porto Quito Riga Seoul York",
}
_TOPICS = ("Algebra", "Number Theory", "Geometry", "Prealgebra")
_SCIENCES = ("Physics", "Chemistry", "Biology")
_LEVELS = 5


def layout_rows(
    dataset: str, config: str | None, split: str, count: int
) -> list[dict[str, Any]] | None:
    """So many rows as the dataset has them under its split; None = its layout is not known.

    An empty list says that the dataset has no such configuration or split.
    """
    layouts = [json.loads(line) for line in _FILE.read_text(encoding="utf-8").splitlines()]
    known = [layout for layout in layouts if layout["dataset"] == dataset]
    if not known:
        return None
    fitting = [one for one in known if one["config"] == config and split in one["splits"]]
    row = fitting[0]["row"] if fitting else None
    texts = _texts(f"{dataset}/{config}/{split}", count)
    return [] if row is None else [_filled(row, one) for one in texts]


def assumed_rows(
    mapping: RowMapping, levels: Sequence[int], name: str, count: int
) -> list[dict[str, Any]]:
    """So many rows that have what the mapping names, for a dataset whose layout is not known.

    Args:
        mapping: Which column holds what.
        levels: Those that a stage may ask for.
        name: Decides the texts.
        count: Number of rows.
    """
    solution = "<think>\n{work}\n</think>\n\\boxed{{gold}}"
    golds = {"whole": "{gold}", "boxed": "\\boxed{{gold}}"}
    gold = golds.get(mapping.gold_in, f"{{work}} {mapping.gold_in.removeprefix('after ')} {{gold}}")
    ids, arguments = ["keywords:existence"], [{"keywords": ["{gold}"], "letter": None}]
    listed = [{"id": ids[0], **arguments[0]}]
    values: dict[str | None, Any] = {
        mapping.instructions: listed if mapping.instruction_arguments is None else ids,
        mapping.instruction_arguments: arguments,
        mapping.checker_column: mapping.checker,
        mapping.family_column: "{topic}",
        mapping.domain_column: "{topic}",
        mapping.options: "{choices}",
        mapping.solutions: [solution, solution.replace("{gold}", "{wrong}")],
        mapping.thought: "{work}",
        **dict(zip(mapping.shuffled, _wrong_texts(), strict=False)),
    }
    if mapping.solutions == mapping.gold or mapping.thought is not None:
        values[mapping.solutions] = f"{{work}} {gold}"
    if mapping.solutions != mapping.gold:
        values[mapping.gold] = "{letter}" if mapping.options is not None else gold
    values[mapping.prompt] = "{prompt}"
    if mapping.tests:
        values |= _program_values(mapping)
    rows = []
    for number, texts in enumerate(_texts(name, count)):
        row: dict[str, Any] = {}
        selected = {
            column: wanted[number % len(wanted)] if isinstance(wanted, list) else wanted
            for column, wanted in mapping.only.items()
        }
        if isinstance(mapping.level, str):
            selected = {mapping.level: levels[number % len(levels)], **selected}
        for column, value in (values | selected).items():
            if column is not None:
                _put(row, column.split("."), value)
        rows.append(_filled(row, texts))
    return rows


def _program_values(mapping: RowMapping) -> dict[str | None, Any]:
    """What the columns of a program and its tests hold."""
    body = "    return number"
    parts: dict[str, Any] = {
        "shown": ["assert same({gold}) == {gold}"],
        "hidden": ["assert same({wrong}) == {wrong}"],
        "setup": "",
        "entry_point": "same",
    }
    columns: dict[str | None, Any] = {column: parts[part] for part, column in mapping.tests.items()}
    if "entry_point" in mapping.tests:
        return {**columns, mapping.prompt: "def same(number):\n    # {prompt}", mapping.gold: body}
    return {**columns, mapping.gold: f"def same(number):\n{body}"}


def _wrong_texts() -> list[str]:
    """Of as many wrong choices as a mapping may name."""
    return ["{wrong}", "{far}", "{farther}", *(f"{number}00" for number in range(1, 23))]


def _put(row: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set the value at a dotted path; a step into messages by role becomes a list of messages."""
    step, *rest = path
    if rest and rest[0] in ("system", "user", "assistant"):
        messages = row.setdefault(step, [])
        message = {"role": rest[0]}
        messages.append(message)
        _put(message, rest[1:] or ["content"], value)
    elif rest:
        _put(row.setdefault(step, {}), rest, value)
    else:
        row[step] = value


def _texts(seed: str, count: int) -> list[dict[str, Any]]:
    """What fills the places of each row; no two have the same prompt."""
    rng = random.Random(seed)
    texts: dict[str, dict[str, Any]] = {}
    while len(texts) < count:
        first, second = rng.randint(1, 4), rng.randint(1, 5)
        name, verb, kind, _, place = (rng.choice(words.split()) for words in _WORDS.values())
        thing, other = rng.sample(_WORDS["thing"].split(), 2)
        elsewhere = rng.choice(_WORDS["place"].split())
        prompt = (
            f"{name} {verb} {first} {kind} {thing} near {elsewhere}, then {second} {other} in "
            f"{place}. How many is that?"
        )
        gold = first + second
        begin = f"There are {first} {thing} to begin with.\n{second} {other} come in {place}."
        # A digit beside the right one, so that a guess is right now and then.
        wrong = gold - 1 if len(texts) % 2 else gold + 1
        choices = [str(number) for number in (gold, wrong, gold + 20, gold + 30, gold + 40)]
        rng.shuffle(choices)
        row = len(texts)
        texts.setdefault(
            prompt,
            {
                "prompt": prompt,
                "gold": str(gold),
                "wrong": str(wrong),
                "far": str(gold + 20),
                "farther": str(gold + 30),
                "work": f"{begin}\n{first} + {second} = {gold}, which is all.",
                "wrong_work": f"{begin}\n{first} + {second} = {wrong}, which is all.",
                "letter": ascii_uppercase[choices.index(str(gold))],
                "place": choices.index(str(gold)),
                "labelled": [f"{ascii_uppercase[i]}){text}" for i, text in enumerate(choices)],
                "choices": choices,
                "number": gold,
                "row": row,
                "difficulty": row % _LEVELS + 1,
                "level": str(row % _LEVELS + 1),
                "topic": _TOPICS[row % len(_TOPICS)],
                "science": _SCIENCES[row % len(_SCIENCES)],
                "id": f"{row:04d}",
            },
        )
    return list(texts.values())


def _filled(value: Any, texts: Mapping[str, Any]) -> Any:
    """`value` with its places filled; a text that is one place takes that place's own type."""
    if isinstance(value, Mapping):
        return {key: _filled(item, texts) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, texts) for item in value]
    if not isinstance(value, str):
        return value
    if value[:1] == "{" and value[1:-1] in texts:
        return texts[value[1:-1]]
    for name, text in texts.items():
        value = value.replace(f"{{{name}}}", str(text))
    return value
