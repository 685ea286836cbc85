"""Arithmetic and time by hand, and what the plan of the paper's recipe says."""

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from reasoning_lab.commands.plan import Bounds, planned
from reasoning_lab.commands.print_plan import plan_table, summary
from reasoning_lab.config.hardware import STRATEGIES, HardwareConfig
from reasoning_lab.models.cost import (
    DEVICES,
    Device,
    forward_flops,
    generation_s,
    training_flops,
    training_s,
)
from reasoning_lab.models.footprint import STRATEGIES as DIVISIONS
from tests.conftest import Compose

SMALL = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
VOCAB = 300
TABLE = 300 * 64
# Each layer: queries and output, keys and values, the MLP, two norms; then the last norm, the head.
MULTIPLIED = 3 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 160 + 2 * 64) + 64 + TABLE
WEIGHTS = 4 * (MULTIPLIED + TABLE)
CACHE = 4 * 2 * 32 * 3


def test_arithmetic_by_hand() -> None:
    """The table of inputs is only looked up, unless it is the head as well."""
    forwards = 10 * (2 * MULTIPLIED + 2 * 3 * 64 * 10)
    assert forward_flops(SMALL, VOCAB, 1, 10) == forwards
    assert training_flops(SMALL, VOCAB, 7, 10) == 7 * 3 * forwards
    tied = {**SMALL, "tie_word_embeddings": True}
    assert forward_flops(tied, VOCAB, 1, 10) == forwards


def test_training_time_by_hand() -> None:
    assert training_s(8e12, Device(1e12, 1, 1), devices=4, mfu=0.5) == 4.0


@pytest.mark.parametrize(
    ("device", "batch", "step_s"),
    [
        # Memory's bandwidth is what a token waits for.
        (Device(1e12, 1e9, 1e9), 4, (WEIGHTS + 4 * CACHE * 50) / 1e9),
        # Arithmetic is.
        (Device(1e6, 1e9, 1e9), 4, 4 * 2 * (MULTIPLIED + 3 * 64) / 1e6),
        # Two rows of 100 tokens fit in beside the weights, and no third.
        (Device(1e12, (WEIGHTS + 250 * CACHE) / 0.9, 1e9), 2, (WEIGHTS + 2 * CACHE * 50) / 1e9),
    ],
)
def test_generation_time_by_hand(device: Device, batch: int, step_s: float) -> None:
    seconds = generation_s(SMALL, VOCAB, "float32", 8, 100, 4, device, devices=1)
    assert seconds == pytest.approx(8 / batch * 100 * step_s)


ALONE = (
    "hardware.devices=1",
    "hardware.strategy=single",
    "hardware.activation_checkpointing=false",
)
ADAPTED = ("model/adapter=lora", "model.dtype=bfloat16")


def bounds_of(composed: Compose, *overrides: str) -> dict[str, Bounds]:
    nodes = planned([composed("experiment=phi4_mini_reasoning", *ALONE, *overrides)])
    return {node.stage: node.bounds for node in nodes if node.bounds is not None}


def test_the_papers_recipe_is_bounded_by_its_config(composed: Compose) -> None:
    """3.836 billion parameters of 32 layers whose queries are 3,072 wide, at 40% of 989 TFLOP/s."""
    bounds = bounds_of(composed)
    assert set(bounds) >= {"midtrain", "sft", "dpo", "rl", "rl/math500"}
    # Five epochs in which, at worst, each of 200,000 rollouts fills a row.
    midtrain_steps = 5 * 200_000 // 128
    assert bounds["midtrain"].train_tokens == midtrain_steps * 128 * 16384
    assert bounds["sft"].train_tokens == 1953 * 128 * 20480
    # An epoch in which each of 100,000 problems gives a pair.
    assert bounds["dpo"].train_tokens == 2 * (100_000 // 128) * 128 * 16384
    # Eight rollouts a prompt and eight more of a hard one.
    assert bounds["rl"].train_tokens == bounds["rl"].written_tokens == 200 * 128 * 16 * 25600
    assert bounds["rl/math500"].written_tokens == 500 * 3 * 32768
    assert bounds["rl/math500"].train_tokens is None
    flops = midtrain_steps * 128 * 16384 * 6 * (3.836e9 + 32 * 3072 * 16384)
    assert bounds["midtrain"].flops == pytest.approx(flops, rel=1e-4)
    assert bounds["midtrain"].hours == pytest.approx(flops / (0.4 * 989e12) / 3600, rel=1e-4)
    # Weights, gradients, two moments in bfloat16; a row's activations, of which attention keeps the
    # fused projection (keys and values are 1,024 wide), rotated heads and its output; logits of
    # 2 ** 27 values thrice in float32, and a gradient of the table that they are products with.
    row = 16384 * (2 * 32 * (7 * 3072 + 3 * 1024 + 4 * 8192) + 2 * 2 * 3072)
    row += 12 * 2**27 + 2 * 200064 * 3072
    plain = bounds_of(composed, "model.dtype=bfloat16")["midtrain"]
    assert plain.device_bytes == pytest.approx(8 * 3.836e9 + row, rel=0.02)
    # In mixed precision all of them in float32, and a bfloat16 copy; each layer keeps two norms'
    # values in float32, and in bfloat16 what the two fused projections read and the rest as above.
    layer = 4 * 2 * 3072 + 2 * (2 * 3072 + 3 * 3072 + 3 * 1024 + 4 * 8192)
    row = 16384 * (32 * layer + 6 * 3072) + 12 * 2**27 + 4 * 200064 * 3072
    mixed = bounds["midtrain"].device_bytes
    assert mixed == pytest.approx((16 + 2) * 3.836e9 + row, rel=0.02)


def test_the_papers_recipe_is_planned_offline_in_little(tmp_path: Path) -> None:
    """No network (tests/conftest.py), no cache, no weights: under 1 GB and no file left."""
    words = [sys.executable, "-m", "reasoning_lab", "plan", "experiment=phi4_mini_reasoning"]
    root = Path(__file__).parents[2]
    script = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:])\n"
        "print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    code, peak_kb = map(int, done.stdout.splitlines()[-1].split())
    assert code == 0, done.stderr
    assert peak_kb < 1e6
    assert "rl/gpqa_diamond" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_what_the_data_decides_is_not_bounded(composed: Compose) -> None:
    assert "sft" not in bounds_of(composed, "stages.sft.max_tokens=null")


def test_hours_say_what_they_assume(composed: Compose) -> None:
    known = planned([composed("experiment=phi4_mini_reasoning")])
    assert "40% of the device's peak" in summary(known)
    assert plan_table(known).row_count == 21
    unknown = planned([composed("experiment=phi4_mini_reasoning", "hardware.gpu_model=null")])
    assert "peak" not in summary(unknown)


def test_devices_share_a_stage_as_the_hardware_says(composed: Compose) -> None:
    """Eight devices take an eighth of the hours, and of fsdp's weights, gradients and moments."""
    one = bounds_of(composed)["midtrain"]
    (eight,) = (
        node
        for node in planned([composed("experiment=phi4_mini_reasoning")])
        if node.stage == "midtrain"
    )
    assert eight.bounds is not None
    assert one.hours is not None
    assert eight.bounds.hours == pytest.approx(one.hours / 8)
    assert eight.memory is not None
    assert eight.memory.weights + eight.memory.gradients == pytest.approx(8 * 3.836e9 / 8, rel=1e-3)
    (adapted,) = (
        node
        for node in planned([composed("experiment=phi4_mini_reasoning", *ALONE, *ADAPTED)])
        if node.stage == "midtrain"
    )
    assert adapted.memory is not None
    assert adapted.memory.trained < 0.02 * adapted.memory.parameters


def test_every_named_strategy_and_device_can_be_estimated() -> None:
    (gpu_model,) = (item for item in fields(HardwareConfig) if item.name == "gpu_model")
    assert set(gpu_model.metadata["choices"]) == set(DEVICES)
    assert set(STRATEGIES) == set(DIVISIONS)
