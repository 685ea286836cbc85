"""Arithmetic and time by hand, and what the plan of the paper's recipe says."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM

from reasoning_lab.commands.plan import PlannedNode, planned
from reasoning_lab.commands.print_plan import price_table, summary, time_source
from reasoning_lab.config.hardware import GPU_MODELS, STRATEGIES
from reasoning_lab.kernels.binding import bind_kernels
from reasoning_lab.kernels.decoding import Decoding
from reasoning_lab.models.bounds import Bounds
from reasoning_lab.models.cost import (
    DEVICES,
    KERNEL_START_S,
    KERNELS_OF_LAYER,
    Decoder,
    Device,
    forward_flops,
    generation_s,
    training_flops,
    training_s,
)
from reasoning_lab.models.footprint import STRATEGIES as DIVISIONS
from tests.conftest import Compose
from tests.support.composition import PHI4_BY_TRANSFORMERS

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
    assert training_s(8e12, Device(1e12, 1, 1, 1), devices=4, mfu=0.5) == 4.0


MEMORY_BOUND, COMPUTE_BOUND = Device(1e12, 1e9, 1e9, 256), Device(1e6, 1e9, 1e9, 256)
STARTS = KERNELS_OF_LAYER * (3 + 1) * KERNEL_START_S


@pytest.mark.parametrize(
    ("device", "decoder", "rounds", "step_s"),
    [
        # Nine rows, four at a time.
        (MEMORY_BOUND, Decoder(4), 3, (WEIGHTS + 4 * CACHE * 50) / 1e9 + STARTS),
        (COMPUTE_BOUND, Decoder(4), 3, 4 * 2 * (MULTIPLIED + 3 * 64) / (0.4 * 1e6) + STARTS),
        # Graphs start the kernels.
        (MEMORY_BOUND, Decoder(4, starts_kernels=False), 3, (WEIGHTS + 4 * CACHE * 50) / 1e9),
        # Two rows of 100 tokens fit, and no third.
        (
            MEMORY_BOUND,
            Decoder(4, cache_bytes=250 * CACHE),
            5,
            (WEIGHTS + 2 * CACHE * 50) / 1e9 + STARTS,
        ),
        # Two copies have five rows and four, on two devices each.
        (
            MEMORY_BOUND,
            Decoder(8, copies=2, devices=2),
            1,
            (WEIGHTS + 5 * CACHE * 50) / 1e9 / 2 + STARTS,
        ),
    ],
)
def test_generation_time_by_hand(
    device: Device, decoder: Decoder, rounds: int, step_s: float
) -> None:
    seconds = generation_s(SMALL, VOCAB, "float32", 9, 100, decoder, device)
    assert seconds == pytest.approx(rounds * 100 * step_s)


class KernelCount(TorchDispatchMode):
    """Counts the operations that compute; a view starts no kernel on a GPU."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        creates = "empty" in func.__name__ or "detach" in func.__name__
        self.count += not (func.is_view or creates or "reshape" in func.__name__)
        return result


@pytest.mark.parametrize("family", ["llama", "qwen3", "phi3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_of_a_decoding_step_are_about_as_many(family: str, dtype: torch.dtype) -> None:
    """Counted on a CPU, with two layers and with three."""

    def kernels(layers: int) -> int:
        special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        options: dict[str, Any] = {**SMALL, **special, "num_hidden_layers": layers}
        del options["model_type"]
        config = AutoConfig.for_model(family, vocab_size=VOCAB, **options)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
        bind_kernels(model)
        with torch.inference_mode():
            decoding = Decoding(model, None, [[5, 6, 7], [5, 6]], 0)
            decoding.append(torch.tensor([8, 9]))
            counted = KernelCount()
            with counted:
                decoding.append(torch.tensor([8, 9]))
        return counted.count

    of_layer = kernels(3) - kernels(2)
    assert of_layer == pytest.approx(KERNELS_OF_LAYER, rel=0.45)
    assert kernels(2) - 2 * of_layer == pytest.approx(KERNELS_OF_LAYER, rel=0.45)


ALONE = (
    "hardware.devices=1",
    "hardware.strategy=single",
    "hardware.activation_checkpointing=false",
)
ADAPTED = ("model/adapter=lora", "model.dtype=bfloat16")


def nodes_of(composed: Compose, *overrides: str) -> dict[str, PlannedNode]:
    nodes = planned([composed(*PHI4_BY_TRANSFORMERS, *ALONE, *overrides)])
    return {node.stage: node for node in nodes}


def most_of_device(node: PlannedNode) -> float | None:
    return None if node.needs.device is None else node.needs.device.most


def test_the_papers_recipe_is_bounded_by_its_config(composed: Compose) -> None:
    """3.836 billion parameters of 32 layers whose queries are 3,072 wide, at 40% of 989 TFLOP/s."""
    nodes = nodes_of(composed)
    price = {name: node.price for name, node in nodes.items()}
    # Five epochs in which, at worst, each of 200,000 rollouts fills a row.
    midtrain_steps = 5 * 200_000 // 128
    assert price["midtrain"].train_tokens == Bounds(None, midtrain_steps * 128 * 16384)
    assert price["sft"].train_tokens.most == 1953 * 128 * 20480
    # An epoch in which each of 100,000 problems gives a pair.
    assert price["dpo"].train_tokens.most == 2 * (100_000 // 128) * 128 * 16384
    # Eight rollouts a prompt and eight more of a hard one.
    assert price["rl"].train_tokens == Bounds(None, 200 * 128 * 16 * 25600)
    assert price["rl"].written_tokens == price["rl"].train_tokens
    assert price["rl/math500"].written_tokens == Bounds(None, 500 * 3 * 32768)
    assert price["rl/math500"].train_tokens == Bounds.exactly(0)
    flops = midtrain_steps * 128 * 16384 * 6 * (3.836e9 + 32 * 3072 * 16384)
    assert price["midtrain"].flops.most == pytest.approx(flops, rel=1e-4)
    assert price["midtrain"].wall_s.most == pytest.approx(flops / (0.4 * 989e12), rel=1e-4)
    # Weights, gradients, two moments in bfloat16; a row's activations, of which attention keeps the
    # fused projection (keys and values are 1,024 wide), rotated heads and its output; logits of
    # 2 ** 27 values thrice in float32, and a gradient of the table that they are products with.
    row = 16384 * (2 * 32 * (7 * 3072 + 3 * 1024 + 4 * 8192) + 2 * 2 * 3072)
    row += 12 * 2**27 + 2 * 200064 * 3072
    plain = nodes_of(composed, "model.dtype=bfloat16")["midtrain"]
    assert most_of_device(plain) == pytest.approx(8 * 3.836e9 + row, rel=0.02)
    assert plain.needs.device is not None
    assert plain.needs.device.least == pytest.approx(8 * 3.836e9, rel=1e-3)
    # In mixed precision all of them in float32, and a bfloat16 copy; each layer keeps two norms'
    # values in float32, and in bfloat16 what the two fused projections read and the rest as above.
    layer = 4 * 2 * 3072 + 2 * (2 * 3072 + 3 * 3072 + 3 * 1024 + 4 * 8192)
    row = 16384 * (32 * layer + 6 * 3072) + 12 * 2**27 + 4 * 200064 * 3072
    mixed = most_of_device(nodes["midtrain"])
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
    sft = nodes_of(composed, "stages.sft.max_tokens=null")["sft"]
    assert sft.price.train_tokens == sft.price.wall_s == Bounds()
    assert most_of_device(sft) is None


def test_hours_say_what_they_assume(composed: Compose) -> None:
    recipe = composed(*PHI4_BY_TRANSFORMERS)
    known = planned([recipe])
    text = time_source(known, recipe.root.hardware)
    assert "none of 22 by runs of like size" in text
    assert "data sheet of h100" in text
    assert "40% of its peak" in text
    assert price_table(known).row_count == 22
    recipe = composed(*PHI4_BY_TRANSFORMERS, "hardware.gpu_model=null")
    unknown = planned([recipe])
    assert "hardware.gpu_model gives the others: a10, " in time_source(
        unknown, recipe.root.hardware
    )
    assert "22 of unknown time" in summary(unknown)


def test_devices_share_a_stage_as_the_hardware_says(composed: Compose) -> None:
    """Eight devices take an eighth of the hours, and of fsdp's weights, gradients and moments."""
    one = nodes_of(composed)["midtrain"].price
    (eight,) = (
        node for node in planned([composed(*PHI4_BY_TRANSFORMERS)]) if node.stage == "midtrain"
    )
    assert one.wall_s.most is not None
    assert eight.price.wall_s.most == pytest.approx(one.wall_s.most / 8)
    assert eight.price.device_s.most == pytest.approx(one.wall_s.most)
    assert eight.memory is not None
    assert eight.memory.weights + eight.memory.gradients == pytest.approx(8 * 3.836e9 / 8, rel=1e-3)
    (adapted,) = (
        node
        for node in planned([composed(*PHI4_BY_TRANSFORMERS, *ALONE, *ADAPTED)])
        if node.stage == "midtrain"
    )
    assert adapted.memory is not None
    assert adapted.memory.trained < 0.02 * adapted.memory.parameters


def test_every_named_strategy_and_device_can_be_estimated() -> None:
    assert set(GPU_MODELS) == set(DEVICES)
    assert set(STRATEGIES) == set(DIVISIONS)
