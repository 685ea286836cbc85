"""Killed at any moment, a run ends in the same bits and loses little.

`LAB_KILLS=10 pytest -m "long or soak" tests/commands/test_kill.py -s` kills ten times a setting.
"""

import json
import os
import random
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.graph.run import Clock
from reasoning_lab.system.files import sha256
from tests.conftest import FAST_PRETRAINING, SMOKE, lab_here, start_lab

TRAINED = ("pretrain", "midtrain", "sft", "dpo", "rl")
KILLS = int(os.environ.get("LAB_KILLS", "1"))
# Long enough that most kills meet a stage at work. RL starts from the policy that answers
# directly, which is right now and then: without a right answer there is nothing to learn.
RECIPE = [
    *SMOKE,
    *FAST_PRETRAINING,
    "stages.rl.problems.levels=[2,3]",
    *("stages.pretrain.problems.count=2000", "stages.distill.problems.count=1500"),
    *(f"stages.{stage}.optimization.length=25 steps" for stage in ("midtrain", "sft", "dpo")),
    *("stages.midtrain.validate_every_steps=4", "stages.midtrain.patience=9"),
    "stages.pretrain.optimization.length=90 steps",
    *("stages.rl.init_from=pretrain", "stages.rl.optimization.length=8 steps"),
    *("stages.rl.optimization.batch_size=8", "stages.rl.group_size=16"),
    *("stages.rl.problems.count=64", "stages.rl.screen_group_size=4"),
]
# Steps between two states and between two lines of metrics, and what RL has beside the recipe's.
SETTINGS: dict[str, tuple[int, int, list[str]]] = {
    "states and metrics together": (2, 2, []),
    "apart, rollouts ahead": (3, 2, ["stages.rl.staleness=1"]),
    "at every step, dynamic sampling": (
        1,
        1,
        ["stages.rl.dynamic_sampling_rounds=2", "stages.rl.filter.max_length_variation=0.5"],
    ),
    "all of it": (
        2,
        3,
        [
            "stages.rl.staleness=1",
            "stages.rl.dynamic_sampling_rounds=2",
            "stages.rl.filter={max_length_variation: 0.5, hard_rollouts: 4}",
            "stages.rl.validation={count: 6, every_steps: 2}",
        ],
    ),
    "best weights": (
        3,
        2,
        [
            *(f"stages.{name}.keep_last=true" for name in ("midtrain", "sft", "dpo", "rl")),
            *(f"stages.{name}.weights=best_loss" for name in ("midtrain", "sft")),
            *(f"stages.{name}.weights=best_pass@1" for name in ("dpo", "rl")),
            "stages.sft.validate_every_steps=2",
            "stages.dpo.validation={count: 6, every_steps: 2, max_new_tokens: 16, levels: [1]}",
            "stages.rl.validation={count: 6, every_steps: 2}",
        ],
    ),
}
# It has what the others have, but for a state at every step and best weights.
RICHEST = "all of it"
LONGEST_S = 15.0
# What a clock says, and the checksum of the record that holds it.
CLOCKED = ("wall_s", "train_s", "finished_at")
SEAL = "record_sha256"


def recipe(setting: str) -> list[str]:
    every_steps, log_every_steps, more = SETTINGS[setting]
    rhythm = {"checkpoint_every_steps": every_steps, "log_every_steps": log_every_steps}
    return [
        *RECIPE,
        *(f"stages.{name}.optimization.{key}={n}" for name in TRAINED for key, n in rhythm.items()),
        *more,
    ]


def contents(folder: Path) -> dict[str, Any]:
    """Every file of every artifact by its checksum, its record by what it says."""
    store = folder / "runs" / "store"
    content: dict[str, Any] = {}
    for record in sorted(store.glob("*/*/artifact.json")):
        artifact = json.loads(record.read_text())
        del artifact[SEAL]
        for key in CLOCKED:
            artifact["metrics"].pop(key, None)
        content[str(record.relative_to(store))] = artifact
        for file in sorted(record.parent.rglob("*")):
            if file.is_file() and file != record:
                content[str(file.relative_to(store))] = sha256(file)
    return content


def killed(words: Sequence[str], folder: Path, after_s: float) -> str | None:
    """Kill the command so long after it began to make something.

    Returns:
        What it was making, or None when it ended before.
    """
    work = folder / "runs" / "work"
    started = time.time()
    process = start_lab(*words, cwd=folder)
    while process.poll() is None and not any(
        clock.stat().st_mtime > started for clock in work.glob("*/seconds.txt")
    ):
        time.sleep(0.02)
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return ", ".join(
            f"{path.name} with {len([*path.rglob('step-*'), *path.rglob('rollouts-*')])} saved"
            for path in work.glob("*")
        )
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    return None


@pytest.mark.timeout(120 * (5 + KILLS))
@pytest.mark.parametrize(
    "setting",
    [
        pytest.param(name, marks=pytest.mark.long if name == RICHEST else pytest.mark.soak)
        for name in SETTINGS
    ],
)
def test_killed_anywhere_ends_in_the_same_bits(setting: str, tmp_path: Path) -> None:
    words = recipe(setting)
    whole = tmp_path / "whole"
    whole.mkdir()
    assert lab_here(*words, cwd=whole) == 0
    expected = contents(whole)
    records = {name: what for name, what in expected.items() if name.endswith("artifact.json")}
    assert len(records) == 12
    assert all(record["metrics"].get("train_tokens", 1) > 0 for record in records.values())
    assert len([name for name in expected if name.endswith("history.parquet")]) == len(TRAINED)
    rng = random.Random(f"{KILLS}/{setting}")
    count, runs = 0, 0
    while count < KILLS:
        folder = tmp_path / str(runs)
        folder.mkdir(exist_ok=True)
        making = killed(words, folder, rng.uniform(0, LONGEST_S))
        if making is not None:
            count += 1
            print(f"kill {count}: run {runs}, making {making}")
        else:
            assert contents(folder) == expected
            runs += 1
    last_folder = tmp_path / str(runs)
    last_folder.mkdir(exist_ok=True)
    assert lab_here(*words, cwd=last_folder) == 0
    assert contents(last_folder) == expected
    assert [entry.name for entry in (last_folder / "runs" / "work").iterdir()] == ["tokens"]


def test_clock_counts_a_killed_attempt_until_it_last_saved(tmp_path: Path) -> None:
    first = Clock(tmp_path)
    assert first.seconds < 1
    started = (tmp_path / "seconds.txt").stat().st_mtime
    (tmp_path / "deep").mkdir()
    saved = tmp_path / "deep" / "state"
    saved.touch()
    os.utime(tmp_path / "deep", (started + 10, started + 10))
    os.utime(saved, (started + 40, started + 40))
    second = Clock(tmp_path)
    assert second.seconds == pytest.approx(40, abs=1)
    # What was counted once is not counted again: the sum is dated after the state.
    os.utime(tmp_path / "seconds.txt", (started + 50, started + 50))
    assert Clock(tmp_path).seconds == pytest.approx(40, abs=1)


def test_clock_adds_up_attempts_that_ended(tmp_path: Path) -> None:
    (tmp_path / "seconds.txt").write_text("7.5")
    clock = Clock(tmp_path)
    time.sleep(0.05)
    clock.stop()
    assert 7.55 <= Clock(tmp_path).seconds < 9
