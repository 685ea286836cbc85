"""The engine that samples from a policy while it trains, and how it gets the policy's weights.

RL's rollouts come from it, and the completions of every stage's validation.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import torch
from filelock import FileLock, Timeout
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.config.rollout_engine import uses_servers
from reasoning_lab.models.adapters import merged_weights
from reasoning_lab.models.policy import save_policy
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.sampling.engine_check import check_engine, hf_remedy
from reasoning_lab.sampling.engine_process import EngineProcess
from reasoning_lab.sampling.rollouts import RolloutSampler
from reasoning_lab.sampling.vllm import VLLMEngine, vllm_environment
from reasoning_lab.sampling.vllm_client import VLLMClient
from reasoning_lab.sampling.vllm_launcher import running_server
from reasoning_lab.system.ranks import broadcast_from_rank0, rank
from reasoning_lab.training.context import StageContext

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RolloutEngine:
    """What samples.

    Attributes:
        name: hf or vllm.
        dtype: Precision of weights and arithmetic, as the model that samples has it.
        temperature: That of the rollouts, above 0.
        key: The config key above `rollout_engine`, which names it, for errors.
    """

    name: str
    dtype: str
    temperature: float
    key: str


@contextmanager
def rollout_sampler(
    engine: RolloutEngine,
    context: StageContext,
    student: PreTrainedModel,
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> Iterator[RolloutSampler]:
    """Samples from `policy` with the weights that it has at each call.

    Args:
        engine: What samples.
        context: The stage's.
        student: The model that learns.
        policy: The same or its copy; whole on every rank.
        tokenizer: The policy's.

    Raises:
        UserError: The engine's logprobs are not those of the student; see `check_engine`.
    """
    uses_hf = engine.name == "hf"
    with ExitStack() as stack:
        if uses_hf:
            sampler = context.sampler(policy, tokenizer)
        elif uses_servers(context.hardware):
            sampler = _vllm_servers(context, policy, tokenizer, engine.dtype, stack)
        elif context.hardware.strategy == "single":
            sampler = _vllm_in_process(context, policy, tokenizer, engine.dtype)
        else:
            sampler = _vllm_of_rank(context, policy, tokenizer, engine.dtype)
        stack.enter_context(closing(sampler))
        if not uses_hf or policy is not student:
            check_engine(
                student,
                tokenizer,
                sampler.generate,
                engine.temperature,
                context.hardware,
                engine.key,
                hf_remedy(context.hardware) if uses_hf else f"set {engine.key}.rollout_engine=hf",
                getattr(torch, engine.dtype),
            )
        yield sampler


def _vllm_in_process(
    context: StageContext, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dtype: str
) -> RolloutSampler:
    folder = _checkpoint(context, policy, tokenizer)
    return context.sampler_through(
        tokenizer,
        lambda on_progress: VLLMEngine(str(folder), None, dtype, None, context.hardware),
        lambda engine, version: cast(VLLMEngine, engine).load_weights(
            merged_weights(policy).items()
        ),
    )


def _vllm_of_rank(
    context: StageContext, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dtype: str
) -> RolloutSampler:
    """Each rank has a vLLM beside it, on the rank's device."""
    folder = broadcast_from_rank0(lambda: _checkpoint(context, policy, tokenizer))
    hardware = context.hardware
    device = torch.cuda.current_device() if torch.cuda.is_available() else 0
    environment = vllm_environment(hardware, (device, 1))
    build = partial(VLLMEngine, str(folder), None, dtype, None, hardware)
    output = context.work_dir / f"vllm-{rank()}.log"
    return context.sampler_through(
        tokenizer,
        lambda on_progress: EngineProcess(build, environment, output, f"vLLM of rank {rank()}"),
        lambda engine, version: cast(EngineProcess, engine).load(
            lambda: merged_weights(policy), version
        ),
    )


def _vllm_servers(
    context: StageContext,
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dtype: str,
    stack: ExitStack,
) -> RolloutSampler:
    hardware = context.hardware.sampling

    def start_server() -> str:
        folder = _checkpoint(context, policy, tokenizer)
        output = context.work_dir / "vllm.log"
        server = running_server(folder, dtype, context.hardware, output)
        return stack.enter_context(server)

    urls = hardware.rollout_urls or [broadcast_from_rank0(start_server)]
    if rank() == 0:
        for url in sorted(hardware.rollout_urls):
            stack.enter_context(exclusive_server(url, context.work_dir.parent))
    shared = Path(hardware.weights_dir or context.work_dir.parent) / context.work_dir.name
    return context.sampler_through(
        tokenizer,
        lambda on_progress: VLLMClient(policy, tokenizer, urls, hardware, shared / "weights"),
        lambda engine, version: cast(VLLMClient, engine).load(policy, version),
    )


@contextmanager
def exclusive_server(url: str, folder: Path) -> Iterator[None]:
    """Lock a server, which holds one policy's weights; runs of one sweep take turns."""
    lock = FileLock(folder / f"{re.sub(r'[^0-9A-Za-z]+', '-', url)}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("Waiting for '%s', which another training uses.", url)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _checkpoint(
    context: StageContext, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Path:
    """A checkpoint of the policy's architecture, with its tokenizer, to start vLLM on."""
    start = context.inputs.get(Policy.kind)
    if isinstance(start, Policy) and not start.is_base:
        return start.path
    folder = context.work_dir / "base"  # The base checkpoint may lack tokens of the policy.
    save_policy(policy, tokenizer, folder)
    return folder
