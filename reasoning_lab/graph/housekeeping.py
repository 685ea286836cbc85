"""What takes space in a store and beside it, what of it no recipe needs, and what is damaged.

An entry is an artifact, or what a killed run, an earlier version or a damaged disk left. Removing
one first renames it aside under its lock. So a reader sees all of an artifact or nothing, and a
kill leaves only a folder that is an entry itself.

A stage may keep what other stages can use again in `work/CACHE/KEY/`, under the lock of that
folder. `SOURCE_FILE` in it has the SHA-256 of the file that it was made from.
"""

import os
import re
import shutil
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from filelock import Timeout

from reasoning_lab.graph.record import CorruptArtifactError, OlderLayoutError, Record
from reasoning_lab.graph.running import needed_by_runs
from reasoning_lab.graph.stat_cache import StatCache, cache_file, last_use_s
from reasoning_lab.graph.store import Store, acquire, lock_file, writing

SOURCE_FILE = "source.sha256"
_ASIDE = ".removed-"
_LEFTOVER = re.compile(r"(?:\.building-)?([0-9a-f]{16})(?:\.corrupt)?-\w+")
_WORK = re.compile(r"(.+)-([0-9a-f]{16})")


class Kind(StrEnum):
    """What an entry is, besides the kinds of artifacts.

    `damaged` artifacts cannot be reused, and no more can those of an `older` version. A `draft` is
    what a killed run had written of an artifact, `work` its training states, and `removed` a folder
    that a killed `remove` left. A `cache` is shared by stages.
    """

    DAMAGED = "damaged"
    OLDER = "older"
    DRAFT = "draft"
    WORK = "work"
    CACHE = "cache"
    ASIDE = "removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Something that takes space.

    Attributes:
        path: Its folder.
        kind: A `Kind`, or what the artifact is called.
        stage: The stage that made it, or the cache's name.
        fingerprint: Of the artifact, or the cache's key; empty = unknown.
        bytes: Of all its files.
        changed_s: When its folder last changed, in seconds since the epoch.
        used_s: When the artifact was last looked up; None = unknown.
        record: Of an artifact that a run can reuse.
        lock: File whose lock must be held to remove it; None = none is needed.
    """

    path: Path
    kind: str
    stage: str
    fingerprint: str
    bytes: int
    changed_s: float
    used_s: float | None
    record: Record | None
    lock: Path | None


def entries(store: Store) -> list[Entry]:
    """Everything that takes space, the largest first."""
    everything = [*_artifacts(store), *_leftovers(store), *_work(store)]
    return sorted(everything, key=lambda entry: -entry.bytes)


def _artifacts(store: Store) -> Iterator[Entry]:
    for path, content in store.records():
        place = path, path.parent.name, path.name, lock_file(path)
        if isinstance(content, Record):
            yield from _entry(content.kind, *place, record=content)
        else:
            older = isinstance(content, OlderLayoutError)
            yield from _entry(Kind.OLDER if older else Kind.DAMAGED, *place)


def _leftovers(store: Store) -> Iterator[Entry]:
    """What lies beside artifacts."""
    for path in _folders(store.root, "*/*"):
        if leftover := _LEFTOVER.fullmatch(path.name):
            kind = Kind.DRAFT if path.name.startswith(".") else Kind.DAMAGED
            lock = lock_file(path.with_name(leftover[1]))
            yield from _entry(kind, path, path.parent.name, leftover[1], lock)
        elif path.name.startswith(_ASIDE):
            yield from _entry(Kind.ASIDE, path, path.parent.name)


def _work(store: Store) -> Iterator[Entry]:
    """What unfinished stages have saved, and caches."""
    for path in [*_folders(store.work, "*"), *_folders(store.work, "*/*")]:
        folder = path.parent
        if node := _WORK.fullmatch(path.name):
            lock = lock_file(store.root / node[1] / node[2])
            yield from _entry(Kind.WORK, path, node[1], node[2], lock)
        elif _WORK.fullmatch(folder.name) or folder.name.startswith(_ASIDE):
            continue
        elif path.name.startswith(_ASIDE):
            yield from _entry(Kind.ASIDE, path, folder.name)
        elif folder != store.work:
            yield from _entry(Kind.CACHE, path, folder.name, path.name, lock_file(path))


def _folders(root: Path, pattern: str) -> list[Path]:
    return sorted(path for path in root.glob(pattern) if path.is_dir())


def _entry(
    kind: str,
    path: Path,
    stage: str,
    fingerprint: str = "",
    lock: Path | None = None,
    record: Record | None = None,
) -> Iterator[Entry]:
    # Nothing, if another process has just removed it.
    with suppress(FileNotFoundError):
        yield Entry(
            path=path,
            kind=kind,
            stage=stage,
            fingerprint=fingerprint,
            bytes=_bytes(path),
            changed_s=path.stat().st_mtime,
            used_s=last_use_s(path),
            record=record,
            lock=lock,
        )


def _bytes(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total


def made_from(everything: Iterable[Entry]) -> dict[str, list[Record]]:
    """By the fingerprint of an artifact, those that were made from it."""
    products: dict[str, list[Record]] = {}
    for record in (entry.record for entry in everything if entry.record):
        for fingerprint in record.inputs.values():
            products.setdefault(fingerprint, []).append(record)
    return products


def unneeded(
    everything: Sequence[Entry], nodes: Iterable[str], running: Collection[str]
) -> list[Entry]:
    """What neither some recipes nor the runs that are going on can use.

    An artifact is needed with all that it was made from. What an unfinished stage has saved is
    needed with the stage. A cache is needed while some needed stage is unfinished, if its source is
    unknown or a file of a needed artifact.

    Args:
        everything: What `entries` gave.
        nodes: Fingerprints of the recipes' nodes.
        running: What `needed_by_runs` gave.
    """
    records = {entry.fingerprint: entry.record for entry in everything if entry.record}
    named = {*nodes, *running}
    needed, unfinished = _with_inputs(named, records), named - records.keys()
    sources = {
        file.sha256 for name in needed & records.keys() for file in records[name].files.values()
    }

    def is_needed(entry: Entry) -> bool:
        if entry.kind == Kind.DRAFT:
            return entry.fingerprint in running
        if entry.kind == Kind.WORK:
            return entry.fingerprint in unfinished
        if entry.kind == Kind.CACHE:
            source = _source(entry.path)
            return bool(unfinished) and (source is None or source in sources)
        # Under its own name; one that was set aside has another.
        return entry.path.name in needed

    return [entry for entry in everything if not is_needed(entry)]


def _with_inputs(fingerprints: Collection[str], records: Mapping[str, Record]) -> set[str]:
    needed: set[str] = set()
    waiting = list(fingerprints)
    while waiting:
        fingerprint = waiting.pop()
        if fingerprint not in needed:
            needed.add(fingerprint)
            record = records.get(fingerprint)
            waiting += record.inputs.values() if record else ()
    return needed


def _source(cache: Path) -> str | None:
    try:
        return (cache / SOURCE_FILE).read_text(encoding="utf-8")
    except OSError:
        return None


def remove(store: Store, entry: Entry, running: Collection[str]) -> bool:
    """Remove what `unneeded` gave; `running` as there.

    Returns:
        False = it is left, as another process is making it, or a run that needs it has begun.

    Raises:
        UserError: The folder cannot be written.
    """
    aside = entry.path.with_name(f"{_ASIDE}{uuid.uuid4().hex}")
    with writing(entry.path.parent), ExitStack() as stack:
        if entry.lock is not None:
            try:
                stack.enter_context(acquire(entry.lock))
            except Timeout:
                return False
        # Under the lock: a run is declared before it looks an artifact up, which takes the lock.
        begun = needed_by_runs(store.root) - set(running)
        if entry.fingerprint in begun or (begun and entry.kind == Kind.CACHE):
            return False
        try:
            entry.path.rename(aside)
        except FileNotFoundError:
            return True  # Another process was faster.
        if entry.record is not None:
            cache_file(entry.path).unlink(missing_ok=True)
        stack.close()
        shutil.rmtree(aside)
    return True


def damages(store: Store, hash_of: Callable[[Path], str]) -> Iterator[tuple[Path, str]]:
    """Hash every file of every artifact; each damaged artifact's folder, with what is wrong.

    The next look-up of a damaged artifact sets it aside, even where neither size nor time of the
    damaged file has changed.
    """
    for path, content in store.records():
        if isinstance(content, OlderLayoutError):
            continue
        if isinstance(content, CorruptArtifactError):
            yield path, str(content)
            continue
        used_s, cache = last_use_s(path) or path.stat().st_mtime, StatCache(path, hash_of)

        def checksum(file: Path, name: str, cache: StatCache = cache) -> str:
            try:
                return cache.computed(file, name)
            except OSError as error:  # Of a failing disk.
                return f"{error.strerror}"

        faults = list(content.damages(checksum))
        if faults:
            cache.forget()
        else:
            cache.save(used_s)
        yield from ((path, fault) for fault in faults)
