"""Remembers in which state a file was when it was hashed, as git's index does.

A look-up of an artifact hashes only files whose size or time of change differ from those of their
last hash. That time is ctime: the kernel sets it whenever content or name change, no program can
set it back, and a copy has one of its own. As it belongs to one machine, the cache lies beside the
artifact in `.FINGERPRINT.stat`, and the artifact's folder holds only what its record names. The
cache's own date is the artifact's last use.
"""

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from reasoning_lab.system.files import content_hash, sha256, write_atomically


def cache_file(artifact: Path) -> Path:
    """Where the states of an artifact's files are remembered."""
    return artifact.with_name(f".{artifact.name}.stat")


def last_use_s(artifact: Path) -> float | None:
    """When the artifact was last looked up, in seconds since the epoch; None = not known."""
    try:
        return cache_file(artifact).stat().st_mtime
    except OSError:
        return None


def sha256_of(file: Path, artifact: Path) -> str:
    """SHA-256 (hex) of a file; of an artifact's, the known one while the file has not changed.

    `artifact` is the folder, or a link to it, that `file` lies in.
    """
    name = file.relative_to(artifact).as_posix()
    return StatCache(artifact.resolve()).known(file, name) or sha256(file)


def folder_hash(folder: Path) -> str:
    """The `content_hash` of a folder, which reads of an artifact only files that have changed."""
    return content_hash(folder, lambda file: sha256_of(file, folder))


class _HashedState(NamedTuple):
    """A file when it was hashed: its size, its time of change, and the SHA-256 in hex."""

    bytes: int
    changed: int
    sha256: str


class StatCache:
    """SHA-256 of an artifact's files, computed only where a file has changed.

    Args:
        artifact: The artifact's folder.
        hash_of: Hashes a file that has changed.
        changed_at: When a file last changed, by the file system's clock. It may be coarse: a
            checksum is kept only if the clock has moved on since the file's last change, so that
            a later change must have another time. (git calls the other files racily clean.)
    """

    def __init__(
        self,
        artifact: Path,
        hash_of: Callable[[Path], str] = sha256,
        changed_at: Callable[[os.stat_result], int] = lambda stat: stat.st_ctime_ns,
    ) -> None:
        self._file = cache_file(artifact)
        self._hash_of = hash_of
        self._changed_at = changed_at
        self._earlier = _read(self._file)
        self._states: dict[str, _HashedState] = {}

    def known(self, file: Path, name: str) -> str | None:
        """The checksum of the artifact's file `name`; None = it must be computed.

        `file` is where it lies now, which while the artifact is being made is in another folder.
        """
        stat, earlier = file.stat(), self._earlier.get(name)
        if earlier is None or earlier[:2] != (stat.st_size, self._changed_at(stat)):
            return None
        self._states[name] = earlier
        return earlier.sha256

    def sha256(self, file: Path, name: str) -> str:
        """The checksum of the artifact's file `name`, arguments as for `known`."""
        return self.known(file, name) or self.computed(file, name)

    def computed(self, file: Path, name: str) -> str:
        """The checksum, hashed whatever is known; arguments as for `known`."""
        stat, clock = file.stat(), self._clock()
        checksum = self._hash_of(file)
        if self._changed_at(stat) < clock:
            self._states[name] = _HashedState(stat.st_size, self._changed_at(stat), checksum)
        return checksum

    def save(self, used_s: float | None = None) -> None:
        """Remember the files whose checksum was asked for, and the last use; None = it is now.

        A store that cannot be written is left as it is.
        """
        with suppress(OSError):
            if self._states != self._earlier or not self._file.exists():
                text = json.dumps(self._states)
                write_atomically(self._file, lambda draft: draft.write_text(text, "utf-8"))
            os.utime(self._file, None if used_s is None else (used_s, used_s))

    def forget(self) -> None:
        """Forget every file, so that the next look-up hashes the whole artifact."""
        self._earlier = {}
        with suppress(OSError):
            self._file.unlink(missing_ok=True)

    def _clock(self) -> int:
        """The file system's time; 0 where it cannot be asked, as nothing can be saved there."""
        try:
            with tempfile.TemporaryFile(dir=self._file.parent) as probe:
                return self._changed_at(os.fstat(probe.fileno()))
        except OSError:
            return 0


def _read(file: Path) -> dict[str, _HashedState]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {name: _HashedState(*state) for name, state in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
