"""Problems of a dataset in a table: the source of problems that are read from rows.

The rows are read once, through a `RowMapping`, into a memory-mapped Arrow table in the cache of the
`datasets` library. A million rows take no more memory than their ids. The cache finds the table by
its arguments, without a network. The table has one row for each row of the dataset, so a cached one
still counts every dropped row by its reason.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from reasoning_lab.config.problems import in_words
from reasoning_lab.data.sources.canonical import form_id
from reasoning_lab.data.sources.config import TableConfig
from reasoning_lab.data.sources.problem_source import check_fractions
from reasoning_lab.data.sources.readers import Read, ReadRow
from reasoning_lab.data.sources.row_mapping import RowMapping
from reasoning_lab.data.sources.row_values import RowError, missing_column, root_of
from reasoning_lab.data.sources.unreadable import UnreadablePolicy
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.types import Message, Problem, Split, UserError

log = logging.getLogger(__name__)

_BATCH_PROBLEMS = 1024
_SPLITS = tuple(Split)
# Values of the column `split`: the canonical form's hash decides the split; the row is not used.
_HASHED, _UNUSED = -1, -2
_TEXTS = ("prompt", "earlier_messages", "gold", "checker", "family", "domain", "metadata")
_FIELDS = ("prompt", "gold", "checker", "family", "domain", "level", "metadata", "earlier_messages")
# Reasons that a mapping asks for; every other reason is a row that cannot be read.
_FILTERED, _NO_GOLD = "filtered", "no_gold"
_SHOWN_COMPLAINTS = 3
# So many unreadable rows at the start mean a wrong mapping, not single bad rows.
_MAX_UNREADABLE_START = 1000


class TableSource:
    """Problems in a table that is built when it is first needed; local rows are read at once.

    Of equal prompts the first row decides the split. Within that split the first row is used if
    all golds agree. If they disagree, none is used, because nothing says which gold is right.

    Args:
        config: The options. Its fractions are of the prompts without a split of their own.
        label: The source's name and the key to change, for errors.
        read: Module-level function that yields rows.
        arguments: Its arguments, which decide what it yields and so identify the table.
        corrections: Prompt id to the `gold` that the dataset has and the `corrected` one.
    """

    def __init__(
        self,
        config: TableConfig,
        label: str,
        read: Callable[..., Read],
        arguments: Mapping[str, Any],
        corrections: Mapping[str, Mapping[str, str]],
    ) -> None:
        check_fractions(config.test_frac, config.validation_frac)
        config.rows.check("data.rows")
        self.config = config
        self._label = label
        self._unreadable = UnreadablePolicy(config.unreadable, config.max_unreadable_frac, "data")
        self._corrections = corrections
        self._table_arguments = {
            "read": read,
            "arguments": arguments,
            "columns": config.rows,
            "corrections": corrections,
            "code": _code_hash(),
        }
        if self.is_local():
            _ = self._rows  # Reports a malformed row before anything expensive begins.

    def content(self) -> str:
        return self.config.content()

    def is_local(self) -> bool:
        return self.config.is_local()

    def provenance(self) -> Mapping[str, str]:
        return self.config.provenance()

    def problems(
        self, split: Split, levels: Sequence[int] | None, count: int, seed: int
    ) -> Iterator[Problem]:
        """Yield `count` problems with distinct prompts."""
        matching = self._matching(split, levels)
        if len(matching) < count:
            fraction = (
                "lower data.test_frac" if split is Split.TRAIN else f"raise data.{split}_frac"
            )
            present = np.unique(self._column("level")[self._rows[0]]).tolist()
            others = "" if levels is None else f", choose among its levels {present}"
            raise UserError(
                f"{self._label} has {len(matching)} distinct {split} prompts at "
                f"{in_words(levels)}, {count} asked for; ask for fewer{others}, add rows or "
                f"{fraction}"
            )
        chosen = np.random.default_rng(seed).permutation(matching)[:count]
        for start in range(0, count, _BATCH_PROBLEMS):
            batch = self._table[chosen[start : start + _BATCH_PROBLEMS]]
            for *values, metadata, earlier in zip(*(batch[name] for name in _FIELDS), strict=True):
                turns = tuple(Message(*turn) for turn in json.loads(earlier))
                parsed = [*values, json.loads(metadata), turns]
                yield Problem(**dict(zip(_FIELDS, parsed, strict=True)))

    def available(self, split: Split, levels: Sequence[int] | None) -> int:
        return len(self._matching(split, levels))

    def _matching(self, split: Split, levels: Sequence[int] | None) -> NDArray[np.int64]:
        """`[M] int64`, the numbers of the rows of a split and of levels; None = all levels."""
        rows, _ = self._rows
        row_split, level = self._column("split")[rows], self._column("level")[rows]
        forms = self._column("form")[rows].view(np.uint64)
        position = (forms >> np.uint64(32)) / 2**32  # As in `split_of`.
        test_frac, validation_frac = self.config.test_frac, self.config.validation_frac
        hashed = np.select(
            [position < test_frac, position < test_frac + validation_frac],
            [_SPLITS.index(Split.TEST), _SPLITS.index(Split.VALIDATION)],
            _SPLITS.index(Split.TRAIN),
        )
        splits = np.where(row_split == _HASHED, hashed, row_split)
        matches = splits == _SPLITS.index(split)
        if levels is not None:
            matches &= np.isin(level, list(levels))
        matching: NDArray[np.int64] = rows[matches]
        return matching

    def fixed_split(self, problem_id: str) -> Split | None:
        return self._fixed_splits.get(_signed_id(problem_id))

    def unreadable(self, problem: Problem) -> UnreadablePolicy | None:
        rows = np.flatnonzero(self._ids == _signed_id(problem.id)).tolist()
        row = problem.metadata.get("row")
        is_ours = any(json.loads(text)["row"] == row for text in self._table[rows]["metadata"])
        return self._unreadable if is_ours else None

    def record_rows(self, ledger: Ledger) -> None:
        ledger.merge(self._rows[1])

    @cached_property
    def _fixed_splits(self) -> dict[int, Split]:
        """Signed id to split, for the rows that the dataset itself holds out.

        The dataset's training prompts are absent: their hash decides.
        """
        row_split = self._column("split")
        held_out = np.flatnonzero((row_split >= 0) & (row_split != _SPLITS.index(Split.TRAIN)))
        ids = self._ids
        # In reverse, so that of equal prompts the first row's split stays.
        return {int(ids[row]): _SPLITS[row_split[row]] for row in held_out[::-1]}

    @cached_property
    def _ids(self) -> NDArray[np.int64]:
        return self._column("id")

    def _column(self, name: str) -> NDArray[np.int64]:
        values: NDArray[np.int64] = self._table.data.column(name).to_numpy()
        return values

    @cached_property
    def _rows(self) -> tuple[NDArray[np.int64], Ledger]:
        """Which rows of the table are used, and why the others are not; logs them once."""
        used, ledger = _usable_rows(self._table.data, self._unreadable)
        ledger.require_passed(
            "rows", self._label, "correct data.rows, e.g. no_gold and only, or give other rows"
        )
        for sentence in ledger.lines():
            log.info("%s: %s.", self._label, sentence)
        for sentence in ledger.warnings():
            log.warning("%s: %s.", self._label, sentence)
        levels, counts = np.unique(self._column("level")[used], return_counts=True)
        if len(levels) > 1:
            listed = (f"{n:,} of level {level}" for level, n in zip(levels, counts, strict=True))
            log.info("%s: %d levels: %s.", self._label, len(levels), ", ".join(listed))
        self._check_corrections(used)
        return used, ledger

    def _check_corrections(self, used: NDArray[np.int64]) -> None:
        """Warn about each correction without a row: the dataset may have been corrected itself."""
        ids = self._ids[used]
        for problem_id, correction in self._corrections.items():
            matching = used[ids == _signed_id(problem_id)].tolist()
            if self._table[matching]["gold"] != [correction["corrected"]]:
                log.warning(
                    "%s: the correction of %s matches no row with the gold '%s'.",
                    self._label,
                    problem_id,
                    correction["gold"],
                )

    @cached_property
    def _table(self) -> Any:
        import datasets
        from datasets.exceptions import DatasetGenerationError

        kinds = {"id": "int64", "form": "int64", "split": "int8", "level": "int32"}
        kinds |= dict.fromkeys(_TEXTS, "large_string")
        try:
            with _without_progress_bars():
                return datasets.Dataset.from_generator(
                    _read_table,
                    features=datasets.Features(
                        {name: datasets.Value(kind) for name, kind in kinds.items()}
                    ),
                    gen_kwargs=self._table_arguments,
                )
        except DatasetGenerationError as error:
            if isinstance(error.__cause__, UserError):
                raise error.__cause__ from None
            raise


@cache
def _code_hash() -> str:
    """Hash of this folder's code, so that a change of how rows are read rebuilds the table."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Hide the library's progress bars, so that a user's mistake prints one sentence."""
    import datasets

    were_shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if were_shown:
            datasets.enable_progress_bars()


def _read_table(
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
            readable += entry["split"] != _UNUSED
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
    mapping = columns.for_row(row.content)
    if mapping is None:
        return _dropped(row, _FILTERED)
    problem = mapping.problem(row.content, row.name, row.columns)
    if problem is None:
        return _dropped(row, _NO_GOLD)
    gold, problem_id = problem.gold, problem.id
    correction = corrections.get(problem_id)
    if correction is not None and gold == correction["gold"]:
        gold = correction["corrected"]
    return {
        "id": _signed_id(problem_id),
        "form": _signed_id(form_id(problem)),
        "split": _HASHED if row.split in (None, Split.TRAIN) else _SPLITS.index(row.split),
        "level": problem.level,
        "prompt": problem.prompt,
        "earlier_messages": json.dumps([(m.role, m.content) for m in problem.earlier_messages]),
        "gold": gold,
        "checker": problem.checker,
        "family": problem.family,
        "domain": problem.domain,
        "metadata": json.dumps(problem.metadata),
    }


def _dropped(row: ReadRow, reason: str, complaint: str = "") -> dict[str, Any]:
    """The table's row for an unused row: its reason, and the complaint where it is unreadable."""
    texts = dict.fromkeys(_TEXTS, "") | {"gold": reason, "prompt": complaint}
    metadata = json.dumps({"row": row.name})
    return {"id": 0, "form": 0, "split": _UNUSED, "level": 0, **texts, "metadata": metadata}


def _signed_id(problem_id: str) -> int:
    """An id as a signed 64-bit integer, which Arrow has a type for."""
    return int.from_bytes(bytes.fromhex(problem_id), signed=True)


def _usable_rows(table: Any, policy: UnreadablePolicy) -> tuple[NDArray[np.int64], Ledger]:
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
    dropped = np.flatnonzero(splits == _UNUSED)
    reasons = np.array(_texts(table, "gold", dropped), object)
    for reason in (_FILTERED, _NO_GOLD):
        ledger.drop("rows", reason, int((reasons == reason).sum()), selected=True)
    is_unreadable = (reasons != _FILTERED) & (reasons != _NO_GOLD)
    unreadable = dropped[is_unreadable]
    for reason in sorted(set(reasons[is_unreadable])):
        origins = _origins(table, dropped[reasons == reason])
        ledger.drop("rows", reason, len(origins), origins=origins)
    used, duplicates, conflicts = _distinct(table, np.flatnonzero(splits != _UNUSED))
    for reason, rows in (("duplicate_prompt", duplicates), ("conflicting_gold", conflicts)):
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
