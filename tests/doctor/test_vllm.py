"""The check that needs the real vLLM; `make test-vllm`."""

from pathlib import Path

import pytest
import torch

from reasoning_lab.config.hardware import HardwareConfig, SamplingHardwareConfig
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.doctor.check import ok, run_checks, wrong
from reasoning_lab.doctor.engine_checks import ENGINE_CHECKS
from reasoning_lab.doctor.model_under_test import ModelUnderTest
from reasoning_lab.verify import Verifier
from tests.support.twins import TWINS, save_twin, twin_model, twin_tokenizer

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

HARDWARE = HardwareConfig(sampling=SamplingHardwareConfig(kv_cache_gb=0.5))
CHECK = next(check for check in ENGINE_CHECKS if check.name == "vllm-differs")


def test_vllm_with_other_weights_than_the_policy_s_is_named(tmp_path: Path) -> None:
    tokenizer = twin_tokenizer(TWINS["qwen3"], ["the coin shows heads or tails"])
    save_twin(twin_model(TWINS["qwen3"], tokenizer), tokenizer, tmp_path)
    model = ModelUnderTest(
        ModelConfig(path=str(tmp_path)), HARDWARE, [], [], Verifier(1, timeout_s=1, memory_mb=1)
    )
    (sound,) = run_checks([CHECK], model)
    assert sound.result == ok()
    with torch.no_grad():
        model.policy.get_parameter("model.norm.weight").mul_(1.5)
    (damaged,) = run_checks([CHECK], model)
    assert damaged.result == wrong(damaged.result.sentence)
    assert damaged.result.sentence.endswith("set stages.rl.rollout_engine=hf")
