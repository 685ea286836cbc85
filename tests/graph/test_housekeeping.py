"""What a store's space goes to, what is removed and what never is, whatever interrupts it."""

import errno
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.graph.housekeeping import (
    SOURCE_FILE,
    Entry,
    Kind,
    damages,
    entries,
    made_from,
    remove,
    unneeded,
)
from reasoning_lab.graph.recipe import Node
from reasoning_lab.graph.record import Metadata, Record
from reasoning_lab.graph.run import Outcome, Work, run
from reasoning_lab.graph.running import needed_by_runs
from reasoning_lab.graph.stat_cache import StatCache, cache_file, last_use_s
from reasoning_lab.graph.store import Store
from reasoning_lab.system.files import sha256
from reasoning_lab.types import UserError
from tests.support.toys import RECIPE, Learn, Log, execute, never, nodes_of

SPAWN = multiprocessing.get_context("spawn")
NODES = nodes_of()
# The same base, text and evaluation of the base; another last policy and its evaluation.
OTHER = nodes_of({**RECIPE, "tune": Learn(size=2)})
NAMES = {node.fingerprint: node.name for node in NODES}
ABSENT = "0" * 16


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def fingerprints(nodes: Iterable[Node]) -> list[str]:
    return [node.fingerprint for node in nodes]


def node(name: str) -> Node:
    return next(node for node in NODES if node.name == name)


def folder(path: Path, size: int = 1) -> Path:
    path.mkdir(parents=True)
    (path / "file").write_bytes(b"x" * size)
    return path


def prune(store: Store, nodes: Iterable[Node]) -> list[Entry]:
    """Keep what the nodes need; what was removed."""
    running = needed_by_runs(store.root)
    removable = unneeded(entries(store), fingerprints(nodes), running)
    return [entry for entry in removable if remove(store, entry, running)]


def test_everything_is_listed_with_the_largest_first(store: Store) -> None:
    run(NODES, store, execute, Log())
    stage, name = node("tune").stage.name, node("tune").fingerprint
    folder(store.root / stage / f".building-{ABSENT}-12ab34cd", 3000)
    folder(store.root / stage / f"{ABSENT}.corrupt-2", 4000)
    folder(store.root / stage / ".removed-abc", 5000)
    folder(store.work / f"tune-{ABSENT}", 6000)
    folder(store.work / "tokens" / ABSENT, 7000)
    (store.work / "tokens" / f".{ABSENT}.lock").touch()
    older = store.root / "clean" / node("clean").fingerprint / "artifact.json"
    record = json.loads(older.read_text())
    older.write_text(json.dumps({**record, "layout": 1}))

    listed = entries(store)

    assert [(entry.kind, entry.stage, entry.bytes) for entry in listed[:5]] == [
        ("cache", "tokens", 7000),
        ("work", "tune", 6000),
        ("removed", stage, 5000),
        ("damaged", stage, 4000),
        ("draft", stage, 3000),
    ]
    sizes = [entry.bytes for entry in listed]
    assert sizes == sorted(sizes, reverse=True)
    artifacts = {entry.fingerprint: entry for entry in listed[5:]}
    assert {NAMES[name]: entry.kind for name, entry in artifacts.items()} == {
        "base": "model",
        "base/test": "score",
        "teach": "text",
        "clean": "older",
        "tune": "model",
        "tune/test": "score",
    }
    path = store.root / stage / name
    assert artifacts[name].bytes == sum(file.stat().st_size for file in path.iterdir())
    assert artifacts[name].used_s == pytest.approx(time.time(), abs=60)


def test_an_artifact_s_users_are_those_made_from_it(store: Store) -> None:
    run(NODES, store, execute, Log())
    products = made_from(entries(store))
    users = {
        NAMES[name]: sorted(record.stage for record in records)
        for name, records in products.items()
    }
    assert users == {
        "base": ["learn", "measure"],
        "teach": ["clean"],
        "clean": ["learn"],
        "tune": ["measure"],
    }


def test_a_store_that_is_not_there_has_no_entries(store: Store) -> None:
    assert entries(store) == []
    assert needed_by_runs(store.root) == set()


def test_what_is_kept_is_reused_whole_and_the_rest_is_gone(store: Store) -> None:
    run(NODES, store, execute, Log())
    run(OTHER, store, execute, Log())
    removed = prune(store, NODES)
    assert {entry.fingerprint for entry in removed} == set(fingerprints(OTHER)) - NAMES.keys()
    assert len(removed) == 2
    run(NODES, store, never, Log())
    left = {path.name for path in store.root.glob("*/*") if path.suffix != ".lock"}
    assert left == NAMES.keys() | {f".{name}.stat" for name in NAMES}


def test_a_kept_artifact_keeps_what_it_was_made_from(store: Store) -> None:
    """Also where a recipe only names it, as by the path of a checkpoint."""
    run(NODES, store, execute, Log())
    prune(store, [node("tune")])
    kept = {entry.fingerprint for entry in entries(store)}
    assert {NAMES[name] for name in kept} == {"base", "teach", "clean", "tune"}


def test_what_no_run_can_reuse_is_removed(store: Store) -> None:
    run(NODES, store, execute, Log())
    name = node("base").fingerprint
    paths = [
        folder(store.root / "grow" / f"{name}.corrupt-1"),
        folder(store.root / "grow" / f".building-{name}-12ab34cd"),
        folder(store.root / "grow" / ".removed-abc"),
        folder(store.work / f"grow-{name}"),
        folder(store.work / ".removed-abc"),
        folder(store.work / "tokens" / ".removed-abc"),
        folder(store.work / "tokens" / ABSENT),
    ]
    removed = prune(store, NODES)
    assert {entry.path for entry in removed} == set(paths)
    assert not any(path.exists() for path in paths)
    run(NODES, store, never, Log())


def test_an_unreadable_record_of_a_needed_artifact_is_left(store: Store) -> None:
    """It may be readable a moment later; if it is damaged, the next look-up sets it aside."""
    run(NODES, store, execute, Log())
    path = store.root / "grow" / node("base").fingerprint
    (path / "artifact.json").write_text("{")
    assert prune(store, NODES) == []
    removed = prune(store, [])
    assert [entry.path for entry in removed if entry.kind == Kind.DAMAGED] == [path]
    assert not path.exists()


def unfinished(store: Store) -> None:
    """Everything but the last policy and its evaluation, of which a training state is left."""
    run(NODES[:4], store, execute, Log())
    folder(store.work / f"learn-{node('tune').fingerprint}")


def test_the_state_of_a_needed_stage_is_kept(store: Store) -> None:
    unfinished(store)
    other = folder(store.work / f"learn-{OTHER[-2].fingerprint}")
    assert [entry.path for entry in prune(store, NODES)] == [other]
    assert [entry.kind for entry in entries(store)].count("work") == 1


def cache_of(store: Store, key: str, source: str | None) -> Path:
    path = folder(store.work / "tokens" / key)
    if source is not None:
        (path / SOURCE_FILE).write_text(source)
    return path


def test_a_cache_is_kept_while_an_unfinished_stage_can_use_it(store: Store) -> None:
    unfinished(store)
    text = store.root / "clean" / node("clean").fingerprint / "inputs"
    of_kept = cache_of(store, "a" * 16, sha256(text))
    of_removed = cache_of(store, "b" * 16, "0" * 64)
    of_unknown = cache_of(store, "c" * 16, None)
    assert [entry.path for entry in prune(store, NODES)] == [of_removed]
    run(NODES, store, execute, Log())
    assert {entry.path for entry in prune(store, NODES)} == {of_kept, of_unknown}


def run_until(root: Path, nodes: list[Node], started: Event, go_on: Event) -> None:
    """A run whose last policy waits while it is being made."""

    def waits(work: Work) -> Outcome:
        if work.node.name == "tune":
            started.set()
            assert go_on.wait(60)
        return execute(work)

    store = Store(root)
    with store.running(fingerprints(nodes)):
        run(nodes, store, waits, Log())


def test_what_a_running_recipe_needs_is_kept(store: Store) -> None:
    run(OTHER, store, execute, Log())
    started, go_on = SPAWN.Event(), SPAWN.Event()
    job = SPAWN.Process(target=run_until, args=(store.root, NODES, started, go_on))
    job.start()
    assert started.wait(60)
    assert needed_by_runs(store.root) == NAMES.keys()

    removed = prune(store, [])

    assert {entry.fingerprint for entry in removed} == set(fingerprints(OTHER)) - NAMES.keys()
    go_on.set()
    job.join(60)
    assert job.exitcode == 0
    run(NODES, store, never, Log())
    assert needed_by_runs(store.root) == set()
    assert list(store.root.glob(".run-*")) == []


def test_a_killed_run_needs_nothing(store: Store) -> None:
    started, never_set = SPAWN.Event(), SPAWN.Event()
    job = SPAWN.Process(target=run_until, args=(store.root, NODES, started, never_set))
    job.start()
    assert started.wait(60)
    assert job.pid is not None
    os.kill(job.pid, signal.SIGKILL)
    job.join(60)
    assert list(store.root.glob(".run-*")) != []
    assert len(prune(store, [])) == 6  # Four artifacts, the draft and the work of the fifth.
    assert entries(store) == []
    assert list(store.root.glob(".run-*")) == []


def test_what_a_process_is_making_is_left(store: Store) -> None:
    """Though no run is declared, as a program that calls `obtain` itself may declare none."""
    run(NODES, store, execute, Log())
    name = ABSENT

    def build(out_dir: Path, work_dir: Path) -> Metadata:
        (out_dir / "half").write_text("x")
        (work_dir / "state").write_text("x")
        listed = [entry for entry in entries(store) if entry.fingerprint == name]
        assert sorted(entry.kind for entry in listed) == ["draft", "work"]
        assert listed[0] in unneeded(entries(store), [], [])
        assert not any(remove(store, entry, []) for entry in listed)
        assert (out_dir / "half").exists()
        assert (work_dir / "state").exists()
        return Metadata(kind="model", identity={}, inputs={}, seed=0)

    store.obtain("grow", name, build)
    assert store.lookup("grow", name) is not None


def test_what_a_run_needs_that_began_meanwhile_is_left(store: Store) -> None:
    run(NODES, store, execute, Log())
    cache = cache_of(store, "a" * 16, "0" * 64)
    removable = unneeded(entries(store), [], [])
    with store.running([node("base").fingerprint]):
        left = [entry for entry in removable if not remove(store, entry, [])]
    assert {entry.path.name for entry in left} == {node("base").fingerprint, cache.name}
    assert {entry.path for entry in entries(store)} == {entry.path for entry in left}


def test_what_is_gone_already_is_no_error(store: Store) -> None:
    run(NODES, store, execute, Log())
    for entry in entries(store) * 2:
        assert remove(store, entry, [])
    assert entries(store) == []


def test_a_run_in_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Store(tmp_path / "file" / "store").running([])


def prune_and_die(root: Path, steps: int) -> None:
    """Remove everything, but be killed right before a file or folder is touched once more."""
    countdown = itertools.count(steps, -1)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("os.rename", "os.remove", "os.rmdir") and next(countdown) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    prune(Store(root), [])


# Each artifact is renamed, its times are removed, then two files and the folder.
@pytest.mark.parametrize("steps", range(6))
def test_a_kill_leaves_each_artifact_whole_or_gone(steps: int, store: Store) -> None:
    run(NODES, store, execute, Log())
    job = SPAWN.Process(target=prune_and_die, args=(store.root, steps))
    job.start()
    job.join(60)
    assert job.exitcode == -signal.SIGKILL
    paths = [path for path in store.root.glob("*/*") if path.name in NAMES]
    assert len(paths) == len(NODES) - (steps > 0) - (steps > 5)
    for path in paths:
        Record.read(path).verify()
    assert [entry.kind for entry in entries(store)].count("removed") == (0 < steps < 5)
    prune(store, [])
    assert entries(store) == []


def damage_silently(record: Record) -> Path:
    """Alter a file as a disk does: the store still believes that it is as it was hashed."""
    (name,) = record.files
    file = record.path / name
    file.write_bytes(b"?" * file.stat().st_size)
    time.sleep(0.05)  # Until the file system's clock has moved on.
    cache = StatCache(record.path, lambda file: record.files[name].sha256)
    cache.computed(file, name)
    cache.save()
    return file


def test_verifying_sees_what_look_ups_trust(store: Store) -> None:
    records = run(NODES, store, execute, Log())
    assert list(damages(store, sha256)) == []
    record = records[node("clean").fingerprint]
    damage_silently(record)
    assert store.lookup("clean", record.fingerprint) == record

    assert list(damages(store, sha256)) == [(record.path, "inputs differs from its checksum")]

    assert record.path.is_dir()
    log = Log()
    run(NODES, store, execute, log)
    assert [name for event, name, *_ in log.events if event == "made"] == ["clean"]
    assert list(damages(store, sha256)) == []


def test_verifying_names_every_damage_and_leaves_the_last_use(store: Store) -> None:
    records = run(NODES, store, execute, Log())
    base, tune = records[node("base").fingerprint], records[node("tune").fingerprint]
    os.utime(cache_file(tune.path), (1, 1))
    (base.path / "artifact.json").write_text("{")
    (records[node("teach").fingerprint].path / "inputs").unlink()
    hashed: list[Path] = []

    def hash_of(file: Path) -> str:
        if file.parent == records[node("tune/test").fingerprint].path:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        hashed.append(file)
        return sha256(file)

    assert dict(damages(store, hash_of)) == {
        base.path: "artifact.json cannot be read",
        records[node("teach").fingerprint].path: "inputs is missing",
        records[node("tune/test").fingerprint].path: "inputs differs from its checksum",
    }
    assert len(hashed) == len(NODES) - 3
    assert last_use_s(tune.path) == 1


def test_a_copied_store_is_reused(store: Store, tmp_path: Path) -> None:
    run(NODES, store, execute, Log())
    shutil.copytree(store.root, tmp_path / "copy" / "store")
    run(NODES, Store(tmp_path / "copy" / "store"), never, Log())
