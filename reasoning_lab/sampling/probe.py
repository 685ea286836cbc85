"""Whether an engine computes what the model does: some completions, when it is opened.

A cache of another kind, or another implementation of a family, gives completions that look right
and come from another distribution. So an engine's logprobs of a few tokens are held to those of the
model's own forward; `reasoning_lab.sampling.arithmetic` measures how much rounding explains.
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
    """Hold an engine's logprobs of its tokens to those of the model's own forward.

    Args:
        policy: As the trainer has it; the engine has the same weights.
        tokenizer: The policy's.
        generate: The engine's.
        temperature: Of the stage's rollouts.
        hardware: Where the policy trains.
        key: The config key of the stage or the engine, for the error.
        remedy: What to change where they differ.
        dtype: The engine's; None = the policy's.

    Raises:
        UserError: They differ, or the engine fails on this model.
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
    prompts = prompt_tokens(tokenizer, _PROMPTS)
    pairs = zip(prompts, completions, strict=True)
    answered = [(prompt, one) for prompt, one in pairs if one.token_ids and one.logprobs]
    if not answered:
        return
    examples = [Example(prompt, completion.token_ids) for prompt, completion in answered]
    rollout_logprobs = torch.tensor([value for _, one in answered for value in one.logprobs])
    with (
        full_float32(),
        placed(policy, hardware),
        torch.no_grad(),
        evaluating(policy),
        # What trains is that forward too, as `check_student` has seen.
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


def hf_remedy(hardware: HardwareConfig) -> str:
    """What to change where transformers' cached decoding is not the model's forward."""
    if hardware.sampling.cache:
        return "set hardware.sampling.cache=false"
    return "set hardware.kernels=reference" if hardware.kernels == "fused" else OTHER_MODEL
