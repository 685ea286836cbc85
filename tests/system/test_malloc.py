"""Freed blocks are kept while a small model trains, and returned to the system otherwise."""

import platform
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.launch.job import process_group
from reasoning_lab.system import malloc
from reasoning_lab.training.job import Job
from reasoning_lab.verify import Verifier
from tests.conftest import lab_here
from tests.support.launches import run_in_process

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc has these parameters"
)
# Runs in a new process, whose heap has no holes yet. Prints how much of a freed block stays
# resident while another block lies behind it, in MiB.
SCRIPT = """
import contextlib, pathlib, sys
from reasoning_lab.system import malloc

def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) / 256

malloc.return_freed_blocks()
before = resident()
weights = sys.argv[1]
with contextlib.nullcontext() if weights == "none" else malloc.tuned_for_training(int(weights)):
    first, behind = (b"1" * (int(sys.argv[2]) << 20) for _ in range(2))
    del first
    within = resident() - before - (len(behind) >> 20)
    del behind
print(within, resident() - before)
"""

RETURNED = [(malloc.M_MMAP_THRESHOLD, 4 << 20), (malloc.M_TRIM_THRESHOLD, 128 << 10)]


def resident_mib(weights: int | str, block_mib: int) -> tuple[float, float]:
    """MiB of the block that are resident after it is freed, and after the training."""
    command = [sys.executable, "-c", SCRIPT, str(weights), str(block_mib)]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    within, afterwards = map(float, process.stdout.split())
    return within, afterwards


def test_a_small_model_keeps_freed_blocks_until_its_training_ends() -> None:
    within, afterwards = resident_mib(100 << 20, 64)
    assert within > 60
    assert afterwards < 4


@pytest.mark.parametrize("weights", ["none", 500 << 20])
def test_large_models_and_decoding_return_freed_blocks_at_once(weights: int | str) -> None:
    assert resident_mib(weights, 6)[0] < 1


@pytest.mark.parametrize("weights", ["none", 500 << 20])
def test_blocks_that_decoding_allocates_at_every_token_are_kept(weights: int | str) -> None:
    assert resident_mib(weights, 3)[0] > 2


@pytest.fixture
def mallopt_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Parameters and values that are recorded instead of being set."""
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(malloc, "mallopt", lambda *call: calls.append(call))
    return calls


def test_the_command_returns_freed_blocks(
    tmp_path: Path, mallopt_calls: list[tuple[int, int]]
) -> None:
    overrides = ["recipe=distill", "stages.distill.problems.count=14", "benchmark=[]"]
    assert lab_here(*overrides, "tracker.mode=disabled", "hardware.threads=1", cwd=tmp_path) == 0
    assert mallopt_calls == RETURNED


def test_a_rank_returns_freed_blocks(
    mallopt_calls: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(variable, "0")
    for variable in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(variable, "1")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "0")
    with process_group(HardwareConfig(threads=1)):
        assert mallopt_calls == RETURNED


def test_a_stage_trains_under_the_rule_for_its_weights(
    jobs: dict[str, Job], verifier: Verifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    tuned_for_training = malloc.tuned_for_training

    def record(weights_bytes: int) -> AbstractContextManager[None]:
        sizes.append(weights_bytes)
        return tuned_for_training(weights_bytes)

    monkeypatch.setattr(malloc, "tuned_for_training", record)
    policy, _ = run_in_process(jobs["sft"], verifier, tmp_path / "job")
    assert sizes == [pytest.approx((policy / "model.safetensors").stat().st_size, rel=0.05)]
