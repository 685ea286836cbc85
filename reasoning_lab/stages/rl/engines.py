"""Which engine draws the rollouts, and how it gets the weights of the policy that learns."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.engine.rollouts import RolloutSampler
from reasoning_lab.engine.vllm import VLLMEngine
from reasoning_lab.engine.vllm_server import VLLMServers
from reasoning_lab.models.policy import save_policy
from reasoning_lab.stages.base import StageContext
from reasoning_lab.stages.rl.config import RLConfig


def sampler_of(
    config: RLConfig,
    context: StageContext,
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> RolloutSampler:
    """Draws from `policy` as it is at each call; it is whole on every rank."""
    if config.engine == "hf":
        return context.sampler(policy, tokenizer)
    if context.hardware.engine.rollout_urls:
        return _from_servers(context, policy, tokenizer)

    def engine(on_progress: Callable[[int], None]) -> VLLMEngine:
        folder = context.inputs.get("policy")
        if folder is None:  # The base checkpoint may lack tokens that the policy has.
            folder = context.work_dir / "base"
            save_policy(policy, tokenizer, folder)
        return VLLMEngine(str(folder), None, context.model.dtype, None, context.hardware)

    return context.sampler_through(
        engine, lambda made, version: cast(VLLMEngine, made).load(policy)
    )


def _from_servers(
    context: StageContext, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> RolloutSampler:
    limits = context.hardware.engine
    shared = limits.weights_dir and Path(limits.weights_dir) / context.work_dir.name
    folder = (shared or context.work_dir) / "weights"
    return context.sampler_through(
        lambda on_progress: VLLMServers(policy, tokenizer, limits, folder),
        lambda made, version: cast(VLLMServers, made).load(policy, version),
    )
