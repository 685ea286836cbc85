"""Read rows of hub datasets, or of local copies of them, one at a time, each with its place.

A dataset that is streamed is read several files at a time. Only the columns that are used are kept,
one Arrow table a file in the cache of the `datasets` library, so a run that was interrupted reads
the files again that it had not finished, and no others.
"""

import hashlib
import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from reasoning_lab.data.sources.readers import Read, ReadRow, needed_columns, one_line
from reasoning_lab.system.files import flush_and_rename
from reasoning_lab.types import Split, UserError

if TYPE_CHECKING:
    from datasets import IterableDataset

log = logging.getLogger(__name__)

_FILES_AT_A_TIME = 4
_BATCH_ROWS = 1024


def hub_rows(
    dataset: str,
    config: str | None,
    revision: str,
    splits: Mapping[str, str],
    streaming: bool,
    folder: str | None,
    first_rows: int | None,
    content: str,
    used: Collection[str],
) -> Read:
    """Yield the rows of a dataset, or the first of them, split by split."""
    import datasets

    for split, name in splits.items():
        try:
            rows = datasets.load_dataset(
                folder or dataset,
                config,
                split=name,
                revision=None if folder else revision,
                streaming=streaming or first_rows is not None,
            )
            columns = rows.column_names
            if columns is not None and (selected := needed_columns(columns, used)):
                rows = rows.select_columns(selected)
            if first_rows is not None:
                rows = rows.take(first_rows)
            elif streaming:
                rows = _streamed(rows, [content, config, name, *(rows.column_names or [])])
            for number, row in enumerate(rows, start=1):
                place = f"{folder or dataset} ({name}), row {number}"
                row_name = f"{dataset} ({name}), row {number}"
                yield ReadRow(row, place, row_name, Split(split), columns)
        # Each storage and version raises its own error without a network.
        except Exception as error:
            problem = f"data.path: cannot read split '{name}' of '{folder}'"
            remedy = "give a folder with that split, or name another in data.splits"
            if folder is None:
                problem = f"data.dataset: cannot load '{dataset}', split '{name}', at {revision}"
                remedy = "connect once, so that it is cached, or give a local copy with data.path"
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise UserError(f"{problem} ({reason}); {remedy}") from error


def _streamed(rows: "IterableDataset", identity: Sequence[str | None]) -> Iterator[dict[str, Any]]:
    """All rows of a stream, in its order, from memory-mapped tables; each file is read once.

    The rows of a file come as soon as it is read, so that a wrong mapping shows before the last.

    Args:
        rows: The columns to keep.
        identity: What decides them.
    """
    import datasets

    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "reasoning_lab-streamed" / digest
    folder.mkdir(parents=True, exist_ok=True)
    count, stopped = rows.num_shards, Event()
    tables = [folder / f"{number:05d}.arrow" for number in range(count)]
    with FileLock(folder / ".lock"), ThreadPoolExecutor(_FILES_AT_A_TIME) as pool:
        try:
            files = [rows.shard(count, number) for number in range(count)]
            written = pool.map(partial(_write_table, stopped=stopped), files, tables)
            for number, (table, _) in enumerate(zip(tables, written, strict=True), start=1):
                log.info("Read file %d of %d of a streamed dataset.", number, count)
                yield from datasets.Dataset.from_file(str(table))
        except BaseException:
            stopped.set()
            pool.shutdown(cancel_futures=True)
            raise


def _write_table(rows: "IterableDataset", path: Path, stopped: Event) -> None:
    """Write the rows unless they are there; gives up when `stopped` is set."""
    from datasets.arrow_writer import ArrowWriter

    if path.exists():
        return
    draft = path.with_suffix(".draft")
    with ArrowWriter(path=str(draft), features=rows.features) as writer:
        for batch in rows.with_format("arrow").iter(_BATCH_ROWS):
            if stopped.is_set():
                return
            writer.write_table(batch)
        writer.finalize()
    flush_and_rename(draft, path)
