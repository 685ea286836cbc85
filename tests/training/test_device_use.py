"""What a step says of its device and of its gradient."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.model import AdapterConfig
from reasoning_lab.config.optimization import OptimizerConfig
from reasoning_lab.models.adapters import add_adapter
from reasoning_lab.models.cost import training_flops
from reasoning_lab.models.footprint import lora_parameter_count
from reasoning_lab.tracking.curves import read_history
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.device_use import DeviceUse, training_costs
from tests.support.stages import STAGES, optimization, trained, weights
from tests.support.tiny import tiny_model


def model_of(family: str, tied: bool) -> PreTrainedModel:
    return tiny_model(family, 97, 0, 1, seed=0, tie_word_embeddings=tied)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["llama", "qwen2", "phi3"])
def test_costs_are_those_of_the_plan(family: str, tied: bool) -> None:
    model = model_of(family, tied)
    token, squared = training_costs(model)
    architecture = model.config.to_dict()
    for length in (1, 7, 300):
        planned = training_flops(architecture, model.config.vocab_size, 1, length)
        assert token * length + squared * length**2 == pytest.approx(planned)


def test_frozen_weights_have_no_gradient_to_compute() -> None:
    model = model_of("llama", True)
    whole, squared = training_costs(model)
    add_adapter(model, AdapterConfig(rank=2), 0)
    token, squared_again = training_costs(model)
    adapter = lora_parameter_count(model.config.to_dict(), 2)
    assert token == whole * 4 // 6 + 4 * adapter
    assert squared_again == squared


@pytest.mark.parametrize("clip_norm", [1e9, 0.01, 0.0])
def test_the_logged_norm_is_the_gradients_before_it_is_clipped(
    clip_norm: float, context: StageContext, tmp_path: Path
) -> None:
    """By plain gradient descent, which moves the weights by the rate times the gradient."""
    rate = 0.5
    steps = optimization(
        optimizer=OptimizerConfig("torch.optim.SGD"),
        learning_rate=rate,
        clip_norm=clip_norm,
        length="1 steps",
    )
    trained("sft", context, tmp_path, replace(STAGES["sft"], optimization=steps))
    before, after = weights(context.inputs["policy"].path), weights(tmp_path / "out")
    moved = torch.stack([(after[name] - before[name]).norm() for name in before]).norm().item()
    norm = read_history(tmp_path / "out")["train/gradient_norm"][0]
    assert moved == pytest.approx(rate * min(norm, clip_norm or norm), rel=1e-3)
    assert norm > 0.01


def test_flops_of_a_step_are_a_share_of_the_device_s_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    model = model_of("llama", True)
    token, squared = training_costs(model)
    use = DeviceUse(model, HardwareConfig(accelerator="gpu", gpu_model="h100"))
    use.add(torch.tensor([9, 9]))
    use.start_step()
    for lengths in ([3, 4], [5]):
        use.add(torch.tensor(lengths))
    flops = token * (3 + 4 + 5) + squared * (9 + 16 + 25)
    assert use.metrics(2.0)["device/mfu"] == pytest.approx(flops / 2.0 / 989e12)


def test_memory_of_a_process_on_a_cpu() -> None:
    use = DeviceUse(model_of("llama", True), HardwareConfig())
    use.add(torch.tensor([3, 4]))
    assert use.metrics(1.0).keys() == {"device/peak_memory_bytes"}
    assert use.metrics(1.0)["device/peak_memory_bytes"] > 100e6
