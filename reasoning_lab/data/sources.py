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

from reasoning_lab.data import json_lines, readers, rows
from reasoning_lab.data.problems import check_fractions
from reasoning_lab.data.readers import Read, file_rows, hub_rows
from reasoning_lab.data.rows import RowMapping, row_mapping
from reasoning_lab.files import content_hash
from reasoning_lab.types import Problem, Split, UserError

log = logging.getLogger(__name__)

_SPLITS = tuple(Split)
_HASHED = -1
_TEXTS = ("prompt", "gold", "checker", "family", "metadata")
_BATCH_PROBLEMS = 1024


class TableSource:
    """Problems in a table that is made when it is first needed.

    Args:
        label: The source's name and the key to change, for errors.
        read: Module-level function that yields rows.
        arguments: Its arguments and whatever else decides what it yields; the table's identity.
        mapping: Which column is what.
        test_frac: Fraction of the prompts without a split of their own held out for benchmarks.
        validation_frac: Fraction of them that early stopping and tuning may look at.
    """

    def __init__(
        self,
        label: str,
        read: Callable[..., Read],
        arguments: Mapping[str, Any],
        mapping: RowMapping,
        test_frac: float,
        validation_frac: float,
    ) -> None:
        check_fractions(test_frac, validation_frac)
        self._label = label
        self._made_from = {
            "read": read,
            "arguments": dict(arguments),
            "mapping": asdict(mapping),
            "code": _code_hash(),
        }
        self._fractions = (test_frac, validation_frac)

    def problems(
        self, split: Split, levels: Sequence[int], count: int, seed: int
    ) -> Iterator[Problem]:
        """Yield `count` problems with distinct prompts; of equal prompts the first row's."""
        ids = self._column("id")
        first = np.sort(np.unique(ids, return_index=True)[1])
        own, level = self._column("split")[first], self._column("level")[first]
        position = (ids[first].view(np.uint64) >> np.uint64(32)) / 2**32  # As in `split_of`.
        test_frac, validation_frac = self._fractions
        hashed = np.where(
            position < test_frac,
            _SPLITS.index(Split.TEST),
            np.where(
                position < test_frac + validation_frac,
                _SPLITS.index(Split.VALIDATION),
                _SPLITS.index(Split.TRAIN),
            ),
        )
        splits = np.where(own == _HASHED, hashed, own)
        matching = first[(splits == _SPLITS.index(split)) & np.isin(level, list(levels))]
        if len(matching) < count:
            raise UserError(
                f"{self._label} has {len(matching)} distinct {split} prompts at levels "
                f"{list(levels)}, {count} asked for; ask for fewer, add rows or hold out another "
                "fraction"
            )
        chosen = np.random.default_rng(seed).permutation(matching)[:count]
        for start in range(0, count, _BATCH_PROBLEMS):
            batch = self._table[chosen[start : start + _BATCH_PROBLEMS]]
            texts = zip(*(batch[name] for name in _TEXTS), strict=True)
            for (prompt, gold, checker, family, metadata), row_level in zip(
                texts, batch["level"], strict=True
            ):
                yield Problem(prompt, gold, checker, family, row_level, json.loads(metadata))

    def fixed_split(self, problem_id: str) -> Split | None:
        return self._fixed_splits.get(_signed(problem_id))

    @cached_property
    def _fixed_splits(self) -> dict[int, Split]:
        """Only those that the dataset holds out: its training prompts may be of any split."""
        own = self._column("split")
        held = np.flatnonzero((own != _HASHED) & (own != _SPLITS.index(Split.TRAIN)))
        ids = self._column("id")
        # Backwards, so that of equal prompts the first row's split stays.
        return {int(ids[row]): _SPLITS[own[row]] for row in held[::-1]}

    def _column(self, name: str) -> Any:
        return self._table.data.column(name).to_numpy()

    @cached_property
    def _table(self) -> Any:
        import datasets
        from datasets.exceptions import DatasetGenerationError

        kinds = {"id": "int64", "split": "int8", "level": "int32"}
        kinds |= dict.fromkeys(_TEXTS, "large_string")
        try:
            with _without_bars():
                return datasets.Dataset.from_generator(
                    _table_rows,
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
    ) -> None:
        self._path, self._licence = Path(path), licence
        super().__init__(
            f"data.path: '{path}'",
            file_rows,
            {"path": path, "content": self.content()},
            row_mapping(rows, "data.rows"),
            test_frac,
            validation_frac,
        )
        _ = self._table  # A malformed row is named before anything expensive begins.

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
    ) -> None:
        unknown = [name for name in splits if name not in _SPLITS]
        if unknown or not splits:
            raise UserError(
                f"data.splits: {dict(splits)} must name the dataset's own split for any of train, "
                "validation and test; correct its keys"
            )
        self._dataset, self._revision, self._licence = dataset, revision, licence
        self._copy = None if path is None else Path(path)
        # Those held out come first: of equal prompts the first row's split counts.
        ordered = {split.value: splits[split] for split in reversed(_SPLITS) if split in splits}
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
        )
        if self._copy is not None:
            _ = self._table

    def content(self) -> str:
        return f"{self._dataset}@{self._revision}" if self._copy is None else _digest(self._copy)

    def is_local(self) -> bool:
        return self._copy is not None

    def about(self) -> Mapping[str, str]:
        revision = self._revision if self._copy is None else f"local copy {self.content()}"
        return {"name": self._dataset, "revision": revision, "licence": self._licence}


def _table_rows(
    read: Callable[..., Read], arguments: Mapping[str, Any], mapping: Mapping[str, Any], code: str
) -> Iterator[dict[str, Any]]:
    columns = RowMapping(**mapping)
    counts = {"read": 0, "left out by data.rows.only": 0, "skipped, without gold": 0}
    for row, place, name, split in read(**arguments):
        counts["read"] += 1
        if not columns.wants(row):
            counts["left out by data.rows.only"] += 1
            continue
        problem = columns.problem(row, place, name)
        if problem is None:
            counts["skipped, without gold"] += 1
            continue
        yield {
            "id": _signed(problem.id),
            "split": _HASHED if split in (None, Split.TRAIN) else _SPLITS.index(split),
            "level": problem.level,
            "prompt": problem.prompt,
            "gold": problem.gold,
            "checker": problem.checker,
            "family": problem.family,
            "metadata": json.dumps(problem.metadata),
        }
    told = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    log.info("%s: rows %s.", arguments.get("path") or arguments.get("dataset"), told or "none")


def _signed(problem_id: str) -> int:
    """An id as the 64 bits that Arrow has a type for."""
    return int.from_bytes(bytes.fromhex(problem_id), signed=True)


def _digest(path: Path) -> str:
    """The hash of a file, or of a folder's files."""
    if not path.exists():
        raise UserError(f"data.path: there is no file '{path}'; check the path")
    try:
        return content_hash(path)
    except OSError as error:
        raise UserError(
            f"data.path: cannot read '{path}' ({error}); give a file that you may read"
        ) from error


_TABLE_CODE = (json_lines.__file__, rows.__file__, readers.__file__, __file__)


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
