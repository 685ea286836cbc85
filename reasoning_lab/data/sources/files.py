"""Problems from local files and from datasets of the Hugging Face hub.

Both read rows once, through the same mapping (`rows.py`), into a memory-mapped Arrow table in
the cache of the `datasets` library, so a million rows take no more memory than their ids. The
table is found again by what it was made from, also where there is no network.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasoning_lab.data.sources import choices, json_lines, readers, row_values, rows, table
from reasoning_lab.data.sources.problems import check_fractions
from reasoning_lab.data.sources.readers import Read, file_rows, hub_rows
from reasoning_lab.data.sources.rows import RowMapping, row_mapping
from reasoning_lab.data.sources.table import (
    HASHED,
    SPLITS,
    TEXTS,
    TableRows,
    check_corrections,
    read_table,
    signed_id,
    table_rows,
)
from reasoning_lab.data.sources.unreadable import Unreadable
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.system.files import content_hash
from reasoning_lab.types import Problem, Split, UserError

log = logging.getLogger(__name__)

_BATCH_PROBLEMS = 1024


class TableSource:
    """Problems in a table that is made when it is first needed.

    Of equal prompts the first row's split counts, and in it the first row, where their golds agree.
    Where they do not, none of them is used: nothing says which gold is right.

    Args:
        label: The source's name and the key to change, for errors.
        read: Module-level function that yields rows.
        arguments: Its arguments and whatever else decides what it yields; the table's identity.
        mapping: Which column is what.
        test_frac: Fraction of the prompts without a split of their own held out for benchmarks.
        validation_frac: Fraction of them that early stopping and tuning may look at.
        unreadable: What happens to rows and golds that cannot be read.
        corrections: Prompt id to the `gold` that the dataset has and the `corrected` one.
    """

    def __init__(
        self,
        label: str,
        read: Callable[..., Read],
        arguments: Mapping[str, Any],
        mapping: RowMapping,
        test_frac: float,
        validation_frac: float,
        unreadable: Unreadable,
        corrections: Mapping[str, Mapping[str, str]],
    ) -> None:
        check_fractions(test_frac, validation_frac)
        check_corrections(corrections)
        self._label = label
        self._unreadable = unreadable
        self._corrections = corrections
        self._made_from = {
            "read": read,
            "arguments": dict(arguments),
            "mapping": asdict(mapping),
            "corrections": {key: dict(value) for key, value in corrections.items()},
            "code": _code_hash(),
        }
        self._fractions = (test_frac, validation_frac)

    def problems(
        self, split: Split, levels: Sequence[int], count: int, seed: int
    ) -> Iterator[Problem]:
        """Yield `count` problems with distinct prompts."""
        matching = self._matching(split, levels)
        if len(matching) < count:
            fraction = (
                "lower data.test_frac" if split is Split.TRAIN else f"raise data.{split}_frac"
            )
            raise UserError(
                f"{self._label} has {len(matching)} distinct {split} prompts at levels "
                f"{list(levels)}, {count} asked for; ask for fewer, add rows or {fraction}"
            )
        chosen = np.random.default_rng(seed).permutation(matching)[:count]
        for start in range(0, count, _BATCH_PROBLEMS):
            batch = self._table[chosen[start : start + _BATCH_PROBLEMS]]
            texts = zip(*(batch[name] for name in TEXTS), strict=True)
            for (prompt, gold, checker, family, metadata), row_level in zip(
                texts, batch["level"], strict=True
            ):
                yield Problem(prompt, gold, checker, family, row_level, json.loads(metadata))

    def available(self, split: Split, levels: Sequence[int]) -> int:
        return len(self._matching(split, levels))

    def _matching(self, split: Split, levels: Sequence[int]) -> NDArray[np.int64]:
        """Numbers of the rows of a split and of levels."""
        ids, rows = self._ids, self._rows.used
        own_split, level = self._column("split")[rows], self._column("level")[rows]
        position = (ids[rows].view(np.uint64) >> np.uint64(32)) / 2**32  # As in `split_of`.
        test_frac, validation_frac = self._fractions
        hashed = np.where(
            position < test_frac,
            SPLITS.index(Split.TEST),
            np.where(
                position < test_frac + validation_frac,
                SPLITS.index(Split.VALIDATION),
                SPLITS.index(Split.TRAIN),
            ),
        )
        splits = np.where(own_split == HASHED, hashed, own_split)
        matching: NDArray[np.int64] = rows[
            (splits == SPLITS.index(split)) & np.isin(level, list(levels))
        ]
        return matching

    def fixed_split(self, problem_id: str) -> Split | None:
        return self._fixed_splits.get(signed_id(problem_id))

    def unreadable(self, problem: Problem) -> Unreadable | None:
        rows = np.flatnonzero(self._ids == signed_id(problem.id)).tolist()
        row = problem.metadata.get("row")
        of_source = any(json.loads(text)["row"] == row for text in self._table[rows]["metadata"])
        return self._unreadable if of_source else None

    def record_rows(self, ledger: Ledger) -> None:
        ledger.merge(self._rows.ledger)

    @cached_property
    def _fixed_splits(self) -> dict[int, Split]:
        """Only those that the dataset holds out: its training prompts may be of any split."""
        own_split = self._column("split")
        held_out = np.flatnonzero((own_split >= 0) & (own_split != SPLITS.index(Split.TRAIN)))
        ids = self._ids
        # Backwards, so that of equal prompts the first row's split stays.
        return {int(ids[row]): SPLITS[own_split[row]] for row in held_out[::-1]}

    @cached_property
    def _ids(self) -> NDArray[np.int64]:
        ids: NDArray[np.int64] = self._column("id")
        return ids

    def _column(self, name: str) -> Any:
        return self._table.data.column(name).to_numpy()

    @cached_property
    def _rows(self) -> TableRows:
        """Which rows of the table are used, and why the others are not; logged once."""
        rows = table_rows(self._table.data)
        self._check_rows(rows)
        for sentence in rows.ledger.lines():
            log.info("%s: %s.", self._label, sentence)
        for sentence in rows.ledger.warnings():
            log.warning("%s: %s.", self._label, sentence)
        self._check_corrections(rows)
        return rows

    def _check_rows(self, rows: TableRows) -> None:
        """Refuse rows that cannot be read, where the source does or there are too many."""
        examples = rows.complaints
        if examples and self._unreadable.action == "refuse":
            names = ", ".join(rows.unreadable_names[1:])
            more = f"; the same goes for {rows.unreadable - 1:,} more: {names}" if names else ""
            raise UserError(
                f"{examples[0]}, or leave such rows out with {self._unreadable.key}."
                f"unreadable=drop{more}"
            )
        self._unreadable.check(rows.unreadable, rows.selected, "rows", examples)
        rows.ledger.require_passed(
            "rows", self._label, "correct data.rows, e.g. no_gold and only, or give other rows"
        )

    def _check_corrections(self, rows: TableRows) -> None:
        """Say of each correction that met no row: the dataset may have been corrected itself."""
        ids = self._ids[rows.used]
        for problem_id, correction in self._corrections.items():
            at = rows.used[ids == signed_id(problem_id)].tolist()
            if self._table[at]["gold"] != [correction["corrected"]]:
                log.warning(
                    "%s: the correction of %s meets no row with the gold '%s'.",
                    self._label,
                    problem_id,
                    correction["gold"],
                )

    @cached_property
    def _table(self) -> Any:
        import datasets
        from datasets.exceptions import DatasetGenerationError

        kinds = {"id": "int64", "split": "int8", "level": "int32"}
        kinds |= dict.fromkeys(TEXTS, "large_string")
        try:
            with _without_bars():
                return datasets.Dataset.from_generator(
                    read_table,
                    features=datasets.Features(
                        {name: datasets.Value(kind) for name, kind in kinds.items()}
                    ),
                    gen_kwargs=self._made_from,
                )
        except DatasetGenerationError as error:
            if isinstance(error.__cause__, UserError):
                raise error.__cause__ from None
            raise


class FileSource(TableSource):
    """Problems from a local file: JSON lines, a JSON array, or parquet.

    Args:
        path: The file.
        test_frac: Fraction of all prompts that is held out for benchmarks.
        validation_frac: Fraction that early stopping and tuning may look at.
        rows: Which column is what, see `RowMapping`.
        licence: What a data card says of the file.
        unreadable: What happens to rows and golds that cannot be read: `refuse`, or `drop`.
        max_unreadable_frac: Largest fraction of them that is dropped.

    Raises:
        UserError: For a missing file, or a malformed row, named by its line.
    """

    def __init__(
        self,
        path: str,
        test_frac: float,
        validation_frac: float,
        rows: Mapping[str, Any],
        licence: str = "not stated",
        unreadable: str = "refuse",
        max_unreadable_frac: float = 0.5,
    ) -> None:
        self._path, self._licence = Path(path), licence
        if self._path.is_dir():
            raise UserError(f"data.path: '{path}' is a folder; give a file")
        super().__init__(
            f"data.path: '{path}'",
            file_rows,
            {"path": path, "content": self.content()},
            row_mapping(rows, "data.rows"),
            test_frac,
            validation_frac,
            Unreadable(unreadable, max_unreadable_frac, "data"),
            {},
        )
        _ = self._rows  # A malformed row is named before anything expensive begins.

    def content(self) -> str:
        return _digest(self._path)

    def is_local(self) -> bool:
        return True

    def about(self) -> Mapping[str, str]:
        return {"name": self._path.name, "revision": self.content(), "licence": self._licence}


class HubSource(TableSource):
    """Problems from a dataset of the hub, or from a local copy of it.

    Nothing is downloaded before the first problem is asked for.

    Args:
        dataset: The dataset's id on the hub.
        config: Its configuration; null for the only one.
        revision: The commit to read.
        licence: What the dataset's card says.
        splits: Our split to the dataset's, one of them at least. Those of `test` and
            `validation` are held out as they are; the prompts of `train` are split by the
            fractions.
        rows: Which column is what, see `RowMapping`.
        test_frac: Fraction of the prompts of `train` that is held out for benchmarks.
        validation_frac: Fraction of them that early stopping and tuning may look at.
        streaming: Read the rows over the network without keeping the dataset's own files.
        path: A local copy to read instead: a file, split by the fractions alone, or a folder
            that `datasets.load_dataset` can read.
        unreadable: What happens to rows and golds that cannot be read: `drop`, or `refuse`.
        max_unreadable_frac: Largest fraction of them that is dropped.
        corrections: Prompt id to the `gold` that the dataset has and the `corrected` one, for golds
            that are known to be wrong or unreadable.

    Raises:
        UserError: When it is asked for problems and there is neither network nor copy.
    """

    def __init__(
        self,
        dataset: str,
        config: str | None,
        revision: str,
        licence: str,
        splits: Mapping[str, str],
        rows: Mapping[str, Any],
        test_frac: float,
        validation_frac: float,
        streaming: bool = False,
        path: str | None = None,
        unreadable: str = "drop",
        max_unreadable_frac: float = 0.5,
        corrections: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        unknown = [name for name in splits if name not in SPLITS]
        if unknown or not splits:
            raise UserError(
                f"data.splits: {dict(splits)} must name the dataset's own split for any of train, "
                "validation and test; correct its keys"
            )
        self._dataset, self._revision, self._licence = dataset, revision, licence
        self._copy = None if path is None else Path(path)
        # Those held out come first: of equal prompts the first row's split counts.
        ordered = {split.value: splits[split] for split in reversed(SPLITS) if split in splits}
        arguments: dict[str, Any] = {"content": self.content()}
        read: Callable[..., Read] = hub_rows
        if self._copy is not None and self._copy.is_file():
            read, arguments["path"] = file_rows, path
        else:
            arguments |= {"dataset": dataset, "config": config, "revision": revision}
            arguments |= {"splits": ordered, "streaming": streaming, "folder": path}
        super().__init__(
            f"data: '{dataset if path is None else path}'",
            read,
            arguments,
            row_mapping(rows, "data.rows"),
            test_frac,
            validation_frac,
            Unreadable(unreadable, max_unreadable_frac, "data"),
            corrections or {},
        )
        if self._copy is not None:
            _ = self._rows

    def content(self) -> str:
        return f"{self._dataset}@{self._revision}" if self._copy is None else _digest(self._copy)

    def is_local(self) -> bool:
        return self._copy is not None

    def about(self) -> Mapping[str, str]:
        revision = self._revision if self._copy is None else f"local copy {self.content()}"
        return {"name": self._dataset, "revision": revision, "licence": self._licence}


def _digest(path: Path) -> str:
    """The hash of a file, or of a folder's files."""
    if not path.exists():
        raise UserError(f"data.path: there is no file '{path}'; check the path")
    if not path.is_file() and not path.is_dir():
        raise UserError(f"data.path: '{path}' is a device or a pipe; give a file")
    try:
        return content_hash(path)
    except OSError as error:
        raise UserError(
            f"data.path: cannot read '{path}' ({error}); give a file that you may read"
        ) from error


_TABLE_CODE = (
    *(module.__file__ for module in (json_lines, choices, readers, row_values, rows, table)),
    __file__,
)


@cache
def _code_hash() -> str:
    """Of what turns rows into a table, so that no table outlives a change of it."""
    files = [Path(str(file)) for file in _TABLE_CODE]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@contextmanager
def _without_bars() -> Iterator[None]:
    """No progress bar of the library's; a mistake must end in one sentence."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
