"""Hold one way of computing a model's logprobs to another, as far as rounding lets them agree.

A different cache, or a different implementation of a family, gives completions that look right and
come from another distribution. So `check_engine` compares an engine's logprobs of a few tokens with
those of the model's forward pass; `reasoning_lab.training.probe` compares what trains.

Two ways to compute one thing differ by rounding, and how much that is depends on the model. It is
measured by Monte Carlo arithmetic (Parker 1997): the same forward, some times, with the result of
every layer moved at random by a unit in its last place. A way may differ by some multiple of that.
What is done to a model here is undone when the block ends.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.data.tokens.batches import completion_batch
from reasoning_lab.kernels.batch import TokenBatch
from reasoning_lab.kernels.binding import reference_kernels
from reasoning_lab.kernels.logprobs import token_logprobs
from reasoning_lab.models.policy import free_memory, sampling_device, to_device
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.types import Completion, Example, UserError

Generate = Callable[[Sequence[str], Sampling, Sequence[int]], list[Completion]]

_PROMPTS = ("What is 3 + 4?", "How many days are there in two weeks?")
_NEW_TOKENS = 6
# Ways that agree differ by no more than rounding is measured to move them. The smallest leak of the
# families that were tried, at random initial weights, is 27 times that.
_TIMES_ROUNDING = 8.0
# A policy is sure of most tokens, so what rounding moves is a few others, and not in each forward:
# of a trained model of 135M parameters in bfloat16, one moved 8e-5 nats and the next ones 0.1.
_ROUNDED_FORWARDS = 4
# Nats: float32 keeps no more of a logprob, whatever the model.
_LEAST_TOLERANCE = 1e-5
_TEMPERATURE = 0.7
OTHER_MODEL = "choose another model, as no option computes this one"


@contextmanager
def full_float32() -> Iterator[None]:
    """A GPU's products of float32 in all its digits, not in TF32's ten."""
    backends: Any = (torch.backends.cudnn, torch.backends.cuda.matmul)
    if not torch.cuda.is_available():
        yield
        return
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    try:
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout; modes and the attention implementation are afterwards what they were."""
    training = [module for module in model.modules() if module.training]
    implementation: str = model.config._attn_implementation
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
        if model.config._attn_implementation != implementation:
            model.set_attn_implementation(implementation)


@contextmanager
def rounding(model: PreTrainedModel, dtype: torch.dtype | None = None) -> Iterator[None]:
    """Every layer's result moves at random by a unit in its last place, of `dtype` at least."""
    generator = torch.Generator(model.device).manual_seed(0)
    coarsest = torch.finfo(dtype).eps if dtype is not None else 0.0

    def moved(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(moved(part) for part in value)
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        epsilon = max(torch.finfo(value.dtype).eps, coarsest)
        uniform = torch.rand(value.shape, generator=generator, device=value.device)
        return (value.float() * (1 + epsilon * (2 * uniform - 1))).to(value.dtype)

    layers = [module for module in model.modules() if not list(module.children())]
    handles = [
        layer.register_forward_hook(lambda module, inputs, output: moved(output))
        for layer in layers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def placed(policy: PreTrainedModel, hardware: HardwareConfig) -> Iterator[None]:
    """`policy` on the device that trains it, where that holds all of it."""
    before, device = policy.device, sampling_device(hardware)
    stays = hardware.strategy not in ("single", "ddp") or is_quantized(policy)
    if stays or before.type == device.type:
        yield
        return
    to_device(policy, device)
    try:
        yield
    finally:
        to_device(policy, before)
        free_memory()


def is_quantized(model: PreTrainedModel) -> bool:
    """Whether some layers are kept in 4 bits."""
    return any(hasattr(parameter, "quant_state") for parameter in model.parameters())


def alone_logprobs(
    model: PreTrainedModel, documents: Sequence[Example], temperature: float = _TEMPERATURE
) -> Tensor:
    """Logprobs of all completions, each document by itself: `[K]` float32."""
    parts = [completion_batch([document]) for document in documents]
    return torch.cat([read_logprobs(model, batch, temperature) for batch in parts])


def read_logprobs(
    model: PreTrainedModel, batch: TokenBatch, temperature: float = _TEMPERATURE
) -> Tensor:
    """Logprobs of a batch's trained tokens: `[K]` float32."""
    return token_logprobs(model, batch.to(model.device), temperature).float()


def rounded_logprobs(
    model: PreTrainedModel, compute: Callable[[], Tensor], dtype: torch.dtype | None = None
) -> Tensor:
    """What `compute` gives in forwards of `model` that are rounded at random: `[R, K]` float32.

    Args:
        model: The model that it calls.
        compute: Returns logprobs, `[K]`.
        dtype: Its results are rounded to this precision at least; None = to their own.
    """
    with rounding(model, dtype):
        return torch.stack([compute() for _ in range(_ROUNDED_FORWARDS)])


def excess_of(logprobs: Tensor, expected: Tensor, rounded: Tensor) -> float:
    """How far `logprobs` are from `expected`, as a multiple of the tolerance; above 1 = too far.

    Args:
        logprobs: `[K]`, computed in the way that is held to the other.
        expected: `[K]`; where it is infinite, nothing is compared.
        rounded: `[R, K]`, see `rounded_logprobs`.
    """
    finite = expected.isfinite() & rounded.isfinite().all(0)
    tolerance = _TIMES_ROUNDING * _rms((rounded - expected)[:, finite]) + _LEAST_TOLERANCE
    distance = _rms((logprobs - expected)[finite])
    return distance / tolerance if distance == distance else float("inf")


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def times_rounding(excess: float) -> str:
    """What a refusal says of `excess_of`."""
    return f"{excess * _TIMES_ROUNDING:,.0f} times what rounding explains"


def attempt(compute: Callable[[], Any]) -> Any:
    """What it gives, or the exception with which the model's code fails."""
    try:
        return compute()
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        return error


def first_line(error: Exception) -> str:
    """What a refusal says of an exception."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def check_engine(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    generate: Generate,
    temperature: float,
    hardware: HardwareConfig,
    key: str,
    remedy: str,
    dtype: torch.dtype | None = None,
) -> None:
    """Compare an engine's logprobs of its tokens with those of the model's forward pass.

    Args:
        policy: The trainer's model; the engine has the same weights.
        tokenizer: The policy's.
        generate: The engine's method.
        temperature: The temperature of the stage's rollouts.
        hardware: The device that the policy trains on.
        key: The config key of the stage or the engine, for the error.
        remedy: What to change where they differ.
        dtype: The engine's precision; None = the policy's.

    Raises:
        UserError: The logprobs differ, or the engine fails on this model.
    """
    sampling = Sampling(temperature, 1.0, _NEW_TOKENS)
    kind = policy.config.model_type
    with full_float32():
        completions = attempt(lambda: generate(_PROMPTS, sampling, range(len(_PROMPTS))))
    if isinstance(completions, Exception):
        raise UserError(
            f"{key}: with this model ('{kind}') the engine fails "
            f"({first_line(completions)}); {remedy}"
        ) from completions
    comparable = [
        (Example(prompt, completion.token_ids), completion.logprobs)
        for prompt, completion in zip(prompt_tokens(tokenizer, _PROMPTS), completions, strict=True)
        if completion.token_ids and completion.logprobs
    ]
    if not comparable:
        return
    examples = [example for example, _ in comparable]
    rollout_logprobs = torch.tensor([value for _, logprobs in comparable for value in logprobs])
    with (
        full_float32(),
        placed(policy, hardware),
        torch.no_grad(),
        evaluating(policy),
        # `check_student` has shown that training computes this forward pass too.
        reference_kernels(policy),
    ):
        read = partial(alone_logprobs, policy, examples, temperature)
        policy_logprobs, rounded = read(), rounded_logprobs(policy, read, dtype)
    excess = excess_of(rollout_logprobs.to(policy_logprobs.device), policy_logprobs, rounded)
    if excess > 1:
        raise UserError(
            f"{key}: with this model ('{kind}') the engine gives other logprobs than "
            f"the model ({times_rounding(excess)}); {remedy}"
        )


def hf_remedy(hardware: HardwareConfig) -> str:
    """Return what to change where transformers' cached decoding differs from the forward pass."""
    if hardware.sampling.cache:
        return "set hardware.sampling.cache=false"
    return "set hardware.kernels=reference" if hardware.kernels == "fused" else OTHER_MODEL
