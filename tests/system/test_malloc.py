"""Freed blocks are kept while a small model trains, and given back otherwise."""

import platform
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import pytest

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.launch.job import Job, process_group
from reasoning_lab.system import malloc
from reasoning_lab.verify import Verifier
from tests.conftest import lab_here
from tests.support.launches import made_here

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc can be told what to keep"
)
# In a process of its own, whose heap has no holes yet: what stays of a block that is freed with
# another one behind it, in MiB.
KEPT = """
import contextlib, pathlib, sys
from reasoning_lab.system import malloc

def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) / 256

malloc.give_back()
before = resident()
with contextlib.nullcontext() if sys.argv[1] == "none" else malloc.training(int(sys.argv[1])):
    first, behind = (b"1" * (int(sys.argv[2]) << 20) for _ in range(2))
    del first
    within = resident() - before - (len(behind) >> 20)
    del behind
print(within, resident() - before)
"""

GIVEN_BACK = [(-3, 4 << 20), (-1, 128 << 10)]  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD


def kept(weights: int | str, block_mib: int) -> tuple[float, float]:
    """MiB of the block that are resident once it is freed, and behind the training."""
    words = [sys.executable, "-c", KEPT, str(weights), str(block_mib)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    within, afterwards = map(float, done.stdout.split())
    return within, afterwards


def test_a_small_models_step_keeps_its_blocks_and_nothing_is_kept_behind_it() -> None:
    within, afterwards = kept(100 << 20, 64)
    assert within > 60
    assert afterwards < 4


@pytest.mark.parametrize("weights", ["none", 500 << 20])
def test_large_models_and_decoding_give_blocks_back_at_once(weights: int | str) -> None:
    assert kept(weights, 6)[0] < 1


@pytest.mark.parametrize("weights", ["none", 500 << 20])
def test_what_decoding_asks_for_at_every_token_is_kept(weights: int | str) -> None:
    assert kept(weights, 3)[0] > 2


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What glibc is told from now on, in place of telling it."""
    found: list[tuple[int, int]] = []
    libc = SimpleNamespace(mallopt=lambda which, value: found.append((which, value)))
    monkeypatch.setattr(malloc, "_LIBC", libc)
    return found


def test_the_command_gives_back(tmp_path: Path, told: list[tuple[int, int]]) -> None:
    words = ["recipe=distill", "stages.distill.problems.count=14", "benchmark=[]"]
    assert lab_here(*words, "tracker.mode=disabled", "hardware.threads=1", cwd=tmp_path) == 0
    assert told == GIVEN_BACK


def test_a_rank_gives_back(told: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    for word in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(word, "0")
    for word in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(word, "1")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "0")
    with process_group(HardwareConfig(threads=1)):
        assert told == GIVEN_BACK


def test_a_stage_trains_under_the_rule_for_its_weights(
    jobs: dict[str, Job], verifier: Verifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    training = malloc.training

    def seen(weights_bytes: int) -> AbstractContextManager[None]:
        told.append(weights_bytes)
        return training(weights_bytes)

    monkeypatch.setattr(malloc, "training", seen)
    made, _ = made_here(jobs["sft"], verifier, tmp_path / "job")
    assert told == [pytest.approx((made / "model.safetensors").stat().st_size, rel=0.05)]
