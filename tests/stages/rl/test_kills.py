"""Killed at any moment, RL trains on the same rollouts and writes the same bytes.

`LAB_KILLS=20 pytest -m "long or soak" tests/stages/rl/test_kills.py -s` kills twenty times in each
setting.
"""

import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Mapping
from dataclasses import fields
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.system.files import sha256
from reasoning_lab.tracking.curves import read_history
from reasoning_lab.training.context import StageContext
from reasoning_lab.verify import Verifier
from tests.support.stages import trained

KILLS = int(os.environ.get("LAB_KILLS", "1"))
# Between them they have each kind of schedule and all that a state may hold.
RICHEST = ("rl_far_ahead", "rl_partial", "rl_curriculum")


def train(name: str, values: Mapping[str, Any], folder: Path) -> None:
    with Verifier(workers=1, timeout_s=20, memory_mb=1024) as verifier:
        trained(name, StageContext(**values, verifier=verifier), folder)


def started(name: str, context: StageContext, folder: Path) -> BaseProcess:
    """A process that has begun to train, from the last state if there is one."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    names = [field.name for field in fields(context) if field.name != "verifier"]
    values = {name: getattr(context, name) for name in names}
    # A process of its own kind: one that was forked may wait for a lock that a thread had.
    process = multiprocessing.get_context("spawn").Process(
        target=train, args=(name, values, folder)
    )
    process.start()
    while process.is_alive() and not (folder / "out").exists():
        time.sleep(0.02)
    return process


def contents(folder: Path) -> dict[str, str]:
    return {file.name: sha256(file) for file in sorted((folder / "out").iterdir())}


@pytest.mark.timeout(120 * (5 + KILLS))
@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=pytest.mark.long) for name in RICHEST),
        *(pytest.param(name, marks=pytest.mark.soak) for name in ("rl", "rl_ahead")),
    ],
)
def test_killed_anywhere_ends_in_the_same_bytes(
    name: str, context: StageContext, tmp_path: Path
) -> None:
    whole = started(name, context, tmp_path / "whole")
    began = time.monotonic()
    whole.join()
    seconds = time.monotonic() - began
    assert whole.exitcode == 0
    expected = contents(tmp_path / "whole")
    assert {"model.safetensors", "history.parquet"} <= expected.keys()
    if name == "rl_partial":
        interrupted = read_history(tmp_path / "whole" / "out")["rollout/interrupted_frac"]
        assert max(interrupted.values()) > 0.1
    if name == "rl_curriculum":
        history = read_history(tmp_path / "whole" / "out")
        resting = ("curriculum/resting_solved", "curriculum/resting_failed")
        assert all(max(history[key].values()) > 0 for key in resting)
    rng = random.Random(f"{KILLS}/{name}")
    kills, runs = 0, 0
    while kills < KILLS:
        folder = tmp_path / str(runs)
        process = started(name, context, folder)
        process.join(rng.uniform(0, seconds))
        if process.is_alive():
            process.kill()
            process.join()
            kills += 1
            states = sorted(path.name for path in folder.rglob("step-*"))
            print(f"{name}: kill {kills} in run {runs}, with {', '.join(states) or 'no state'}")
        else:
            assert process.exitcode == 0
            assert contents(folder) == expected
            runs += 1
    last = started(name, context, tmp_path / str(runs))
    last.join()
    assert last.exitcode == 0
    assert contents(tmp_path / str(runs)) == expected
