"""Fingerprints, atomic commits, corruption, locks between processes, kills and full disks."""

import errno
import hashlib
import json
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.graph.record import Metadata, Record, fingerprint
from reasoning_lab.graph.store import Store
from reasoning_lab.system.files import content_hash
from reasoning_lab.types import UserError

IDENTITY = {"lr": 0.002, "steps": 3}
NAME = fingerprint(IDENTITY)
SPAWN = multiprocessing.get_context("spawn")

Build = Callable[[Path, Path], Metadata]


def _metadata(
    metrics: Mapping[str, Any] | None = None, versions: Mapping[str, str] | None = None
) -> Metadata:
    return Metadata(
        kind="policy",
        identity=IDENTITY,
        inputs={"corpus": "c" * 16},
        seed=7,
        metrics=metrics or {},
        versions=versions or {},
    )


def _write(out_dir: Path, work_dir: Path) -> Metadata:
    (out_dir / "weights").mkdir()
    (out_dir / "weights" / "model.bin").write_bytes(b"abc")
    return _metadata(metrics={"loss": 0.5, "worst": float("nan")}, versions={"torch": "2"})


def _never(out_dir: Path, work_dir: Path) -> Metadata:
    raise AssertionError("built again")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def _names(store: Store, stage: str = "sft") -> list[str]:
    """The folders that lie visibly or hidden in the stage's folder."""
    return sorted(p.name for p in (store.root / stage).iterdir() if p.is_dir())


def test_fingerprint_is_the_hash_of_sorted_compact_json() -> None:
    text = '{"a":[1,2.5,null],"b":{"c":true}}'
    expected = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert fingerprint({"b": {"c": True}, "a": (1, 2.5, None)}) == expected
    assert fingerprint({"a": [1, 2.5, None], "b": {"c": True}}) == expected


def test_fingerprint_tells_near_values_apart() -> None:
    values: list[Any] = [1, 1.0, "1", True, None, 0.1, 0.1 + 2**-55, [1], {"x": 1}]
    assert len({fingerprint({"x": value}) for value in values}) == len(values)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("nan")]])
def test_fingerprint_refuses_numbers_that_equal_nothing(value: object) -> None:
    with pytest.raises(ValueError, match="JSON"):
        fingerprint({"x": value})


@pytest.mark.parametrize("identity", [{1: "x"}, {"x": {1: 2}}, {"x": Path("a")}, {"x": {1, 2}}])
def test_fingerprint_refuses_what_json_would_change(identity: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        fingerprint(identity)


def test_content_hash_sees_names_and_bytes_but_not_the_place(tmp_path: Path) -> None:
    contents = {"here": ("w", b"1"), "moved": ("w", b"1"), "renamed": ("v", b"1")}
    contents["changed"] = ("w", b"2")
    for folder, (name, data) in contents.items():
        (tmp_path / folder / "sub").mkdir(parents=True)
        (tmp_path / folder / "sub" / name).write_bytes(data)
    here, moved, renamed, changed = (content_hash(tmp_path / folder) for folder in contents)
    assert here == moved
    assert len({here, renamed, changed}) == 3
    assert content_hash(tmp_path / "here" / "sub" / "w") == hashlib.sha256(b"1").hexdigest()


def test_an_artifact_is_built_once_and_read_back(store: Store) -> None:
    assert store.lookup("sft", NAME) is None

    built, reused = store.obtain("sft", NAME, _write)
    again, reused_again = store.obtain("sft", NAME, _never)

    assert (reused, reused_again) == (False, True)
    assert built == again == store.lookup("sft", NAME)
    assert built.path == store.root / "sft" / NAME
    assert (built.path / "weights" / "model.bin").read_bytes() == b"abc"
    assert built.identity == IDENTITY
    assert (built.kind, built.inputs, built.seed) == ("policy", {"corpus": "c" * 16}, 7)
    assert built.metrics == {"loss": 0.5, "worst": None}
    assert built.versions == {"torch": "2"}
    assert built.files["weights/model.bin"].sha256 == hashlib.sha256(b"abc").hexdigest()
    assert _names(store) == [NAME]


def test_the_record_is_strict_json_with_every_field(store: Store) -> None:
    artifact, _ = store.obtain("sft", NAME, _write)
    record = json.loads((artifact.path / "artifact.json").read_text())
    assert set(record) == {
        *("stage", "fingerprint", "kind", "identity", "inputs", "seed"),
        *("metrics", "ledger", "versions", "files", "layout", "record_sha256"),
    }


def _truncate(path: Path) -> None:
    (path / "weights" / "model.bin").write_bytes(b"ab")


def _flip(path: Path) -> None:
    (path / "weights" / "model.bin").write_bytes(b"abd")


def _remove(path: Path) -> None:
    (path / "weights" / "model.bin").unlink()


def _alter_record(path: Path) -> None:
    record = path / "artifact.json"
    record.write_text(record.read_text().replace('"loss": 0.5', '"loss": 0.1'))


def _cut_record(path: Path) -> None:
    record = path / "artifact.json"
    record.write_text(record.read_text()[:40])


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        (_truncate, "weights/model.bin"),
        (_flip, "weights/model.bin"),
        (_remove, "weights/model.bin"),
        (_alter_record, "artifact.json"),
        (_cut_record, "artifact.json"),
    ],
)
def test_a_corrupt_artifact_is_moved_aside_and_named(
    store: Store, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None], file: str
) -> None:
    for number in (1, 2):
        artifact, reused = store.obtain("sft", NAME, _write)
        assert not reused
        damage(artifact.path)
        caplog.clear()

        assert store.lookup("sft", NAME) is None

        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert file in caplog.text
        assert (store.root / "sft" / f"{NAME}.corrupt-{number}").is_dir()
    assert list(store.artifacts()) == []


def test_obtain_replaces_a_corrupt_artifact(store: Store) -> None:
    artifact, _ = store.obtain("sft", NAME, _write)
    _flip(artifact.path)
    rebuilt, reused = store.obtain("sft", NAME, _write)
    assert not reused
    assert (rebuilt.path / "weights" / "model.bin").read_bytes() == b"abc"


def test_a_record_copied_to_another_fingerprint_is_not_believed(store: Store) -> None:
    artifact, _ = store.obtain("sft", NAME, _write)
    artifact.path.rename(artifact.path.with_name("0" * 16))
    assert store.lookup("sft", "0" * 16) is None


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
def test_a_failed_build_leaves_only_its_work(store: Store, error: BaseException) -> None:
    def fail(out_dir: Path, work_dir: Path) -> Metadata:
        (out_dir / "half").write_text("x")
        (work_dir / "checkpoint").write_text("step 3")
        raise error

    def resume(out_dir: Path, work_dir: Path) -> Metadata:
        assert list(out_dir.iterdir()) == []
        assert (work_dir / "checkpoint").read_text() == "step 3"
        return _write(out_dir, work_dir)

    with pytest.raises(type(error)):
        store.obtain("sft", NAME, fail)
    assert _names(store) == []

    store.obtain("sft", NAME, resume)
    assert list((store.root.parent / "work").iterdir()) == []


def test_nothing_is_visible_before_the_commit(store: Store) -> None:
    def look(out_dir: Path, work_dir: Path) -> Metadata:
        metadata = _write(out_dir, work_dir)
        assert out_dir.parent == store.root / "sft"
        assert list(store.artifacts()) == []
        assert not (store.root / "sft" / NAME).exists()
        return metadata

    store.obtain("sft", NAME, look)
    assert [artifact.fingerprint for artifact in store.artifacts()] == [NAME]


def _no_space(cause: BaseException) -> Build:
    def build(out_dir: Path, work_dir: Path) -> Metadata:
        raise cause

    return build


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_one_sentence_that_names_the_folder(store: Store, error: Exception) -> None:
    with pytest.raises(UserError) as caught:
        store.obtain("sft", NAME, _no_space(error))
    sentence = str(caught.value)
    assert str(store.root) in sentence
    assert "'sft'" in sentence
    assert sentence.startswith("The disk is full")
    assert _names(store) == []


def test_other_errors_pass_unchanged(store: Store) -> None:
    error = OSError(errno.ENOENT, "gone")
    with pytest.raises(OSError, match="gone") as caught:
        store.obtain("sft", NAME, _no_space(error))
    assert caught.value is error


def test_a_root_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Store(tmp_path / "file" / "store").obtain("sft", NAME, _write)


def test_a_link_in_the_outputs_is_refused(store: Store) -> None:
    def link(out_dir: Path, work_dir: Path) -> Metadata:
        (out_dir / "last").symlink_to(work_dir)
        return _metadata()

    with pytest.raises(ValueError, match="last is a link"):
        store.obtain("sft", NAME, link)


@pytest.mark.parametrize(("stage", "name"), [("../x", NAME), ("", NAME), ("sft", "../../etc")])
def test_names_cannot_leave_the_store(store: Store, stage: str, name: str) -> None:
    with pytest.raises(ValueError, match="not a stage and a fingerprint"):
        store.lookup(stage, name)


def test_artifacts_lists_all_stages_in_order(store: Store) -> None:
    names = [fingerprint({"seed": seed}) for seed in range(2)]
    for stage in ("sft", "dpo"):
        for name in names:
            store.obtain(stage, name, _write)
    listed: list[Record] = list(store.artifacts())
    expected = [(stage, name) for stage in ("dpo", "sft") for name in sorted(names)]
    assert [(artifact.stage, artifact.fingerprint) for artifact in listed] == expected


def _obtain_slowly(root: Path, built: Path, started: Event, go_on: Event) -> None:
    def build(out_dir: Path, work_dir: Path) -> Metadata:
        with built.open("a") as stream:
            stream.write("x")
        (work_dir / "checkpoint").write_text("step 3")
        started.set()
        assert go_on.wait(60)
        return _write(out_dir, work_dir)

    Store(root).obtain("sft", NAME, build)


def test_a_second_process_waits_and_reuses(store: Store, tmp_path: Path) -> None:
    built, started, go_on = tmp_path / "built", SPAWN.Event(), SPAWN.Event()
    jobs = [
        SPAWN.Process(target=_obtain_slowly, args=(store.root, built, started, go_on))
        for _ in range(2)
    ]
    for job in jobs:
        job.start()
    assert started.wait(60)
    assert store.lookup("sft", NAME) is None
    time.sleep(0.5)
    go_on.set()
    for job in jobs:
        job.join(60)
    assert [job.exitcode for job in jobs] == [0, 0]
    assert built.read_text() == "x"


def test_a_killed_build_leaves_no_lock_and_its_work(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    started, never = SPAWN.Event(), SPAWN.Event()
    job = SPAWN.Process(
        target=_obtain_slowly, args=(store.root, tmp_path / "built", started, never)
    )
    job.start()
    assert started.wait(60)
    assert job.pid is not None
    os.kill(job.pid, signal.SIGKILL)
    job.join(60)
    assert [name for name in _names(store) if name.startswith(".building-")] != []

    def resume(out_dir: Path, work_dir: Path) -> Metadata:
        assert (work_dir / "checkpoint").read_text() == "step 3"
        return _write(out_dir, work_dir)

    store.obtain("sft", NAME, resume)
    assert _names(store) == [NAME]


def test_waiting_is_logged(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    started, go_on = SPAWN.Event(), SPAWN.Event()
    job = SPAWN.Process(
        target=_obtain_slowly, args=(store.root, tmp_path / "built", started, go_on)
    )
    job.start()
    assert started.wait(60)

    class Release(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            go_on.set()

    handler = Release()
    logger = logging.getLogger("reasoning_lab.graph.store")
    logger.addHandler(handler)
    try:
        with caplog.at_level(logging.INFO, logger="reasoning_lab.graph.store"):
            _, reused = store.obtain("sft", NAME, _never)
    finally:
        logger.removeHandler(handler)
    job.join(60)
    assert reused
    assert f"sft/{NAME}; waiting" in caplog.text


def _as_earlier_version(path: Path) -> None:
    """Rewrite a record as versions without a layout wrote it."""
    record = json.loads((path / "artifact.json").read_text())
    del record["layout"]
    (path / "artifact.json").write_text(json.dumps(record))


def test_artifacts_of_an_earlier_version_are_told_in_one_sentence(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    assert store.older_layout_notice() is None
    old, _ = store.obtain("sft", NAME, _write)
    new, _ = store.obtain("dpo", NAME, _write)
    assert store.older_layout_notice() is None
    _as_earlier_version(old.path)
    assert [artifact.stage for artifact in store.artifacts()] == [new.stage]
    assert store.record("sft", NAME) is None
    assert caplog.records == []
    notice = store.older_layout_notice()
    assert notice is not None
    assert notice.startswith(f"{store.root}: 1 of its artifacts, made by an earlier version")
    assert "model.path" in notice


def test_an_artifact_of_an_earlier_version_is_made_anew(store: Store) -> None:
    old, _ = store.obtain("sft", NAME, _write)
    _as_earlier_version(old.path)
    _, reused = store.obtain("sft", NAME, _write)
    assert not reused
    assert store.older_layout_notice() is None
