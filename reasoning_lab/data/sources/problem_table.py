"""The table of a dataset's problems: which rows are used, and why the others are not.

`table_source.py` builds it with one row for each row of the dataset. A cached table therefore
still counts every dropped row by its reason.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from reasoning_lab.data.sources.readers import Read, ReadRow
from reasoning_lab.data.sources.row_mapping import RowMapping
from reasoning_lab.data.sources.row_values import RowError, missing_column, root_of
from reasoning_lab.data.sources.unreadable import UnreadablePolicy
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.types import Split, UserError

SPLITS = tuple(Split)
# Values of the column `split`: the prompt's hash decides the split; the row is not used.
HASHED, UNUSED = -1, -2
TEXTS = ("prompt", "gold", "checker", "family", "metadata")
# Reasons that a mapping asks for; every other reason is a row that cannot be read.
FILTERED, NO_GOLD = "filtered", "no_gold"
DUPLICATE, CONFLICT = "duplicate_prompt", "conflicting_gold"
_SHOWN_COMPLAINTS = 3
# So many unreadable rows at the start mean a wrong mapping, not single bad rows.
_MAX_UNREADABLE_START = 1000


def read_table(
    read: Callable[..., Read],
    arguments: Mapping[str, Any],
    columns: RowMapping,
    corrections: Mapping[str, Mapping[str, str]],
    code: str,
) -> Iterator[dict[str, Any]]:
    """Yield one row of the table for each row of the dataset; an unused row holds its reason."""
    unseen = columns.columns()
    used = [*unseen, columns.level] if isinstance(columns.level, str) else list(unseen)
    seen: Sequence[str] = ()
    total = readable = unreadable = 0
    for row in read(**arguments, used=used):
        total += 1
        if unseen and not isinstance(row.content, RowError):
            seen = list(row.content) if row.columns is None else row.columns
            unseen = {name: key for name, key in unseen.items() if root_of(name, seen) is None}
        try:
            entry = _table_row(row, columns, corrections)
            readable += entry["split"] != UNUSED
        except RowError as error:
            unreadable += 1
            if not readable and unreadable >= _MAX_UNREADABLE_START:
                raise UserError(
                    f"{error.with_place(row.place)}; not one of {unreadable:,} rows can be read"
                ) from error
            entry = _dropped(row, error.reason, error.with_place(row.place).message)
        yield entry
    if not total:
        name = arguments.get("path") or arguments.get("dataset")
        raise UserError(f"data.path: there are no rows in '{name}'; give a dataset that has some")
    for column, key in unseen.items():
        if seen:
            without = f", or write '~{key}.{column}'" if key == "data.rows.only" else ""
            raise UserError(
                f"{key}: {missing_column(column, seen)}; name one that is there{without}"
            )


def _table_row(
    row: ReadRow, columns: RowMapping, corrections: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    if isinstance(row.content, RowError):
        raise row.content
    if not columns.selects(row.content):
        return _dropped(row, FILTERED)
    problem = columns.problem(row.content, row.name, row.columns)
    if problem is None:
        return _dropped(row, NO_GOLD)
    gold, problem_id = problem.gold, problem.id
    correction = corrections.get(problem_id)
    if correction is not None and gold == correction["gold"]:
        gold = correction["corrected"]
    return {
        "id": signed_id(problem_id),
        "split": HASHED if row.split in (None, Split.TRAIN) else SPLITS.index(row.split),
        "level": problem.level,
        "prompt": problem.prompt,
        "gold": gold,
        "checker": problem.checker,
        "family": problem.family,
        "metadata": json.dumps(problem.metadata),
    }


def _dropped(row: ReadRow, reason: str, complaint: str = "") -> dict[str, Any]:
    """The table's row for an unused row: its reason, and the complaint where it is unreadable."""
    texts = dict.fromkeys(TEXTS, "") | {"gold": reason, "prompt": complaint}
    metadata = json.dumps({"row": row.name})
    return {"id": 0, "split": UNUSED, "level": 0, **texts, "metadata": metadata}


def signed_id(problem_id: str) -> int:
    """An id as a signed 64-bit integer, which Arrow has a type for."""
    return int.from_bytes(bytes.fromhex(problem_id), signed=True)


def usable_rows(table: Any, policy: UnreadablePolicy) -> tuple[NDArray[np.int64], Ledger]:
    """Select the rows to use: readable, one per prompt, and none whose golds disagree.

    Returns:
        `[N] int64`, the numbers of the rows in order, and a ledger of `rows`. It has the origins of
        all dropped rows but those that the mapping leaves out.

    Raises:
        UserError: The policy refuses unreadable rows, or there are too many.
    """
    ledger = Ledger()
    ledger.take("rows", table.num_rows)
    splits = table.column("split").to_numpy()
    dropped = np.flatnonzero(splits == UNUSED)
    reasons = np.array(_texts(table, "gold", dropped), object)
    for reason in (FILTERED, NO_GOLD):
        ledger.drop("rows", reason, int((reasons == reason).sum()), selected=True)
    is_unreadable = (reasons != FILTERED) & (reasons != NO_GOLD)
    unreadable = dropped[is_unreadable]
    for reason in sorted(set(reasons[is_unreadable])):
        origins = _origins(table, dropped[reasons == reason])
        ledger.drop("rows", reason, len(origins), origins=origins)
    used, duplicates, conflicts = _distinct(table, np.flatnonzero(splits != UNUSED))
    for reason, rows in ((DUPLICATE, duplicates), (CONFLICT, conflicts)):
        ledger.drop("rows", reason, len(rows), origins=_origins(table, rows))
    complaints = _texts(table, "prompt", unreadable[:_SHOWN_COMPLAINTS])
    if complaints and policy.action == "refuse":
        names = ", ".join(_origins(table, unreadable[1:_SHOWN_COMPLAINTS]))
        more = f"; the same holds for {len(unreadable) - 1:,} more: {names}" if names else ""
        remedy = f"or leave such rows out with {policy.key}.unreadable=drop"
        raise UserError(f"{complaints[0]}, {remedy}{more}")
    selected = table.num_rows - len(dropped) + len(unreadable)
    policy.check(len(unreadable), selected, "rows", complaints)
    return used, ledger


def _distinct(
    table: Any, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Split `rows` into those to use, repeated prompts, and prompts whose golds disagree.

    Golds are compared within the split of a prompt's first row; rows of other splits do not count.
    """
    ids, splits = (table.column(name).to_numpy()[rows] for name in ("id", "split"))
    _, starts, prompt = np.unique(ids, return_index=True, return_inverse=True)
    first = starts[prompt]  # `[N]`, the position at which each row's prompt comes first.
    is_first = first == np.arange(len(rows))
    same_split = splits == splits[first]
    later = np.flatnonzero(~is_first & same_split)
    golds = _normalized_golds(table, rows[later]), _normalized_golds(table, rows[first[later]])
    differs = np.array([gold != first_gold for gold, first_gold in zip(*golds, strict=True)], bool)
    conflicted = np.zeros(len(rows), bool)
    conflicted[first[later[differs]]] = True
    conflict = conflicted[first] & same_split
    return rows[is_first & ~conflict], rows[~is_first & ~conflict], rows[conflict]


def _normalized_golds(table: Any, rows: NDArray[np.int64]) -> list[str]:
    """The golds without spaces and dollar signs, which do not change them."""
    return ["".join(gold.replace("$", "").split()) for gold in _texts(table, "gold", rows)]


def _texts(table: Any, column: str, rows: NDArray[np.int64]) -> list[str]:
    texts: list[str] = table.column(column).take(pa.array(rows)).to_pylist()
    return texts


def _origins(table: Any, rows: NDArray[np.int64]) -> list[str]:
    return [json.loads(text)["row"] for text in _texts(table, "metadata", rows)]
