"""Rows of local files and of the hub's datasets, one at a time, each with its place.

Under `sources.py`, which turns them into problems. The arguments of a reader name all that
decides what it yields: they are how the table made from it is found again.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reasoning_lab.data.json_lines import json_lines
from reasoning_lab.types import Split, UserError

# A row, its place for an error, the same without folders, and the split that holds it, if any.
Read = Iterator[tuple[Mapping[str, Any], str, str, Split | None]]

_BATCH_ROWS = 1024


def file_rows(path: str, content: str) -> Read:
    """The rows of a file, one at a time but for a JSON array, which is read whole."""
    file = Path(path)
    if file.suffix == ".parquet":
        numbered: Iterator[tuple[str, Any]] = _parquet_rows(file)
    elif file.suffix == ".json" and _begins_an_array(file):
        numbered = _array_rows(file)
    else:
        numbered = _json_lines(file)
    for number, row in numbered:
        place = f"{path}, {number}"
        if not isinstance(row, dict):
            raise UserError(f"{place}: a {type(row).__name__}, not an object; write one a line")
        yield row, place, f"{file.name}, {number}", None


def hub_rows(
    dataset: str,
    config: str | None,
    revision: str,
    splits: Mapping[str, str],
    streaming: bool,
    folder: str | None,
    content: str,
) -> Read:
    """The rows of a dataset, split by split."""
    import datasets

    for split, name in splits.items():
        try:
            loaded = datasets.load_dataset(
                folder or dataset,
                config,
                split=name,
                revision=None if folder else revision,
                streaming=streaming,
            )
            for number, row in enumerate(loaded, start=1):
                place = f"{folder or dataset} ({name}), row {number}"
                yield row, place, f"{dataset} ({name}), row {number}", Split(split)
        except Exception as error:  # Each storage and each version has its own for no network.
            said = " ".join(str(error).split())[:200]
            what = f"data.path: cannot read split '{name}' of '{folder}'"
            remedy = "give a folder with that split, or name another in data.splits"
            if folder is None:
                what = f"data.dataset: cannot load '{dataset}', split '{name}', at {revision}"
                remedy = "connect once, so that it is kept, or give a local copy with data.path"
            raise UserError(f"{what} ({type(error).__name__}: {said}); {remedy}") from error


def _json_lines(file: Path) -> Iterator[tuple[str, Any]]:
    return ((f"line {number}", row) for number, row in json_lines(file, "data.path"))


def _begins_an_array(file: Path) -> bool:
    with file.open("rb") as start:
        return start.read(64).lstrip().startswith(b"[")


def _array_rows(file: Path) -> Iterator[tuple[str, Any]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"data.path: '{file}' is no JSON array ({error}); mend it, or give JSON lines"
        ) from error
    for number, row in enumerate(content, start=1):
        yield f"row {number}", row


def _parquet_rows(file: Path) -> Iterator[tuple[str, Any]]:
    try:
        with pq.ParquetFile(file) as parquet:
            number = 0
            for batch in parquet.iter_batches(_BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"data.path: '{file}' is no readable parquet file ({error}); give another"
        ) from error
