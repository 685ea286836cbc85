"""Files that survive a crash: flushed to disk, renamed into place, checked for damage.

A checksummed file or folder has the first digits of its own checksum in its name. No second file
is needed, which a kill could separate from it.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

log = logging.getLogger(__name__)

_CHECKSUM_SUFFIX = re.compile(r"-([0-9a-f]{16})$")


def sha256(file: Path) -> str:
    """SHA-256 of one file, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def content_hash(path: Path, hash_of: Callable[[Path], str] = sha256) -> str:
    """SHA-256 (hex) of a file, or of a folder's files with their relative names.

    `hash_of` gives that of each file.
    """
    if path.is_file():
        return hash_of(path)
    files = sorted(entry for entry in path.rglob("*") if entry.is_file())
    names = {str(file.relative_to(path)): hash_of(file) for file in files}
    text = json.dumps(names, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def flush_and_rename(draft: Path, path: Path) -> None:
    """Flush `draft`, a file or folder, to the disk and rename it to `path`."""
    for entry in [*draft.rglob("*"), draft] if draft.is_dir() else [draft]:
        _flush(entry)
    draft.rename(path)
    _flush(path.parent)


def write_atomically(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a hidden sibling of `path`, then rename it: no reader sees half a file."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def timestamped_folder(parent: Path) -> Path:
    """A path below `parent` named after the current time; the folder is not created."""
    return parent / datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")


def rename_with_checksum(draft: Path, stem: str) -> Path:
    """Flush `draft` and rename it to `STEM-CHECKSUM`, with 16 digits of its checksum."""
    path = draft.with_name(f"{stem}-{content_hash(draft)[:16]}")
    remove(path)
    flush_and_rename(draft, path)
    return path


def matches_checksum(path: Path) -> bool:
    """Whether the contents of a file or folder match the checksum in its name."""
    digits = _CHECKSUM_SUFFIX.search(path.name)
    return digits is not None and content_hash(path).startswith(digits[1])


def find_checksummed(folder: Path, stem: str) -> Path | None:
    """Find what `rename_with_checksum` left in `folder` under `stem`; damaged ones are removed."""
    for path in folder.glob(f"{stem}-*"):
        if matches_checksum(path):
            return path
        log.warning("%s is damaged and is computed again.", path)
        remove(path)
    return None


def checksummed_names(folder: Path) -> frozenset[str]:
    """Everything below `folder` that `rename_with_checksum` has named; contents are not read."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return frozenset(name for name in names if _CHECKSUM_SUFFIX.search(name))


def empty_folder(folder: Path) -> None:
    """Make `folder` with its parents, or remove everything in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in folder.iterdir():
        remove(entry)


def remove(path: Path) -> None:
    """Delete a file or a folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(entry: Path) -> None:
    """Force a file or folder to the disk, so that its contents arrive before the rename."""
    descriptor = os.open(entry, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
