"""Check, when an engine is opened, that it computes the logprobs of the model's forward pass.

A different cache, or a different implementation of a family, gives completions that look right and
come from another distribution. So the check compares an engine's logprobs of a few tokens with
those of the model's forward pass. `reasoning_lab.sampling.arithmetic` measures the rounding.
"""

from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.kernels.binding import reference_kernels
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.sampling.arithmetic import (
    OTHER_MODEL,
    alone_logprobs,
    attempt,
    evaluating,
    excess_of,
    first_line,
    full_float32,
    placed,
    rounding,
    times_rounding,
)
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.types import Completion, Example, UserError

Generate = Callable[[Sequence[str], Sampling, Sequence[int]], list[Completion]]

_PROMPTS = ("What is 3 + 4?", "How many days are there in two weeks?")
_NEW_TOKENS = 6


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
    comparable = _with_logprobs(prompt_tokens(tokenizer, _PROMPTS), completions)
    if not comparable:
        return
    examples = [Example(prompt, completion.token_ids) for prompt, completion in comparable]
    rollout_logprobs = torch.tensor(
        [logprob for _, completion in comparable for logprob in completion.logprobs]
    )
    with (
        full_float32(),
        placed(policy, hardware),
        torch.no_grad(),
        evaluating(policy),
        # `check_student` has shown that training computes this forward pass too.
        reference_kernels(policy),
    ):
        policy_logprobs = alone_logprobs(policy, examples, temperature)
        with rounding(policy, dtype):
            rounded = alone_logprobs(policy, examples, temperature)
    excess = excess_of(rollout_logprobs.to(policy_logprobs.device), policy_logprobs, rounded)
    if excess > 1:
        raise UserError(
            f"{key}: with this model ('{kind}') the engine gives other logprobs than "
            f"the model ({times_rounding(excess)}); {remedy}"
        )


def _with_logprobs(
    prompts: Sequence[Sequence[int]], completions: Sequence[Completion]
) -> list[tuple[Sequence[int], Completion]]:
    """The prompts whose completions have tokens and logprobs, with these."""
    return [
        (prompt, completion)
        for prompt, completion in zip(prompts, completions, strict=True)
        if completion.token_ids and completion.logprobs
    ]


def hf_remedy(hardware: HardwareConfig) -> str:
    """Return what to change where transformers' cached decoding differs from the forward pass."""
    if hardware.sampling.cache:
        return "set hardware.sampling.cache=false"
    return "set hardware.kernels=reference" if hardware.kernels == "fused" else OTHER_MODEL
