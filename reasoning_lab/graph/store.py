"""Content-addressed artifacts: fingerprints, locks, atomic commits and checked look-ups.

Place in the flow: the runner asks `Store.obtain` for a stage's artifact; what exists is
verified and reused, what doesn't is built beside its final place and renamed into it, so
a reader never sees half an artifact. Layout: `<root>/<stage>/<fingerprint>/artifact.json`
next to the stage's files, and `<root>/../work/<stage>-<fingerprint>/` for checkpoints.
Follows marin's `execution/lazy.py` in keeping what a result is apart from where it ran.
Simplified: POSIX file systems only, and every look-up reads the whole artifact.
"""

import errno
import hashlib
import json
import logging
import math
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from reasoning_lab.system.files import flush_and_rename, sha256
from reasoning_lab.types import UserError

log = logging.getLogger(__name__)

RECORD = "artifact.json"
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_STAGE = re.compile(r"\w[\w.-]*")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_FULL_BYTES = 1 << 20


def fingerprint(identity: Mapping[str, Any]) -> str:
    """16 hex digits of the sha256 of `identity` as canonical JSON.

    Keys are sorted, floats are written by `repr`, tuples equal lists; 1 and 1.0 differ.

    Raises:
        ValueError: A number is NaN or infinite, so it equals nothing that can be looked up.
        TypeError: A key is not a string, or a value has no JSON form.
    """
    return _digest(identity)[:16]


def _digest(value: Any) -> str:
    text = json.dumps(_canonical(value), sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    """`value` in plain dicts and lists; refuses keys that JSON would silently turn to text."""
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"an identity's keys are strings, but {wrong[0]!r} is one of them")
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return value


def _finite(value: Any) -> Any:
    """Metrics as strict JSON: numpy scalars as numbers, NaN and infinities as null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    plain = value.item() if hasattr(value, "item") else value
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What a stage says of the files that it wrote.

    Attributes:
        kind: What the artifact is good for: policy, corpus, preferences or evaluation.
        identity: All that decides the result, as it went into the fingerprint.
        inputs: Name of each input artifact -> its fingerprint.
        seed: The stage's random seed.
        metrics: Results worth reading without opening the files; NaN is stored as null.
        ledger: What came in, went out and was dropped, by unit; see `Ledger.as_json`.
        versions: Package -> version that ran.
    """

    kind: str
    identity: Mapping[str, Any]
    inputs: Mapping[str, str]
    seed: int
    metrics: Mapping[str, Any] = field(default_factory=dict)
    ledger: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


class FileRecord(NamedTuple):
    """Size in bytes and sha256 (hex) of one file of an artifact."""

    bytes: int
    sha256: str


class CorruptArtifactError(Exception):
    """An artifact's files are not those that its record describes."""


@dataclass(frozen=True, kw_only=True)
class Artifact(Metadata):
    """A committed stage.

    Attributes:
        path: The folder with the files.
        stage: The stage's name in the recipe.
        fingerprint: 16 hex digits, the folder's name.
        files: Path inside the folder -> size and checksum; `artifact.json` is not among them.
    """

    path: Path
    stage: str
    fingerprint: str
    files: Mapping[str, FileRecord]

    @classmethod
    def read(cls, path: Path) -> "Artifact":
        """Load `path/artifact.json` without looking at the other files.

        Raises:
            CorruptArtifactError: The record is missing, unreadable, altered or of another folder.
        """
        try:
            content = json.loads((path / RECORD).read_text(encoding="utf-8"))
            intact = content.pop("record_sha256") == _digest(content)
            files = {name: FileRecord(*entry) for name, entry in content.pop("files").items()}
            artifact = cls(path=path, files=files, **content)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise CorruptArtifactError(f"{RECORD} cannot be read") from error
        place = (path.parent.name, path.name)
        if not intact or (artifact.stage, artifact.fingerprint) != place:
            raise CorruptArtifactError(f"{RECORD} was altered or belongs to another folder")
        return artifact

    def write(self, folder: Path) -> None:
        """Write `folder/artifact.json`, sealed with a checksum of its own content."""
        content = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "path"}
        content["record_sha256"] = _digest(content)
        text = json.dumps(_canonical(content), indent=2, allow_nan=False) + "\n"
        (folder / RECORD).write_text(text, encoding="utf-8")

    def verify(self) -> None:
        """Compare every file with its recorded size and checksum.

        Raises:
            CorruptArtifactError: A file is missing or differs; the message names it.
        """
        for name, record in self.files.items():
            file = self.path / name
            if not file.is_file():
                raise CorruptArtifactError(f"{name} is missing")
            if file.stat().st_size != record.bytes or sha256(file) != record.sha256:
                raise CorruptArtifactError(f"{name} differs from its checksum")


class Store:
    """All artifacts below one root folder, shared by any number of processes.

    Args:
        root: Usually `runs/store`; made on first use. Checkpoints go to `work` beside it.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def lookup(self, stage: str, fingerprint: str) -> Artifact | None:
        """The verified artifact, or None when there is none to be used.

        A corrupt one is moved aside and logged, unless another process holds it: that
        one is about to replace it.
        """
        path = self._path(stage, fingerprint)
        try:
            return _verified(path)
        except CorruptArtifactError:
            try:
                lock = self._acquire(path, timeout_s=0)
            except Timeout:
                return None
        try:
            return self._lookup_locked(path)
        finally:
            lock.release()

    def record(self, stage: str, fingerprint: str) -> Artifact | None:
        """What is written of the artifact, without a look at its other files; None = nothing."""
        try:
            return Artifact.read(self._path(stage, fingerprint))
        except CorruptArtifactError:
            return None

    def obtain(
        self, stage: str, fingerprint: str, build: Callable[[Path, Path], Metadata]
    ) -> tuple[Artifact, bool]:
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
        work_dir = self.root.parent / "work" / f"{stage}-{fingerprint}"
        try:
            lock = self._acquire(path, timeout_s=0)
        except Timeout:
            log.info("Another process is making %s/%s; waiting.", stage, fingerprint)
            lock = self._acquire(path, timeout_s=-1)
        try:
            artifact = self._lookup_locked(path)
            reused = artifact is not None
            if artifact is None:
                artifact = self._build(path, work_dir, build)
            shutil.rmtree(work_dir, ignore_errors=True)
            return artifact, reused
        finally:
            lock.release()

    def artifacts(self) -> Iterator[Artifact]:
        """Every committed artifact, by stage and fingerprint; files are not verified.

        One with an unreadable record is passed over with a logged warning.
        """
        for path in sorted(self.root.glob("*/*")):
            if not path.is_dir() or not _FINGERPRINT.fullmatch(path.name):
                continue
            try:
                yield Artifact.read(path)
            except CorruptArtifactError as fault:
                log.warning("Passed over %s: %s.", path, fault)

    def _path(self, stage: str, fingerprint: str) -> Path:
        if not _STAGE.fullmatch(stage) or not _FINGERPRINT.fullmatch(fingerprint):
            raise ValueError(f"not a stage and a fingerprint: {stage!r}, {fingerprint!r}")
        return self.root / stage / fingerprint

    def _acquire(self, path: Path, timeout_s: float) -> FileLock:
        """The artifact's lock, held; -1 = wait for ever, and `Timeout` is raised otherwise."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path.parent / f".{path.name}.lock")
            lock.acquire(timeout=timeout_s)
        except Timeout:
            raise
        except OSError as error:
            raise UserError(
                f"The folder {path.parent} cannot be written ({error.strerror}): free space "
                "there or choose an output folder that you may write to."
            ) from error
        return lock

    def _lookup_locked(self, path: Path) -> Artifact | None:
        try:
            return _verified(path)
        except CorruptArtifactError as fault:
            taken = [int(p.suffix[9:]) for p in path.parent.glob(f"{path.name}.corrupt-*")]
            aside = path.with_name(f"{path.name}.corrupt-{max(taken, default=0) + 1}")
            path.rename(aside)
            log.warning("%s: %s; moved it to %s.", path, fault, aside.name)
            return None

    def _build(
        self, path: Path, work_dir: Path, build: Callable[[Path, Path], Metadata]
    ) -> Artifact:
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


def trained_on(folder: Path) -> list[Path]:
    """The artifacts whose problems reached the one in `folder`, itself included, as `Node` has it.

    Empty where `folder` is no artifact, or was copied out of its store, which is logged. What is no
    longer beside it in the store is left out.
    """
    found: dict[Path, None] = {}
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        if place in found or not (place / RECORD).is_file():
            continue
        try:
            artifact = Artifact.read(place)
        except CorruptArtifactError as fault:
            log.warning("%s: %s; what it was trained on cannot be told.", place, fault)
            continue
        found[place] = None
        for kind, maker in artifact.inputs.items():
            if kind != artifact.kind or kind == "policy":
                waiting += place.parent.parent.glob(f"*/{maker}")
    return list(found)


def _commit(out_dir: Path, path: Path, metadata: Metadata) -> Artifact:
    """Record, flush and publish `out_dir` as `path`, in that order."""
    contents = sorted(out_dir.rglob("*"))
    if links := [entry for entry in contents if entry.is_symlink()]:
        raise ValueError(f"{links[0].name} is a link; an artifact holds its own files")
    files = {
        entry.relative_to(out_dir).as_posix(): FileRecord(entry.stat().st_size, sha256(entry))
        for entry in contents
        if entry.is_file()
    }
    artifact = Artifact(
        path=path,
        stage=path.parent.name,
        fingerprint=path.name,
        kind=metadata.kind,
        identity=metadata.identity,
        inputs=metadata.inputs,
        seed=metadata.seed,
        metrics=_finite(metadata.metrics),
        ledger=metadata.ledger,
        versions=metadata.versions,
        files=files,
    )
    artifact.write(out_dir)
    flush_and_rename(out_dir, path)
    return Artifact.read(path)


def _verified(path: Path) -> Artifact | None:
    if not path.exists():
        return None
    artifact = Artifact.read(path)
    artifact.verify()
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
