"""Read JSON files of problems, benchmarks and audits: one object a line, or one array of objects.

The first bytes decide the encoding. Compressed files are unpacked while they are read, and numbers
keep all their digits. Lines are read one at a time.
"""

import bz2
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from reasoning_lab.data.sources.row_values import JsonFloat, RowError
from reasoning_lab.types import UserError

_PROMPT_COLUMNS = ("prompt", "problem", "question")
# Python converts no longer text to an int.
_MAX_INT_DIGITS = 4300
_HEAD_BYTES = 4096
_BOM = b"\xef\xbb\xbf"
_GZIP, _BZIP2, _XZ, _ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"
_OTHER_FORMATS = {
    b"PK\x03\x04": "is a zip archive; unpack it first",
    b"ARROW1": "is an Arrow file; save it as parquet or JSON lines",
    b"version https://git-lfs": "is a Git LFS pointer, not the data; run git lfs pull",
    b"PAR1": "is a parquet file; and only problems are read from parquet",
}
_READ_ERRORS = (OSError, EOFError, UnicodeError, zlib.error, lzma.LZMAError, pa.ArrowException)


def json_lines(path: Path, key: str) -> Iterator[tuple[int, Any]]:
    """Yield each line's number, from 1, and its JSON value; empty lines are skipped.

    Args:
        path: The file.
        key: The config key or command option that names the file, for the error.

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
            with _unpacked(file, head) as stream:
                yield stream
    except _READ_ERRORS as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{key}: cannot read '{path}' ({type(error).__name__}: {reason}); give a whole file of "
            "JSON lines in UTF-8"
        ) from error


def _unpacked(file: io.BufferedReader, head: bytes) -> io.BufferedReader:
    stream: Any = file
    if head.startswith(_GZIP):
        stream = io.BufferedReader(cast(Any, gzip.GzipFile(fileobj=file)))
    elif head.startswith(_BZIP2):
        stream = io.BufferedReader(cast(Any, bz2.BZ2File(file)))
    elif head.startswith(_XZ):
        stream = io.BufferedReader(cast(Any, lzma.open(cast(BinaryIO, file))))  # noqa: SIM115
    elif head.startswith(_ZSTD):
        stream = io.BufferedReader(pa.CompressedInputStream(file, "zstd"))
    return cast(io.BufferedReader, stream)


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
