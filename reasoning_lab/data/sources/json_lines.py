"""JSON files of problems, benchmarks and audits: one object a line, or one array of objects.

Bytes become text by the encoding that they begin with, compressed files are read as they are, and
numbers keep all their digits. Lines are read one at a time.
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

# Python refuses to make an int of more digits.
_MAX_INT_DIGITS = 4300
_HEAD_BYTES = 4096
_BOM = b"\xef\xbb\xbf"
_GZIP, _BZIP2, _XZ, _ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"
_FOREIGN = {
    b"PK\x03\x04": "is a zip archive; unpack it first",
    b"ARROW1": "is an Arrow file; save it as parquet or JSON lines",
    b"version https://git-lfs": "is a Git LFS pointer, not the data; run git lfs pull",
    b"PAR1": "is a parquet file; and only problems are read from parquet",
}
_READ_ERRORS = (OSError, EOFError, UnicodeError, zlib.error, lzma.LZMAError, pa.ArrowException)


def json_lines(path: Path, key: str) -> Iterator[tuple[int, Any]]:
    """Yield each line's number, from 1, and what it holds; empty lines are passed over.

    Args:
        path: The file.
        key: What names it, for the error: a config key or a command's option.

    Raises:
        UserError: The file cannot be read, or a line is no JSON; the line is named.
    """
    for number, content in parsed_lines(path, key):
        if isinstance(content, RowError):
            raise content.at(f"{path}, line {number}")
        yield number, content


def parsed_lines(path: Path, key: str) -> Iterator[tuple[int, Any]]:
    """As `json_lines`, but what a line that is no JSON holds is the `RowError` that says why.

    Raises:
        UserError: The file cannot be read.
    """
    with opened(path, key) as stream:
        encoding = _encoding(stream)
        lines: Iterator[bytes | str] = iter(stream)
        if encoding != "utf-8":
            # Not universal newlines: a JSON string may hold U+2028 and its like as they are.
            lines = iter(io.TextIOWrapper(stream, encoding=encoding, newline="\n"))
        for number, line in enumerate(lines, start=1):
            if number == 1:
                line = line.removeprefix(_BOM) if isinstance(line, bytes) else line.lstrip("\ufeff")
            if line and not line.isspace():
                yield number, _content(line)


def json_array(path: Path, key: str) -> list[Any] | None:
    """The elements of a file that is one JSON array; None when it does not begin as one.

    Raises:
        UserError: The file cannot be read, or what begins as an array is none.
    """
    with opened(path, key) as stream:
        encoding = _encoding(stream)
        head = stream.peek(_HEAD_BYTES)[:_HEAD_BYTES].decode(encoding, "ignore")
        if not head.lstrip("\ufeff \t\r\n").startswith("["):
            return None
        try:
            text = stream.read().decode(encoding).lstrip("\ufeff")
            return cast(list[Any], _DECODER.decode(text))
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{key}: '{path}' is no JSON array ({error}); mend it, or give JSON lines"
            ) from error


@contextmanager
def opened(path: Path, key: str) -> Iterator[io.BufferedReader]:
    """The bytes of a file, unpacked where it is compressed by gzip, bzip2, xz or zstandard.

    Raises:
        UserError: It cannot be read, also while it is read.
    """
    try:
        with path.open("rb") as file:
            head = file.peek(64)[:64]
            foreign = next((text for magic, text in _FOREIGN.items() if head.startswith(magic)), "")
            if foreign:
                raise UserError(f"{key}: '{path}' {foreign}")
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
    """The encoding that a JSON text begins with; a mark of UTF-8 is left to its first line."""
    encoding = json.detect_encoding(stream.peek(4)[:4])
    return "utf-8" if encoding == "utf-8-sig" else encoding


def _content(line: bytes | str) -> Any:
    """What a line holds, or the error that says why it cannot be read."""
    try:
        return _DECODER.decode(line.decode() if isinstance(line, bytes) else line)
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        reason = f"not UTF-8 (byte 0x{byte:02x} at {error.start + 1}); save the file as UTF-8"
    except json.JSONDecodeError as error:
        reason = f"not JSON ({error.msg} at character {error.pos + 1}); write one object a line"
    except _DuplicateKeyError as error:
        reason = f"'{error}' stands in it twice; write each key once"
    except RecursionError:
        reason = "nested too deep; write one flat object a line"
    return RowError("malformed_row", reason)


class _DuplicateKeyError(ValueError):
    """An object has a key twice, so that it is unknown which value was meant."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _DuplicateKeyError(next(key for key in content if keys.count(key) > 1))
    return content


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MAX_INT_DIGITS else digits


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=JsonFloat, parse_int=_integer)
