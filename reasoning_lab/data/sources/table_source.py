"""Problems of a dataset in a table: the base of sources that read rows.

The rows are read once, through a `RowMapping`, into a memory-mapped Arrow table in the cache of the
`datasets` library. A million rows take no more memory than their ids. The cache finds the table by
its arguments, without a network.
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
from numpy.typing import NDArray

from reasoning_lab.data.sources.config import TableConfig
from reasoning_lab.data.sources.problem_source import check_fractions
from reasoning_lab.data.sources.problem_table import (
    HASHED,
    SPLITS,
    TEXTS,
    read_table,
    signed_id,
    usable_rows,
)
from reasoning_lab.data.sources.readers import Read
from reasoning_lab.data.sources.unreadable import UnreadablePolicy
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.types import Problem, Split, UserError

log = logging.getLogger(__name__)

_BATCH_PROBLEMS = 1024


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
        return self.config.path is not None

    def provenance(self) -> Mapping[str, str]:
        return self.config.provenance()

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
            names = ("prompt", "gold", "checker", "family", "level", "metadata")
            for *values, metadata in zip(*(batch[name] for name in names), strict=True):
                yield Problem(*values, json.loads(metadata))

    def available(self, split: Split, levels: Sequence[int]) -> int:
        return len(self._matching(split, levels))

    def _matching(self, split: Split, levels: Sequence[int]) -> NDArray[np.int64]:
        """`[M] int64`, the numbers of the rows of a split and of levels."""
        ids, (rows, _) = self._ids, self._rows
        row_split, level = self._column("split")[rows], self._column("level")[rows]
        position = (ids[rows].view(np.uint64) >> np.uint64(32)) / 2**32  # As in `split_of`.
        test_frac, validation_frac = self.config.test_frac, self.config.validation_frac
        hashed = np.select(
            [position < test_frac, position < test_frac + validation_frac],
            [SPLITS.index(Split.TEST), SPLITS.index(Split.VALIDATION)],
            SPLITS.index(Split.TRAIN),
        )
        splits = np.where(row_split == HASHED, hashed, row_split)
        matching: NDArray[np.int64] = rows[
            (splits == SPLITS.index(split)) & np.isin(level, list(levels))
        ]
        return matching

    def fixed_split(self, problem_id: str) -> Split | None:
        return self._fixed_splits.get(signed_id(problem_id))

    def unreadable(self, problem: Problem) -> UnreadablePolicy | None:
        rows = np.flatnonzero(self._ids == signed_id(problem.id)).tolist()
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
        held_out = np.flatnonzero((row_split >= 0) & (row_split != SPLITS.index(Split.TRAIN)))
        ids = self._ids
        # In reverse, so that of equal prompts the first row's split stays.
        return {int(ids[row]): SPLITS[row_split[row]] for row in held_out[::-1]}

    @cached_property
    def _ids(self) -> NDArray[np.int64]:
        return self._column("id")

    def _column(self, name: str) -> NDArray[np.int64]:
        values: NDArray[np.int64] = self._table.data.column(name).to_numpy()
        return values

    @cached_property
    def _rows(self) -> tuple[NDArray[np.int64], Ledger]:
        """Which rows of the table are used, and why the others are not; logs them once."""
        used, ledger = usable_rows(self._table.data, self._unreadable)
        ledger.require_passed(
            "rows", self._label, "correct data.rows, e.g. no_gold and only, or give other rows"
        )
        for sentence in ledger.lines():
            log.info("%s: %s.", self._label, sentence)
        for sentence in ledger.warnings():
            log.warning("%s: %s.", self._label, sentence)
        self._check_corrections(used)
        return used, ledger

    def _check_corrections(self, used: NDArray[np.int64]) -> None:
        """Warn about each correction without a row: the dataset may have been corrected itself."""
        ids = self._ids[used]
        for problem_id, correction in self._corrections.items():
            matching = used[ids == signed_id(problem_id)].tolist()
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

        kinds = {"id": "int64", "split": "int8", "level": "int32"}
        kinds |= dict.fromkeys(TEXTS, "large_string")
        try:
            with _without_progress_bars():
                return datasets.Dataset.from_generator(
                    read_table,
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
