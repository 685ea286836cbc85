"""Read rows of local files, one at a time, each with its place; `hub.py` reads those of datasets.

`table_source.py` turns them into problems. A reader's arguments name everything that decides its
rows, because they identify the cached table. JSON files of benchmarks and audits are read here too:
the first bytes decide the encoding, compressed files are unpacked while they are read, and numbers
keep all their digits.
"""

import bz2
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reasoning_lab.data.sources.row_values import JsonFloat, RowError, root_of
from reasoning_lab.types import Split, UserError

_BATCH_ROWS = 1024
_PARQUET = b"PAR1"
_SPREADSHEETS = (".csv", ".tsv", ".xls", ".xlsx")
_PROMPT_COLUMNS = ("prompt", "problem", "question")
# Python converts no longer text to an int.
_MAX_INT_DIGITS = 4300
_HEAD_BYTES = 4096
_BOM = b"\xef\xbb\xbf"
_COMPRESSIONS: Mapping[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
    b"\x28\xb5\x2f\xfd": partial(pa.CompressedInputStream, compression="zstd"),
}
_OTHER_FORMATS = {
    b"PK\x03\x04": "is a zip archive; unpack it first",
    b"ARROW1": "is an Arrow file; save it as parquet or JSON lines",
    b"version https://git-lfs": "is a Git LFS pointer, not the data; run git lfs pull",
    b"PAR1": "is a parquet file; and only problems are read from parquet",
}
_READ_ERRORS = (OSError, EOFError, UnicodeError, zlib.error, lzma.LZMAError, pa.ArrowException)


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


def needed_columns(columns: Sequence[str], used: Collection[str]) -> list[str]:
    """Those of `columns` that the `used` ones, which may be parts of a column, are read from."""
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
    with _parquet_errors(file):
        names: Sequence[str] = pq.read_schema(file).names
    for name in names:
        if names.count(name) > 1 and name in used:
            raise UserError(f"data.path: '{file}' has two columns '{name}'; rename one of them")
    return names, _numbered_rows(file, needed_columns(names, used) or list(names)[:1])


def _numbered_rows(file: Path, columns: list[str]) -> Iterator[tuple[str, Any]]:
    with _parquet_errors(file), pq.ParquetFile(file) as parquet:
        batches = parquet.iter_batches(_BATCH_ROWS, columns=columns)
        rows = chain.from_iterable(map(_python_rows, batches))
        yield from ((f"row {number}", row) for number, row in enumerate(rows, start=1))


@contextmanager
def _parquet_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"data.path: '{file}' is no readable parquet file ({one_line(error)}); give another, "
            "or rename it after its real format"
        ) from error


def one_line(error: Exception) -> str:
    """The error's message, cut short."""
    return " ".join(str(error).split())[:200]


def _python_rows(batch: pa.RecordBatch) -> list[Any]:
    """The rows of a batch; a row that Python has no values for becomes an error."""
    try:
        rows: list[Any] = batch.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException) as error:
        if batch.num_rows > 1:
            single = (batch.slice(start, 1) for start in range(batch.num_rows))
            return list(chain.from_iterable(map(_python_rows, single)))
        problem = f"a value cannot be read ({one_line(error)}); correct it"
        return [RowError("malformed_row", problem)]
    for field in batch.schema:
        # Keep the shortest decimal digits, not those of the double that holds the value.
        if pa.types.is_float32(field.type) or pa.types.is_float16(field.type):
            narrow = field.type.to_pandas_dtype()
            for row in rows:
                if row[field.name] is not None:
                    row[field.name] = float(str(np.dtype(narrow).type(row[field.name])))
    return rows


def json_lines(path: Path, key: str) -> Iterator[tuple[int, Any]]:
    """Yield each line's number, from 1, and its JSON value; empty lines are skipped.

    `key` is the config key or command option that names the file, for the error.

    Raises:
        UserError: The file cannot be read, or a line is not JSON; the line is named.
    """
    for number, content in parsed_lines(path, key):
        if isinstance(content, RowError):
            raise content.with_place(f"{path}, line {number}")
        yield number, content


def read_prompts(path: str, key: str) -> list[str]:
    """The prompts of a benchmark: the `prompt`, `problem` or `question` of each JSON line.

    Raises:
        UserError: The file cannot be read (names `key`), or a row is malformed (names its line).
    """
    return [_prompt(row, f"{path}, line {number}") for number, row in json_lines(Path(path), key)]


def _prompt(row: Any, place: str) -> str:
    columns = row if isinstance(row, dict) else {}
    prompt = next((columns[name] for name in _PROMPT_COLUMNS if name in columns), None)
    if not isinstance(prompt, str):
        listed = f" (its columns are {', '.join(row) or 'none'})" if isinstance(row, dict) else ""
        names = ", ".join(_PROMPT_COLUMNS)
        raise UserError(f"{place}: no text under {names}{listed}; give one of them")
    return prompt


def parsed_lines(path: Path, key: str) -> Iterator[tuple[int, Any]]:
    """As `json_lines`, but a line that is not JSON yields the `RowError` that says why.

    Raises:
        UserError: The file cannot be read.
    """
    with open_binary(path, key) as stream:
        encoding = _encoding(stream)
        lines: Iterator[bytes | str] = iter(stream)
        if encoding != "utf-8":
            # No universal newlines: a JSON string may contain U+2028 unescaped.
            lines = iter(io.TextIOWrapper(stream, encoding=encoding, newline="\n"))
        for number, line in enumerate(lines, start=1):
            if number == 1:
                line = line.removeprefix(_BOM) if isinstance(line, bytes) else line.lstrip("\ufeff")
            if line and not line.isspace():
                yield number, _parse(line)


def json_array(path: Path, key: str) -> list[Any] | None:
    """The elements of a file that is one JSON array; None when it does not begin as one.

    Raises:
        UserError: The file cannot be read, or it begins as an array and is not one.
    """
    with open_binary(path, key) as stream:
        encoding = _encoding(stream)
        head = stream.peek(_HEAD_BYTES)[:_HEAD_BYTES].decode(encoding, "ignore")
        if not head.lstrip("\ufeff \t\r\n").startswith("["):
            return None
        try:
            text = stream.read().decode(encoding).lstrip("\ufeff")
            return cast(list[Any], _DECODER.decode(text))
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{key}: '{path}' is no JSON array ({error}); correct it, or give JSON lines"
            ) from error


@contextmanager
def open_binary(path: Path, key: str) -> Iterator[io.BufferedReader]:
    """Open a file's bytes, unpacked if gzip, bzip2, xz or zstandard compressed it.

    Raises:
        UserError: It cannot be opened, or an error occurs while it is read.
    """
    try:
        with path.open("rb") as file:
            head = file.peek(64)[:64]
            matches = (text for magic, text in _OTHER_FORMATS.items() if head.startswith(magic))
            if (other_format := next(matches, None)) is not None:
                raise UserError(f"{key}: '{path}' {other_format}")
            openers = (opener for magic, opener in _COMPRESSIONS.items() if head.startswith(magic))
            opener = next(openers, None)
            with file if opener is None else io.BufferedReader(opener(file)) as stream:
                yield stream
    except _READ_ERRORS as error:
        raise UserError(
            f"{key}: cannot read '{path}' ({type(error).__name__}: {one_line(error)}); give a "
            "whole file of JSON lines in UTF-8"
        ) from error


def _encoding(stream: io.BufferedReader) -> str:
    """The encoding of a JSON text; a UTF-8 byte order mark is removed from its first line."""
    encoding = json.detect_encoding(stream.peek(4)[:4])
    return "utf-8" if encoding == "utf-8-sig" else encoding


def _parse(line: bytes | str) -> Any:
    """The JSON value of a line, or the error that says why it cannot be read."""
    try:
        return _DECODER.decode(line.decode() if isinstance(line, bytes) else line)
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        reason = f"not UTF-8 (byte 0x{byte:02x} at {error.start + 1}); save the file as UTF-8"
    except json.JSONDecodeError as error:
        reason = f"not JSON ({error.msg} at character {error.pos + 1}); write one object a line"
    except _DuplicateKeyError as error:
        reason = f"it has '{error}' twice; write each key once"
    except RecursionError:
        reason = "nested too deep; write one flat object a line"
    return RowError("malformed_row", reason)


class _DuplicateKeyError(ValueError):
    """An object has a key twice, so its value is ambiguous."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _DuplicateKeyError(next(key for key in content if keys.count(key) > 1))
    return content


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MAX_INT_DIGITS else digits


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=JsonFloat, parse_int=_integer)
