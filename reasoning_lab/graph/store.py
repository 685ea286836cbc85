"""Content-addressed artifacts: fingerprints, locks, atomic commits and checked look-ups.

Place in the flow: the runner asks `Store.obtain` for a stage's artifact; what exists is
verified and reused, what doesn't is built beside its final place and renamed into it, so
a reader never sees half an artifact. Layout: `<root>/<stage>/<fingerprint>/artifact.json`
next to the stage's files, and `<root>/../work/<stage>-<fingerprint>/` for checkpoints.
Follows marin's `execution/lazy.py` in keeping what a result is apart from where it ran.
Simplified: POSIX file systems only. A look-up hashes a file only once it has changed, by its size
and its time of change (`stat_cache.py`); what a disk loses in silence, `store verify` finds.
"""

import errno
import logging
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from pathlib import Path

from filelock import FileLock, Timeout

from reasoning_lab.graph.record import (
    CorruptArtifactError,
    FileRecord,
    Metadata,
    OlderLayoutError,
    Record,
)
from reasoning_lab.graph.running import declare_run
from reasoning_lab.graph.stat_cache import StatCache
from reasoning_lab.system.files import flush_and_rename
from reasoning_lab.types import UserError

log = logging.getLogger(__name__)

_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_STAGE = re.compile(r"\w[\w.-]*")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_FULL_BYTES = 1 << 20


class Store:
    """All artifacts below one root folder, shared by any number of processes.

    Args:
        root: Usually `runs/store`; made on first use. Checkpoints go to `work` beside it.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    @property
    def work(self) -> Path:
        """The folder of what unfinished stages have saved, and of what stages share meanwhile."""
        return self.root.parent / "work"

    def running(self, fingerprints: Iterable[str]) -> AbstractContextManager[object]:
        """Keep artifacts, made or not, from being pruned until a `with` ends.

        Raises:
            UserError: The store's folder cannot be written.
        """
        with writing(self.root):
            return declare_run(self.root, fingerprints)

    def lookup(self, stage: str, fingerprint: str) -> Record | None:
        """The verified artifact, or None when there is none to be used.

        A corrupt one is moved aside and logged, unless another process holds it: that
        one is about to replace it.
        """
        path = self._path(stage, fingerprint)
        try:
            return _verified(path)
        except CorruptArtifactError:
            try:
                lock = acquire(lock_file(path))
            except Timeout:
                return None
        with lock:
            return self._lookup_locked(path)

    def record(self, stage: str, fingerprint: str) -> Record | None:
        """What is written of the artifact, without a look at its other files; None = nothing."""
        try:
            return Record.read(self._path(stage, fingerprint))
        except CorruptArtifactError:
            return None

    def obtain(
        self, stage: str, fingerprint: str, build: Callable[[Path, Path], Metadata]
    ) -> tuple[Record, bool]:
        """Reuse the artifact or build it, at most once among all processes.

        Args:
            stage: The stage's name in the recipe.
            fingerprint: What `fingerprint(identity)` gave for the stage.
            build: Called as `build(out_dir, work_dir)`. It fills the empty `out_dir`, which
                becomes the artifact, and may keep checkpoints in `work_dir`, which outlives
                a failure or a kill and is removed after the commit.

        Returns:
            The artifact, and True = it existed already, False = this call built it.

        Raises:
            UserError: The disk is full, or the store's folder cannot be written.
            Exception: Whatever `build` raised, after its `out_dir` was removed.
        """
        path = self._path(stage, fingerprint)
        work_dir = self.work / f"{stage}-{fingerprint}"
        try:
            lock = acquire(lock_file(path))
        except Timeout:
            log.info("Another process is making %s/%s; waiting.", stage, fingerprint)
            lock = acquire(lock_file(path), timeout_s=-1)
        with lock:
            artifact = self._lookup_locked(path)
            reused = artifact is not None
            if artifact is None:
                artifact = self._build(path, work_dir, build)
            shutil.rmtree(work_dir, ignore_errors=True)
            return artifact, reused

    def artifacts(self) -> Iterator[Record]:
        """Every committed artifact, by stage and fingerprint; files are not verified.

        One with an unreadable record is passed over with a logged warning, one of an older layout
        without, see `older_layout_notice`.
        """
        for path, content in self.records():
            if isinstance(content, Record):
                yield content
            elif not isinstance(content, OlderLayoutError):
                log.warning("Passed over %s: %s.", path, content)

    def records(self) -> Iterator[tuple[Path, Record | CorruptArtifactError]]:
        """Each committed artifact's folder, with its record or with why it cannot be read."""
        for path in sorted(self.root.glob("*/*")):
            if path.is_dir() and _FINGERPRINT.fullmatch(path.name):
                try:
                    yield path, Record.read(path)
                except CorruptArtifactError as fault:
                    yield path, fault

    def older_layout_notice(self) -> str | None:
        """One sentence about artifacts of an earlier version of the lab; None = there are none."""
        older = sum(isinstance(content, OlderLayoutError) for _, content in self.records())
        if not older:
            return None
        return (
            f"{self.root}: {older} of its artifacts, made by an earlier version, are not "
            "reused; a policy among them can still be named by model.path; `reasoning-lab store "
            "prune` removes the others"
        )

    def _path(self, stage: str, fingerprint: str) -> Path:
        if not _STAGE.fullmatch(stage) or not _FINGERPRINT.fullmatch(fingerprint):
            raise ValueError(f"not a stage and a fingerprint: {stage!r}, {fingerprint!r}")
        return self.root / stage / fingerprint

    def _lookup_locked(self, path: Path) -> Record | None:
        try:
            return _verified(path)
        except CorruptArtifactError as fault:
            taken = [int(p.suffix[9:]) for p in path.parent.glob(f"{path.name}.corrupt-*")]
            aside = path.with_name(f"{path.name}.corrupt-{max(taken, default=0) + 1}")
            path.rename(aside)
            log.warning("%s: %s; moved it to %s.", path, fault, aside.name)
            return None

    def _build(self, path: Path, work_dir: Path, build: Callable[[Path, Path], Metadata]) -> Record:
        """Fill a sibling of `path` and rename it there; the caller holds the lock."""
        for abandoned in path.parent.glob(f".building-{path.name}-*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        out_dir = path.with_name(f".building-{path.name}-{uuid.uuid4().hex[:8]}")
        try:
            work_dir.mkdir(parents=True, exist_ok=True)
            out_dir.mkdir()
            return _commit(out_dir, path, build(out_dir, work_dir))
        except Exception as error:
            if isinstance(error, UserError) or not _disk_full(error, path.parent):
                raise
            raise UserError(
                f"The disk is full at {self.root} while stage '{path.parent.name}' was being "
                "made: free some space and run the same command again to go on."
            ) from error
        finally:
            shutil.rmtree(out_dir, ignore_errors=True)


def lock_file(path: Path) -> Path:
    """Whoever makes or removes what lies at `path` holds a lock on this file."""
    return path.with_name(f".{path.name}.lock")


def acquire(lock: Path, timeout_s: float = 0) -> AbstractContextManager[object]:
    """The lock on a file until a `with` ends; -1 = wait for ever.

    Raises:
        Timeout: Another process holds it.
        UserError: The folder cannot be written.
    """
    with writing(lock.parent):
        return FileLock(lock).acquire(timeout=timeout_s)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Make the folder, and say it in one sentence where nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except Timeout:
        raise
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be written ({error.strerror}): free space "
            "there or choose an output folder that you may write to."
        ) from error


def _commit(out_dir: Path, path: Path, metadata: Metadata) -> Record:
    """Record, flush and publish `out_dir` as `path`, in that order."""
    contents = sorted(out_dir.rglob("*"))
    if links := [entry for entry in contents if entry.is_symlink()]:
        raise ValueError(f"{links[0].name} is a link; an artifact holds its own files")
    cache = StatCache(path)
    names = {entry.relative_to(out_dir).as_posix(): entry for entry in contents if entry.is_file()}
    files = {
        name: FileRecord(file.stat().st_size, cache.computed(file, name))
        for name, file in names.items()
    }
    record = Record(
        path=path,
        stage=path.parent.name,
        fingerprint=path.name,
        files=files,
        **{item.name: getattr(metadata, item.name) for item in fields(Metadata)},
    )
    record.write(out_dir)
    flush_and_rename(out_dir, path)
    cache.save()
    return Record.read(path)


def _verified(path: Path) -> Record | None:
    if not path.exists():
        return None
    artifact, cache = Record.read(path), StatCache(path)
    artifact.verify(cache.sha256)
    cache.save()
    return artifact


def _disk_full(error: BaseException, folder: Path) -> bool:
    """Whether `error` came of a full disk; torch and safetensors hide the error number."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _NO_SPACE:
            return True
        if "No space left on device" in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return shutil.disk_usage(folder).free < _FULL_BYTES
