"""States that training keeps, against DeepSpeed's own estimators, at the sizes of real models."""

from typing import Any

import pytest

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.models.footprint import Footprint, footprint, largest_module_count

pytest.importorskip("deepspeed")
from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

SIZES: dict[str, dict[str, Any]] = {
    "135M": {
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
    "3.8B": {
        "model_type": "phi3",
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 32,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "vocab_size": 200064,
        "tie_word_embeddings": True,
    },
    "7.6B": {
        "model_type": "qwen2",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
    },
}
WORLDS = [(1, 1), (3, 1), (8, 1), (8, 4), (8, 128)]
# Each of the parts that make up a sum is rounded down by itself.
ROUNDED = 5


def estimated(size: str, **options: Any) -> Footprint:
    hardware = HardwareConfig("gpu", **options)
    estimate = footprint(SIZES[size], 0, "bfloat16", "torch.optim.AdamW", hardware)
    assert estimate is not None
    return estimate


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("devices", "nodes"), WORLDS)
def test_zero2_is_deepspeeds_estimate(size: str, devices: int, nodes: int) -> None:
    estimate = estimated(size, strategy="deepspeed2", devices=devices, nodes=nodes)
    _, device = estimate_zero2_model_states_mem_needs(
        estimate.parameters, devices, nodes, cpu_offload=False
    )
    assert device - ROUNDED < estimate.states <= device
    assert (estimate.host, estimate.nvme) == (0, 0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("devices", "nodes"), [(1, 1), (4, 1), (2, 2)])
def test_zero2_offloaded_is_deepspeeds_estimate(size: str, devices: int, nodes: int) -> None:
    """Theirs is of all hosts together, and beyond four devices of what loading the model takes."""
    estimate = estimated(size, strategy="deepspeed2", devices=devices, nodes=nodes, offload="cpu")
    host, device = estimate_zero2_model_states_mem_needs(
        estimate.parameters, devices, nodes, cpu_offload=True, additional_buffer_factor=1
    )
    assert estimate.states == device
    assert host - nodes < nodes * estimate.host <= host


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("devices", "nodes"), WORLDS)
@pytest.mark.parametrize("offload", ["none", "cpu", "nvme"])
def test_zero3_is_deepspeeds_estimate(size: str, devices: int, nodes: int, offload: str) -> None:
    estimate = estimated(size, strategy="deepspeed3", devices=devices, nodes=nodes, offload=offload)
    host, device, largest = estimate_zero3_model_states_mem_needs(
        estimate.parameters,
        largest_module_count(SIZES[size], SIZES[size]["vocab_size"]),
        devices,
        nodes,
        cpu_offload=offload != "none",
        cpu_offload_params=False,
        additional_buffer_factor=1,
    )
    assert device - ROUNDED < estimate.states <= device
    assert estimate.gathered == largest
    stored = {"cpu": estimate.host, "nvme": estimate.nvme}
    if offload != "none":
        assert host - 1 <= stored.pop(offload) <= host
    assert not any(stored.values())


def test_zero1_keeps_all_gradients_of_lower_precision() -> None:
    """Four billion parameters on eight devices: 2 + 2 bytes whole, 4 + 4 + 8 divided."""
    estimate = estimated("3.8B", strategy="deepspeed1", devices=8)
    assert estimate.states == pytest.approx(
        4 * estimate.parameters + 16 * estimate.parameters / 8, abs=ROUNDED
    )
