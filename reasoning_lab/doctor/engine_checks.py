"""Checks of the engine: whether it samples from the policy that is trained, and says what it did.

The first two hold decoding with transformers, the stages' usual engine, to the model's own forward.
The others take whatever engine the model under test opens.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from reasoning_lab.data.tokens.batches import completion_batch
from reasoning_lab.doctor.check import Check, Result, State, not_applicable, ok, wrong
from reasoning_lab.doctor.model_checks import FORWARD
from reasoning_lab.doctor.model_under_test import QUESTION, ModelUnderTest
from reasoning_lab.kernels.binding import reference_kernels
from reasoning_lab.kernels.logprobs import trained_logits
from reasoning_lab.losses.policy_gradient import weighted_loss
from reasoning_lab.losses.policy_losses import clip
from reasoning_lab.models.adapters import add_adapter
from reasoning_lab.models.chat import stop_token_ids
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.sampling.engine_check import (
    Generate,
    check_engine,
    evaluating,
    excess_of,
    hf_remedy,
    read_logprobs,
    rounded_logprobs,
    times_rounding,
)
from reasoning_lab.sampling.hf import HFEngine
from reasoning_lab.sampling.vllm import VLLMEngine
from reasoning_lab.types import Completion, Example, UserError

_PROMPTS = (QUESTION, "How many days are there in two weeks?", "Is 7 a prime number?")
_TEMPERATURE = 0.7
# At which a model without truncation draws nearly any token.
_HOT = 50.0
_HOT_TOKENS = 8
# A quarter of the vocabulary would hold all of 24 such tokens once in 10^14 runs.
_LIKELY_FRAC = 0.25
_ANOTHER_ENGINE = "choose another engine, or report this as a bug of it"
# Of a logit, so that greedy decoding chooses the token.
_FORCED = 1e4
_ADAPTER_STD = 0.1
# Of a prompt and its completion; vLLM takes memory for so many.
_VLLM_TOKENS = 1024


def _compare(
    model: ModelUnderTest,
    generate: Generate,
    temperature: float,
    remedy: str,
    policy: PreTrainedModel | None = None,
) -> Result:
    """`check_engine` refuses an engine whose logprobs are not those of `policy`, or the model."""
    check_engine(
        policy or model.policy,
        model.tokenizer,
        generate,
        temperature,
        model.hardware,
        "model.path",
        remedy,
        _sampling_dtype(model),
    )
    return ok()


def _sampling_dtype(model: ModelUnderTest) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, model.options.sampling_dtype)
    return dtype


def _cache_differs(model: ModelUnderTest) -> Result:
    if not model.hardware.sampling.cache:
        return not_applicable("hardware.sampling.cache=false")
    generate = HFEngine(model.policy, model.tokenizer, batch_size=1).generate
    return _compare(model, generate, 1.0, hf_remedy(model.hardware))


def _padding_differs(model: ModelUnderTest) -> Result:
    if not model.hardware.sampling.cache:
        return not_applicable("rows are not padded with hardware.sampling.cache=false")
    generate = HFEngine(model.policy, model.tokenizer, batch_size=len(_PROMPTS)).generate
    return _compare(model, generate, 1.0, "set hardware.generation_batch_size=1")


def _engine_differs(model: ModelUnderTest, temperature: float) -> Result:
    with closing(model.engine) as engine:
        return _compare(model, engine.generate, temperature, _ANOTHER_ENGINE)


def _rate_zero(model: ModelUnderTest) -> Result:
    """One step of policy gradient at learning rate 0, in training mode, on fresh samples."""
    policy, temperature = model.policy, _TEMPERATURE
    examples, completions = _sampled(model, Sampling(temperature, 1.0, 6))
    behavior = torch.tensor([v for c in completions for v in c.logprobs], device=policy.device)
    batch = completion_batch(examples)
    with torch.no_grad(), evaluating(policy):
        expected = read_logprobs(policy, batch, temperature)
        rounded = rounded_logprobs(
            policy, lambda: read_logprobs(policy, batch, temperature), _sampling_dtype(model)
        )
    policy.train()
    try:
        optimizer = torch.optim.SGD(policy.parameters(), lr=0.0)
        logprobs = read_logprobs(policy, batch, temperature)
        advantages = torch.linspace(-1, 1, len(logprobs), device=policy.device)
        weights = torch.full_like(advantages, 1 / len(advantages))
        lengths = batch.trained_lengths.to(policy.device)
        losses = clip(logprobs, behavior, advantages, lengths).losses
        weighted_loss(losses, weights).backward()
        if name := _broken_gradient(policy):
            return wrong(
                f"model.path: the gradient of {name} is not finite on a short text; set "
                "hardware.kernels=reference or model.dtype=float32, or choose another checkpoint"
            )
        optimizer.step()
        with torch.no_grad():
            after = read_logprobs(policy, batch, temperature)
    finally:
        policy.zero_grad(set_to_none=True)
        policy.eval()
    excess = excess_of(after, behavior, behavior + rounded - expected)
    if excess > 1:
        ratio = float((after - behavior).exp().mean())
        return wrong(
            f"model.path: after a step at learning rate 0 the ratio of trainer and engine is "
            f"{ratio:.3f}, not 1 ({times_rounding(excess)}); look at the other findings first"
        )
    return ok()


def _broken_gradient(policy: PreTrainedModel) -> str:
    """The first weight whose gradient is not finite; empty = there is none."""
    for name, parameter in policy.named_parameters():
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            return name
    return ""


def _truncates_sampling(model: ModelUnderTest) -> Result:
    examples, _ = _sampled(model, Sampling(_HOT, 1.0, _HOT_TOKENS))
    policy = model.policy
    batch = completion_batch(examples).to(policy.device)
    with torch.no_grad(), evaluating(policy), reference_kernels(policy):
        logits, tokens = trained_logits(policy, batch)
    ranks = (logits >= logits.gather(1, tokens[:, None])).sum(1)
    if int(ranks.max()) <= _LIKELY_FRAC * len(model.tokenizer):
        return wrong(
            f"model.path: at temperature {_HOT:g} and top_p 1, {len(ranks)} tokens in a row are "
            f"among the {int(ranks.max()):,} likeliest; take top_k, top_p and min_p out of "
            "generation_config.json, or start the server with --generation-config vllm"
        )
    return ok()


def _truncation_unflagged(model: ModelUnderTest) -> Result:
    stops = stop_token_ids(model.policy, model.tokenizer)
    for completion in _sampled(model, Sampling(1.0, 1.0, 2))[1]:
        stopped = bool(completion.token_ids) and completion.token_ids[-1] in stops
        if completion.truncated is stopped:
            says = "truncated" if completion.truncated else "ended"
            return wrong(
                f"model.path: the engine calls a completion {says} whose last token says the "
                f"opposite; {_ANOTHER_ENGINE}"
            )
    return ok()


def _end_dropped(model: ModelUnderTest) -> Result:
    policy, tokenizer = model.policy, model.tokenizer
    end = int(stop_token_ids(policy, tokenizer)[0])
    with reference_kernels(policy), _always(policy, end), closing(model.engine) as engine:
        (completion,) = engine.generate([QUESTION], Sampling(0.0, 1.0, 4), [0])
    if list(completion.token_ids) != [end]:
        return wrong(
            f"model.path: the policy ends at once, and the engine returns the tokens "
            f"{list(completion.token_ids)} in place of [{end}], so its end is not trained; "
            f"{_ANOTHER_ENGINE}"
        )
    return ok()


@contextmanager
def _always(policy: PreTrainedModel, token: int) -> Iterator[None]:
    """`token` is the likeliest one, whatever stands before it."""
    head: Any = policy.get_output_embeddings()

    def forced(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        output[..., token] += _FORCED
        return output

    handle = head.register_forward_hook(forced)
    try:
        yield
    finally:
        handle.remove()


def _seed_ignored(model: ModelUnderTest) -> Result:
    sampling, seeds = Sampling(1.0, 1.0, 6), range(len(_PROMPTS))
    with closing(model.engine) as engine:
        first, again = (_tokens(engine.generate(_PROMPTS, sampling, seeds)) for _ in range(2))
        others = _tokens(engine.generate([QUESTION] * 4, Sampling(2.0, 1.0, 6), range(4)))
    if first != again:
        return wrong(
            f"model.path: the same prompts and seeds give other completions; {_ANOTHER_ENGINE}"
        )
    if len(set(others)) == 1:
        return wrong(
            f"model.path: four seeds give one completion at temperature 2; {_ANOTHER_ENGINE}"
        )
    return ok()


def _tokens(completions: Sequence[Completion]) -> list[tuple[int, ...]]:
    return [tuple(completion.token_ids) for completion in completions]


def _adapter_lost(model: ModelUnderTest) -> Result:
    adapter = model.options.adapter
    if adapter is None:
        return not_applicable("model.adapter is null")
    adapted = copy.deepcopy(model.policy)
    add_adapter(adapted, adapter, seed=0)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            noise = torch.randn(parameter.shape, generator=generator) * _ADAPTER_STD
            parameter.data.copy_(noise)
    remedy = "leave model.adapter out, or choose an engine that takes merged weights"
    with closing(model.open_engine(adapted, model.tokenizer, model.hardware)) as engine:
        return _compare(model, engine.generate, 1.0, remedy, adapted)


def _vllm_differs(model: ModelUnderTest) -> Result:
    if find_spec("vllm") is None:
        return not_applicable("vLLM is not installed")
    config = model.policy.config.get_text_config()
    tokens = min(_VLLM_TOKENS, getattr(config, "max_position_embeddings", _VLLM_TOKENS))
    options = model.options
    try:
        vllm = VLLMEngine(
            model.path, options.revision, options.sampling_dtype, tokens, model.hardware
        )
    except UserError as error:  # As where memory is short: it says nothing of the model.
        return Result(State.FAILED, str(error))
    with closing(vllm) as engine:
        remedy = "set stages.rl.rollout_engine=hf"
        return _compare(model, engine.generate, _TEMPERATURE, remedy)


def _sampled(model: ModelUnderTest, sampling: Sampling) -> tuple[list[Example], list[Completion]]:
    """A completion of each prompt, as an example too; those without a token are left out."""
    with closing(model.engine) as engine:
        completions = engine.generate(_PROMPTS, sampling, range(len(_PROMPTS)))
    prompts = prompt_tokens(model.tokenizer, _PROMPTS)
    pairs = [
        (Example(prompt, completion.token_ids), completion)
        for prompt, completion in zip(prompts, completions, strict=True)
        if completion.token_ids
    ]
    return [example for example, _ in pairs], [completion for _, completion in pairs]


_DECODES = (*FORWARD, "cache-differs", "left-padding-differs")
_SAMPLES = (*_DECODES, "engine-differs-at-1")
ENGINE_CHECKS = (
    Check(
        "cache-differs",
        "Decoding with cached keys and values is not what the model computes on the whole text.",
        "https://github.com/huggingface/transformers/issues/25420",
        _cache_differs,
        FORWARD,
    ),
    Check(
        "left-padding-differs",
        "A prompt has other logprobs beside a longer one, as it reads its padding.",
        "https://github.com/unslothai/unsloth/pull/4078",
        _padding_differs,
        (*FORWARD, "cache-differs", "packing-leaks"),
    ),
    Check(
        "engine-differs-at-1",
        "The engine samples from other weights, or another model, than the trainer's.",
        "https://github.com/huggingface/trl/issues/5312",
        partial(_engine_differs, temperature=1.0),
        _DECODES,
    ),
    Check(
        "engine-ignores-temperature",
        "At a temperature other than 1 the engine's logprobs are not those of the loss.",
        "https://github.com/huggingface/trl/issues/4159",
        partial(_engine_differs, temperature=_TEMPERATURE),
        _SAMPLES,
    ),
    Check(
        "ratio-not-1-at-rate-0",
        "A step that changes nothing moves the ratio of trainer and engine, or gradients are NaN.",
        "https://github.com/allenai/open-instruct/issues/1473",
        _rate_zero,
        (*_SAMPLES, "engine-ignores-temperature", "dropout-in-training", "fast-path-differs"),
    ),
    Check(
        "sampling-truncated-in-silence",
        "top_k of generation_config.json cuts off what the loss believes was sampled.",
        "https://github.com/vllm-project/vllm/pull/15281",
        _truncates_sampling,
        _DECODES,
    ),
    Check(
        "adapter-not-in-engine",
        "Rollouts come from the base model, whatever the adapter learns.",
        "https://github.com/modelscope/ms-swift/issues/9855",
        _adapter_lost,
        _SAMPLES,
    ),
    Check(
        "truncation-not-flagged",
        "A completion that the limit cut off counts as one that ended, or the reverse.",
        "https://github.com/huggingface/trl/pull/7039",
        _truncation_unflagged,
        _DECODES,
    ),
    Check(
        "end-token-dropped",
        "The engine leaves out the end token, so the policy never learns to stop.",
        "https://github.com/vllm-project/vllm/issues/28185",
        _end_dropped,
        _DECODES,
    ),
    Check(
        "seed-ignored",
        "The same seed gives other completions, so no run can be repeated.",
        "https://github.com/vllm-project/vllm/issues/17524",
        _seed_ignored,
        _DECODES,
    ),
    Check(
        "vllm-differs",
        "vLLM computes another model than the trainer.",
        "https://github.com/PrimeIntellect-ai/prime-rl/pull/697",
        _vllm_differs,
        FORWARD,
    ),
)
