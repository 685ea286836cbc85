"""Files that survive a lost machine: flushed, renamed into place, told apart from damaged ones.

A sealed file or folder carries the start of its own checksum in its name, so it needs no
second file that a kill could separate from it.
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

_SEAL = re.compile(r"-([0-9a-f]{16})$")


def sha256(file: Path) -> str:
    """Checksum of one file, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def content_hash(path: Path) -> str:
    """Sha256 (hex) of a file, or of a folder's files with their names; blind to where it lies."""
    if path.is_file():
        return sha256(path)
    files = sorted(entry for entry in path.rglob("*") if entry.is_file())
    names = {str(file.relative_to(path)): sha256(file) for file in files}
    text = json.dumps(names, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def publish(draft: Path, path: Path) -> None:
    """Rename `draft`, a file or folder, to `path` once its contents are on the disk."""
    for entry in [*draft.rglob("*"), draft] if draft.is_dir() else [draft]:
        _flush(entry)
    draft.rename(path)
    _flush(path.parent)


def replaced(path: Path, write: Callable[[Path], object]) -> Path:
    """Have `write` fill a hidden sibling of `path` and rename it there; a reader sees no half."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def dated(parent: Path) -> Path:
    """A folder below `parent`, not made yet, that is named by this moment."""
    return parent / datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")


def seal(draft: Path, stem: str) -> Path:
    """Publish `draft` beside itself as `stem`, a hyphen and 16 digits of its checksum."""
    path = draft.with_name(f"{stem}-{content_hash(draft)[:16]}")
    remove(path)
    publish(draft, path)
    return path


def intact(path: Path) -> bool:
    """Whether a sealed file or folder holds what its name says."""
    digits = _SEAL.search(path.name)
    return digits is not None and content_hash(path).startswith(digits[1])


def sealed(folder: Path, stem: str) -> Path | None:
    """What `seal` left in `folder` under `stem`; damaged ones are named and removed."""
    for path in folder.glob(f"{stem}-*"):
        if intact(path):
            return path
        log.warning("%s is damaged; making it again.", path)
        remove(path)
    return None


def remove(path: Path) -> None:
    """Delete a file or a folder, if there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(entry: Path) -> None:
    """Force a file or folder to the disk: the rename must not overtake its contents."""
    descriptor = os.open(entry, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
