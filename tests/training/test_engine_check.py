"""An engine whose samples are not the policy's is refused."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from reasoning_lab.config.hardware import HardwareConfig, SamplingHardwareConfig
from reasoning_lab.models.policy import load_policy
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.sampling.engine_check import check_engine, hf_remedy
from reasoning_lab.sampling.hf import HFEngine
from reasoning_lab.training.context import StageContext
from reasoning_lab.types import Completion, UserError
from tests.support.stages import (  # noqa: F401
    context,
    optimization,
    source,
    trained,
    verifier,
    weights,
)

HARDWARE = HardwareConfig()
UNCACHED = HardwareConfig(sampling=SamplingHardwareConfig(cache=False))


def test_without_a_cache_the_same_completions_are_drawn(context: StageContext) -> None:  # noqa: F811
    policy, tokenizer = load_policy(context.inputs["policy"].path, "float32")
    arguments = (
        [f"coin {number}" for number in (3, 3, 45, 1234)],
        Sampling(2.0, 0.9, 12),
        [1, 2, 3, 4],
    )
    cached, uncached = (
        HFEngine(policy, tokenizer, 3, cache=cache).generate(*arguments) for cache in (True, False)
    )
    assert len({len(one.token_ids) for one in cached}) > 1
    for one, other in zip(cached, uncached, strict=True):
        assert one.token_ids == other.token_ids
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_an_engine_of_other_weights_is_refused(context: StageContext) -> None:  # noqa: F811
    policy, tokenizer = load_policy(context.inputs["policy"].path, "float32")
    other = copy.deepcopy(policy)
    with torch.no_grad():
        other.get_output_embeddings().weight.mul_(1.01)
    for engine_policy, refused in ((policy, False), (other, True)):
        generate = HFEngine(engine_policy, tokenizer, 8).generate
        arguments = policy, tokenizer, generate, 1.0, HARDWARE, "stages.rl", hf_remedy(HARDWARE)
        if refused:
            with pytest.raises(UserError, match=r"^stages.rl: .* other logprobs than the model"):
                check_engine(*arguments)
        else:
            check_engine(*arguments)


def test_an_engine_at_another_temperature_is_refused(context: StageContext) -> None:  # noqa: F811
    policy, tokenizer = load_policy(context.inputs["policy"].path, "float32")
    engine = HFEngine(policy, tokenizer, 8)

    def warmer(
        prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        return engine.generate(prompts, replace(sampling, temperature=0.99), seeds)

    with pytest.raises(UserError, match=r"set hardware.kernels=reference$"):
        check_engine(policy, tokenizer, warmer, 1.0, UNCACHED, "stages.rl", hf_remedy(UNCACHED))


def test_bfloat16_engines_of_mixed_policies_pass(context: StageContext) -> None:  # noqa: F811
    mixed, tokenizer = load_policy(context.inputs["policy"].path, "mixed")
    half, _ = load_policy(context.inputs["policy"].path, "bfloat16")
    generate = HFEngine(half, tokenizer, 8).generate
    remedy = hf_remedy(HARDWARE)
    check_engine(mixed, tokenizer, generate, 0.7, HARDWARE, "stages.rl", remedy, torch.bfloat16)
