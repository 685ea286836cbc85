"""Read rows of local files and of hub datasets, one at a time, each with its place.

`table_source.py` turns them into problems. A reader's arguments name everything that decides its
rows, because they identify the cached table.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reasoning_lab.data.sources.json_lines import json_array, parsed_lines
from reasoning_lab.data.sources.row_values import RowError, root_of
from reasoning_lab.types import Split, UserError

_BATCH_ROWS = 1024
_PARQUET = b"PAR1"
_SPREADSHEETS = (".csv", ".tsv", ".xls", ".xlsx")


class ReadRow(NamedTuple):
    """One row of a dataset.

    Attributes:
        content: Its columns, or the error that says why it cannot be read.
        place: Its file and line, for an error.
        name: The same without folders.
        split: The dataset's split that holds it; None = the dataset has none.
        columns: The dataset's columns; None = the row has all of them.
    """

    content: Mapping[str, Any] | RowError
    place: str
    name: str
    split: Split | None = None
    columns: Sequence[str] | None = None


Read = Iterator[ReadRow]


def file_rows(path: str, content: str, used: Collection[str]) -> Read:
    """Yield the rows of a file, one at a time; a JSON array is read whole.

    Args:
        path: JSON lines or an array, compressed or not, or parquet.
        content: The file's hash.
        used: The columns to read, where the format stores columns apart.
    """
    file = Path(path)
    columns: Sequence[str] | None = None
    if _is_parquet(file):
        columns, numbered = _parquet_rows(file, used)
    elif file.suffix in _SPREADSHEETS:
        raise UserError(
            f"data.path: '{path}' is a {file.suffix} file, which is not read; save it as JSON lines"
        )
    elif (array := json_array(file, "data.path")) is not None:
        numbered = ((f"row {number}", row) for number, row in enumerate(array, start=1))
    else:
        numbered = ((f"line {number}", row) for number, row in parsed_lines(file, "data.path"))
    # Arrow stores no name that is invalid Unicode.
    place, name = (text.encode("utf-8", "replace").decode() for text in (path, file.name))
    for number, row in numbered:
        if not isinstance(row, dict | RowError):
            row = RowError(
                "malformed_row", f"a {type(row).__name__}, not an object; write one a line"
            )
        yield ReadRow(row, f"{place}, {number}", f"{name}, {number}", None, columns)


def hub_rows(
    dataset: str,
    config: str | None,
    revision: str,
    splits: Mapping[str, str],
    streaming: bool,
    folder: str | None,
    content: str,
    used: Collection[str],
) -> Read:
    """Yield the rows of a dataset, split by split."""
    import datasets

    for split, name in splits.items():
        try:
            dataset_rows = datasets.load_dataset(
                folder or dataset,
                config,
                split=name,
                revision=None if folder else revision,
                streaming=streaming,
            )
            columns = dataset_rows.column_names
            if columns is not None and (selected := _needed_columns(columns, used)):
                dataset_rows = dataset_rows.select_columns(selected)
            for number, row in enumerate(dataset_rows, start=1):
                place = f"{folder or dataset} ({name}), row {number}"
                row_name = f"{dataset} ({name}), row {number}"
                yield ReadRow(row, place, row_name, Split(split), columns)
        except (
            Exception
        ) as error:  # Each storage and version raises its own error without a network.
            reason = " ".join(str(error).split())[:200]
            problem = f"data.path: cannot read split '{name}' of '{folder}'"
            remedy = "give a folder with that split, or name another in data.splits"
            if folder is None:
                problem = f"data.dataset: cannot load '{dataset}', split '{name}', at {revision}"
                remedy = "connect once, so that it is cached, or give a local copy with data.path"
            raise UserError(f"{problem} ({type(error).__name__}: {reason}); {remedy}") from error


def _needed_columns(columns: Sequence[str], used: Collection[str]) -> list[str]:
    roots = {root_of(column, columns) for column in used}
    return [name for name in columns if name in roots]


def _is_parquet(file: Path) -> bool:
    if file.suffix == ".parquet":
        return True
    try:
        with file.open("rb") as start:
            return start.read(len(_PARQUET)) == _PARQUET
    except OSError as error:
        raise UserError(
            f"data.path: cannot read '{file}' ({error.strerror}); give a file that you may read"
        ) from error


def _parquet_rows(
    file: Path, used: Collection[str]
) -> tuple[Sequence[str], Iterator[tuple[str, Any]]]:
    """The names of all columns, and the rows with the used columns."""
    try:
        names: Sequence[str] = pq.read_schema(file).names
    except (OSError, pa.ArrowException) as error:
        raise _unreadable_parquet(file, error) from error
    for name in names:
        if names.count(name) > 1 and name in used:
            raise UserError(f"data.path: '{file}' has two columns '{name}'; rename one of them")
    return names, _numbered_rows(file, _needed_columns(names, used) or list(names)[:1])


def _numbered_rows(file: Path, columns: list[str]) -> Iterator[tuple[str, Any]]:
    number = 0
    try:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=columns):
                for row in _python_rows(batch):
                    number += 1
                    yield f"row {number}", row
    except (OSError, pa.ArrowException) as error:
        raise _unreadable_parquet(file, error) from error


def _unreadable_parquet(file: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(
        f"data.path: '{file}' is no readable parquet file ({reason}); give another, or rename "
        "it after its real format"
    )


def _python_rows(batch: pa.RecordBatch) -> list[Any]:
    """The rows of a batch; a row that Python has no values for becomes an error."""
    try:
        rows: list[Any] = batch.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException) as error:
        if batch.num_rows > 1:
            return [
                row
                for start in range(batch.num_rows)
                for row in _python_rows(batch.slice(start, 1))
            ]
        reason = " ".join(str(error).split())[:200]
        return [RowError("malformed_row", f"a value cannot be read ({reason}); correct it")]
    for field in batch.schema:
        # Keep the shortest decimal digits, not those of the double that holds the value.
        if pa.types.is_float32(field.type) or pa.types.is_float16(field.type):
            narrow = field.type.to_pandas_dtype()
            for row in rows:
                if row[field.name] is not None:
                    row[field.name] = float(str(np.dtype(narrow).type(row[field.name])))
    return rows
