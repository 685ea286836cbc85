"""A file is hashed when it may have changed, and only then."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from reasoning_lab.graph.stat_cache import (
    StatCache,
    cache_file,
    folder_hash,
    last_use_s,
    sha256_of,
)
from reasoning_lab.system.files import content_hash


class Hasher:
    """Counts which files it hashes."""

    def __init__(self) -> None:
        self.files: list[str] = []

    def __call__(self, file: Path) -> str:
        self.files.append(file.name)
        return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "sft" / "artifact"
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        (folder / name).write_text(name)
    wait_for_next_tick(folder)
    return folder


def wait_for_next_tick(folder: Path) -> None:
    """Until the file system's clock has moved on, so that what was written has settled."""
    probe = folder.parent / "probe"
    probe.touch()
    start = probe.stat().st_ctime_ns
    while probe.stat().st_ctime_ns == start:
        probe.write_text("x")
    probe.unlink()


def look_up(artifact: Path) -> tuple[dict[str, str], list[str]]:
    """The checksums of all files, and which were hashed."""
    hasher = Hasher()
    cache = StatCache(artifact, hasher)
    checksums = {file.name: cache.sha256(file, file.name) for file in sorted(artifact.iterdir())}
    cache.save()
    return checksums, hasher.files


def test_what_has_not_changed_is_hashed_once(artifact: Path) -> None:
    first, hashed = look_up(artifact)
    assert first == {name: hashlib.sha256(name.encode()).hexdigest() for name in ("a", "b")}
    assert hashed == ["a", "b"]
    assert look_up(artifact) == (first, [])


def rewrite(file: Path) -> None:
    """Another content of the same size, with the dates of the old one."""
    stat = file.stat()
    file.write_text("x")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def replace(file: Path) -> None:
    """Another file of the same size and dates in its place."""
    stat, other = file.stat(), file.with_name("other")
    other.write_text("x")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(file)


@pytest.mark.parametrize("change", [rewrite, replace])
def test_a_change_that_keeps_size_and_dates_is_seen(
    change: Callable[[Path], None], artifact: Path
) -> None:
    look_up(artifact)
    change(artifact / "b")
    checksums, hashed = look_up(artifact)
    assert hashed == ["b"]
    assert checksums["b"] == hashlib.sha256(b"x").hexdigest()


def test_a_change_within_a_tick_of_the_clock_is_seen(artifact: Path) -> None:
    """The file system counts in hours, so the time of each change is the same."""

    def checksum(hasher: Hasher) -> str:
        cache = StatCache(artifact, hasher, lambda stat: stat.st_ctime_ns // (3600 * 10**9))
        digest = cache.sha256(artifact / "a", "a")
        cache.save()
        return digest

    for content in ("a", "x", "y"):
        (artifact / "a").write_text(content)
        assert checksum(Hasher()) == hashlib.sha256(content.encode()).hexdigest()
    again = Hasher()
    checksum(again)
    assert again.files == ["a"]


def test_a_copy_is_hashed_once(artifact: Path) -> None:
    first, _ = look_up(artifact)
    copied = artifact.parent.with_name("copy")
    shutil.copytree(artifact.parent, copied)
    wait_for_next_tick(copied)
    assert look_up(copied / artifact.name) == (first, ["a", "b"])
    assert look_up(copied / artifact.name) == (first, [])


def test_a_cache_that_cannot_be_written_is_done_without(artifact: Path) -> None:
    cache_file(artifact).mkdir()
    first, _ = look_up(artifact)
    assert look_up(artifact) == (first, ["a", "b"])


@pytest.mark.parametrize("content", ["", "[1]", '{"a": 3}', '{"a": [1, 2]}', "\0"])
def test_an_unreadable_cache_is_replaced(content: str, artifact: Path) -> None:
    cache_file(artifact).write_text(content)
    assert look_up(artifact)[1] == ["a", "b"]
    assert look_up(artifact)[1] == []


def test_only_the_artifact_s_files_are_remembered(artifact: Path) -> None:
    look_up(artifact)
    (artifact / "a").unlink()
    look_up(artifact)
    assert list(json.loads(cache_file(artifact).read_text())) == ["b"]


def test_the_last_use_is_the_last_look_up(artifact: Path) -> None:
    assert last_use_s(artifact) is None
    look_up(artifact)
    os.utime(cache_file(artifact), (1, 1))
    assert last_use_s(artifact) == 1
    look_up(artifact)
    assert (last_use_s(artifact) or 0) > 1


def test_what_is_forgotten_is_hashed(artifact: Path) -> None:
    look_up(artifact)
    StatCache(artifact).forget()
    assert look_up(artifact)[1] == ["a", "b"]


def test_a_file_of_an_artifact_is_hashed_only_if_it_has_changed(artifact: Path) -> None:
    """The look-up remembers a wrong checksum, which shows whether it is asked."""
    assert sha256_of(artifact / "a", artifact) == hashlib.sha256(b"a").hexdigest()
    assert folder_hash(artifact) == content_hash(artifact)
    look_up(artifact)
    assert folder_hash(artifact) == content_hash(artifact)
    cache = StatCache(artifact, lambda file: "f" * 64)
    for name in ("a", "b"):
        cache.computed(artifact / name, name)
    cache.save()
    link = artifact.parent.with_name("link")
    link.symlink_to(artifact)
    for folder in (artifact, link):
        assert sha256_of(folder / "a", folder) == "f" * 64
        assert folder_hash(folder) != content_hash(folder)
    rewrite(artifact / "a")
    assert sha256_of(artifact / "a", artifact) == hashlib.sha256(b"x").hexdigest()
