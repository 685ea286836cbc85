"""Killed at any moment, a run ends in the same bits and loses little; LAB_KILLS sets how often."""

import json
import os
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.runner import Clock

from .conftest import SMOKE, lab_here, start_lab

TRAINED = ("pretrain", "midtrain", "sft", "dpo", "rl")
KILLS = int(os.environ.get("LAB_KILLS", "3"))
# Long enough that most kills meet a stage at work. RL starts from the policy that answers
# directly, which is right now and then: without a right answer there is nothing to learn.
RECIPE = [
    *SMOKE,
    *("stages.pretrain.problems.count=2000", "stages.distill.problems.count=1500"),
    *(f"stages.{stage}.optimization.checkpoint_every_steps=2" for stage in TRAINED),
    *(f"stages.{stage}.optimization.steps=25" for stage in ("midtrain", "sft", "dpo")),
    *("stages.midtrain.validate_every_steps=4", "stages.midtrain.patience=9"),
    "stages.pretrain.optimization.steps=90",
    *("stages.rl.init_from=pretrain", "stages.rl.optimization.steps=8"),
    *("stages.rl.optimization.batch_size=8", "stages.rl.group_size=16"),
    *("stages.rl.problems.count=64", "stages.rl.screen_group_size=4"),
]
LONGEST_S = 15.0


def contents(folder: Path) -> dict[str, Any]:
    """Checksums and metrics of every artifact, without what a clock measured."""
    found = {}
    for record in sorted((folder / "runs" / "store").glob("*/*/artifact.json")):
        artifact = json.loads(record.read_text())
        metrics = {k: v for k, v in artifact["metrics"].items() if k not in ("wall_s", "train_s")}
        found[str(record.parent.relative_to(folder))] = (artifact["files"], metrics)
    return found


def killed(folder: Path, after_s: float) -> str | None:
    """Kill the command so long after it began to make something.

    Returns:
        What it was making, or None when it ended before.
    """
    work = folder / "runs" / "work"
    started = time.time()
    process = start_lab(*RECIPE, cwd=folder)
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


@pytest.mark.long
@pytest.mark.timeout(120 * (5 + KILLS))
def test_killed_anywhere_ends_in_the_same_bits(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    assert lab_here(*RECIPE, cwd=whole) == 0
    expected = contents(whole)
    assert len(expected) == 12
    assert all(metrics.get("train_tokens", 1) > 0 for _, metrics in expected.values())
    rng = random.Random(KILLS)
    count, runs = 0, 0
    while count < KILLS:
        folder = tmp_path / str(runs)
        folder.mkdir(exist_ok=True)
        making = killed(folder, rng.uniform(0, LONGEST_S))
        if making is not None:
            count += 1
            print(f"kill {count}: run {runs}, making {making}")
        else:
            assert contents(folder) == expected
            runs += 1
    last_folder = tmp_path / str(runs)
    last_folder.mkdir(exist_ok=True)
    assert lab_here(*RECIPE, cwd=last_folder) == 0
    assert contents(last_folder) == expected
    assert not any((last_folder / "runs" / "work").iterdir())


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
