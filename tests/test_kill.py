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

KILLS = int(os.environ.get("LAB_KILLS", "3"))
# The same artifacts as `smoke_run`'s: how often a state is saved is no part of their identity.
OFTEN = [
    f"stages.{stage}.optimization.checkpoint_every_steps=1"
    for stage in ("pretrain", "midtrain", "sft", "dpo", "rl")
]
LONGEST_S = 8.0


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
    process = start_lab(*SMOKE, *OFTEN, cwd=folder)
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
@pytest.mark.timeout(60 * (2 + KILLS))
def test_killed_anywhere_ends_in_the_same_bits(smoke_run: Path, tmp_path: Path) -> None:
    expected = contents(smoke_run)
    assert len(expected) == 12
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
    assert lab_here(*SMOKE, *OFTEN, cwd=last_folder) == 0
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
