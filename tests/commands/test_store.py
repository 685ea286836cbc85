"""The command `store` on what a smoke run leaves."""

import os
import re
import shutil
from pathlib import Path
from threading import Event, Thread

import pytest

from reasoning_lab.commands.sweep import by_experiment
from reasoning_lab.graph.record import Record
from reasoning_lab.graph.running import needed_by_runs
from reasoning_lab.graph.store import Store
from tests.conftest import SMOKE, lab_here
from tests.support.composition import composed_recipe

STAGES = ["pretrain", "distill", "midtrain", "sft", "prefer_teacher", "dpo", "rl", "evaluate"]


@pytest.fixture
def folder(smoke_run: Path, tmp_path: Path) -> Path:
    """A copy of the smoke run, which others read."""
    shutil.copytree(smoke_run / "runs", tmp_path / "runs")
    return tmp_path


def stored(folder: Path) -> list[Record]:
    return list(Store(folder / "runs" / "store").artifacts())


def test_the_list_has_every_artifact_with_what_uses_it(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    assert lab_here("store", cwd=folder) == 0
    out = capsys.readouterr().out
    lines = {words[2]: words for line in out.splitlines() if len(words := line.split()) > 3}
    for record in stored(folder):
        kind, stage, *_ = lines[record.fingerprint[:8]]
        assert (kind, stage) == (record.kind, record.stage)
    (dpo,) = (line for line in out.splitlines() if " dpo " in line)
    assert re.search(r"\d min +\d+ min +rl, evaluate, \d reports? *$", dpo), dpo
    assert re.search(r"^cache +tokens", out, re.M)
    assert re.search(r"^12 artifacts and 5 leftovers or caches, .*B; .*B are free", out, re.M), out


def test_a_prune_shows_what_it_would_remove(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The named recipe has other held-out problems, so it does not need the evaluations."""
    words = [word for word in SMOKE if not word.startswith("benchmarks.")]
    assert lab_here("store", "prune", *words, cwd=folder) == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"^evaluation +evaluate", out, re.M)) == 5
    assert "Of the 12 artifacts that these recipes need, 7 are stored." in out
    assert "Check names" not in out
    assert re.search(r"^To remove: 5 artifacts, ", out, re.M)
    assert "Nothing was removed; add --yes to remove it." in out
    assert len(stored(folder)) == 12


def test_what_is_left_is_reused_whole(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = folder / "runs" / "store" / "sft" / f"{'0' * 16}.corrupt-1"
    shutil.copytree(stored(folder)[0].path, other)
    assert lab_here("store", "prune", *SMOKE, "--yes", cwd=folder) == 0
    assert "Removed: 0 artifacts and 6 leftovers or caches" in capsys.readouterr().out
    assert not other.exists()
    assert list((folder / "runs" / "work" / "tokens").glob("[!.]*")) == []
    before = {record.path: record.path.stat().st_mtime_ns for record in stored(folder)}
    assert len(before) == 12
    assert lab_here(*SMOKE, cwd=folder) == 0
    assert {record.path: record.path.stat().st_mtime_ns for record in stored(folder)} == before
    assert "done in" not in capsys.readouterr().out


def test_a_run_declares_what_it_needs(folder: Path) -> None:
    declared: set[str] = set()
    ended = Event()

    def watch() -> None:
        while not ended.is_set():
            declared.update(needed_by_runs(folder / "runs" / "store"))

    watcher = Thread(target=watch)
    watcher.start()
    try:
        assert lab_here(*SMOKE, cwd=folder) == 0
    finally:
        ended.set()
        watcher.join()
    assert declared == {node.fingerprint for node in composed_recipe(*SMOKE).nodes}
    assert needed_by_runs(folder / "runs" / "store") == set()


def test_the_checkpoint_of_a_recipe_is_needed(folder: Path) -> None:
    """With what it was trained from, though the recipe names it by its folder alone."""
    (sft,) = (record for record in stored(folder) if record.stage == "sft")
    (folder / "link").symlink_to(sft.path)
    words = ["recipe=evaluate", "benchmark=[heldout]", "model.path=link"]
    assert lab_here("store", "prune", *words, "--yes", cwd=folder) == 0
    assert {record.stage for record in stored(folder)} == {"pretrain", "distill", "midtrain", "sft"}


def test_one_is_not_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draft = tmp_path / "runs" / "store" / "sft" / f".building-{'0' * 16}-1"
    draft.mkdir(parents=True)
    assert lab_here("store", cwd=tmp_path) == 0
    assert "0 artifacts and 1 leftover or cache, 0 bytes;" in capsys.readouterr().out


def test_each_experiment_is_kept_with_its_own_sweep() -> None:
    words = ["seed=0,1", "experiment=smoke,002_stage_ablation"]
    assert by_experiment(words) == [
        ["experiment=smoke", "seed=0,1"],
        ["experiment=002_stage_ablation", "seed=0,1"],
    ]
    assert by_experiment(["recipe=tiny"]) == [["recipe=tiny"]]


def test_all_seeds_of_an_experiment_are_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five, by the sweep that its file names."""
    (tmp_path / "runs" / "store").mkdir(parents=True)
    words = ["experiment=009_smaller_models", "model=tiny"]
    assert lab_here("store", "prune", *words, cwd=tmp_path) == 0

    recipes = [composed_recipe(*words, f"seed={seed}") for seed in range(5)]
    expected = len({node.fingerprint for recipe in recipes for node in recipe.nodes})
    out = capsys.readouterr().out
    assert f"Of the {expected} artifacts that these recipes need, 0 are stored." in out
    assert "Check names and overrides" in out


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["prune"], ["store prune: name what to keep", "experiment=smoke"]),
        (["prune", "--yes", "seed=0"], ["store prune: name what to keep"]),
        (["prune", "experiment=smok"], ["experiment=smok"]),
        (["prune", "experiment=smoke", "--force"], ["--force"]),
        (["prune", "experiment=smoke", "paths.runs=absent"], ["paths.runs=absent: there is no"]),
        (["list", "paths.runs=absent"], ["paths.runs=absent: there is no store"]),
        (["prun"], ["store prun: write store list", "store verify"]),
        (["verify", "experiment=smoke"], ["store verify experiment=smoke: write"]),
    ],
)
def test_a_mistake_is_one_sentence(
    words: list[str], parts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab_here("store", *words, cwd=tmp_path) == 2
    err = capsys.readouterr().err
    assert len(err.strip().splitlines()) == 1, err
    for part in parts:
        assert part in err
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab_here("store", "verify", cwd=folder) == 0
    assert re.fullmatch(
        r"12 artifacts, .*B: every file is as recorded\.\n", capsys.readouterr().out
    )
    record = next(record for record in stored(folder) if record.stage == "dpo")
    file = record.path / "model.safetensors"
    with file.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        last = stream.read(1)
        stream.seek(-1, os.SEEK_END)
        stream.write(bytes([last[0] ^ 1]))
    assert lab_here("store", "verify", cwd=folder) == 1
    out = capsys.readouterr().out
    path = Path("runs") / "store" / "dpo" / record.fingerprint
    assert f"{path}: model.safetensors differs from its checksum.\n" in out
    assert out.endswith("The next run that needs one of these artifacts makes it again.\n")
    assert record.path.is_dir()
    assert Store(folder / "runs" / "store").lookup("dpo", record.fingerprint) is None


def test_a_damaged_record_is_named_once(
    folder: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    record = stored(folder)[0]
    (record.path / "artifact.json").unlink()
    assert lab_here("store", "verify", cwd=folder) == 1
    out, err = capsys.readouterr()
    path = record.path.relative_to(folder)
    assert out.splitlines()[0] == f"{path}: artifact.json cannot be read."
    assert (err, caplog.messages) == ("", [])
