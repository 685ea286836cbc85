"""Whether training computes what the model does: a probe of a few dozen tokens, at load.

A fast path may miss what a family does: logits that are capped or scaled behind the vocabulary
projection, states that run on from one packed document into the next, a cache of another kind. Each
gives numbers that look right. So no list of families decides: each path is held to the model's own
forward over one document, in the policy's own precision.

Two ways to compute one thing differ by rounding, and how much that is depends on the model. It is
measured by Monte Carlo arithmetic (Parker 1997): the same forward with the result of every
layer moved at random by a unit in its last place. A path may differ by some multiple of that.
Logits are scaled to a trained model's size meanwhile, since a cap bends no small ones.

Simplified: documents are shorter than the window of a real model's sliding attention, so what
differs beyond a window is not seen.
"""

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.data.batches import Example, padded_batch
from reasoning_lab.data.packing import TrainedPart, packed_batch
from reasoning_lab.engine import Sampling
from reasoning_lab.hardware import HardwareConfig
from reasoning_lab.logprobs import (
    TokenBatch,
    has_reference_kernels,
    mix_precision,
    mixes_precision,
    token_logprobs,
    trained_logits,
)
from reasoning_lab.models.arithmetic import (
    as_transformers,
    evaluating,
    full_float32,
    rounding,
)
from reasoning_lab.models.policy import device_of, free_memory, on_device
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.types import Completion, UserError

Generate = Callable[[Sequence[str], Sampling, Sequence[int]], list[Completion]]

# Paths that agree differ by about as much as rounding is measured to move them. The smallest
# leak of the families that were tried, at random initial weights, is 47 times that.
_TIMES_ROUNDING = 8.0
# Nats: float32 keeps no more of a logprob, whatever the model.
_LEAST_TOLERANCE = 1e-5
# A trained model's largest.
_TYPICAL_LOGIT = 30.0
# Prompt and completion tokens of each document. Two prompts are one, as in a group.
_DOCUMENTS = ((5, 12), (5, 7), (4, 9))
_PADDING_TOKENS = 3
_TEMPERATURE = 0.7
# Up to so many parameters a float32 copy is probed too: bfloat16 hides small leaks. On a GPU, as
# many as have place there.
_MOST_COPIED_PARAMETERS = 2**27
_COPY_BYTES = 6
_PROMPTS = ("What is 3 + 4?", "Say yes.", "How many days are there in two weeks and a half?")
_NEW_TOKENS = 8
_OTHER_MODEL = "choose another model, as no option computes this one"


@dataclass(slots=True)
class _Findings:
    """What differs, and the options that change it.

    Attributes:
        differences: By what they are, how large.
        options: Without repetition, in order; None = no option does.
    """

    differences: dict[str, str] = field(default_factory=dict)
    options: dict[str | None, None] = field(default_factory=dict)

    def add(self, difference: str, size: str, option: str | None) -> None:
        self.differences[difference] = size
        self.options[option] = None

    def __str__(self) -> str:
        differences = [f"{words} ({size})" for words, size in self.differences.items()]
        options = [option for option in self.options if option is not None]
        remedy = _OTHER_MODEL if None in self.options else f"set {' and '.join(options)}"
        return f"{' and '.join(differences)}; {remedy}"


def check_student(
    policy: PreTrainedModel, hardware: HardwareConfig, stage: str, packs: bool = False
) -> None:
    """Hold the logprobs that a stage trains on to the model's own; `policy` is left as it was.

    Args:
        policy: Whole, before any strategy divides it.
        hardware: Where it trains, and with which kernels.
        stage: The stage's name.
        packs: Whether the stage reads packed rows.

    Raises:
        UserError: They differ; the sentence names the options that make them equal.
    """
    findings = _Findings()
    with full_float32(), _placed(policy, hardware):
        _compare(policy, stage, packs, findings)
        if _hides_leaks(policy):
            precise = copy.deepcopy(policy).float()
            mix_precision(precise, False)
            _compare(precise, stage, packs, findings)
    if findings.differences:
        raise UserError(
            f"stages.{stage}: with this model ('{policy.config.model_type}') {findings}"
        )


def check_engine(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    generate: Generate,
    temperature: float,
    hardware: HardwareConfig,
    stage: str,
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
        stage: The stage's name.
        remedy: What to change where they differ.
        dtype: The engine's; None = the policy's.

    Raises:
        UserError: They differ, or the engine fails on this model.
    """
    sampling = Sampling(temperature, 1.0, _NEW_TOKENS)
    kind = policy.config.model_type
    with full_float32():
        completions = _attempt(lambda: generate(_PROMPTS, sampling, range(len(_PROMPTS))))
    if isinstance(completions, Exception):
        raise UserError(
            f"stages.{stage}: with this model ('{kind}') the engine fails "
            f"({_first_line(completions)}); {remedy}"
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
        _placed(policy, hardware),
        torch.no_grad(),
        evaluating(policy),
        # What trains is that forward too, as `check_student` has seen.
        as_transformers(policy),
    ):
        policy_logprobs = _alone(policy, examples, temperature)
        with rounding(policy, dtype):
            rounded = _alone(policy, examples, temperature)
    excess = _excess(rollout_logprobs.to(policy_logprobs.device), policy_logprobs, rounded)
    if excess > 1:
        raise UserError(
            f"stages.{stage}: with this model ('{kind}') the engine gives other logprobs than "
            f"the model ({_times(excess)}); {remedy}"
        )


def hf_remedy(hardware: HardwareConfig) -> str:
    """What to change where transformers' cached decoding is not the model's forward."""
    if hardware.engine.cache:
        return "set hardware.engine.cache=false"
    return "set hardware.kernels=reference" if hardware.kernels == "fused" else _OTHER_MODEL


@torch.no_grad()
def _compare(model: PreTrainedModel, stage: str, packs: bool, findings: _Findings) -> None:
    """Add to `findings` each path of training that is not the model's own forward."""
    documents = _documents(model.config)
    own = None if has_reference_kernels(model) else "hardware.kernels=reference"
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        with as_transformers(model):
            reference = _attempt(lambda: _alone(model, documents[:1]))
            if isinstance(reference, Exception):
                findings.add("its own forward fails", _first_line(reference), None)
                return
            stack.enter_context(_typical_logits(model, documents))
            reference = _alone(model, documents)
            with rounding(model):
                rounded = _alone(model, documents)
        if not reference.isfinite().any():
            findings.add("its own forward gives no finite numbers", "NaN", None)
            return

        def hold(words: str, logprobs: Any, expected: Tensor, option: str | None) -> bool:
            if isinstance(logprobs, Exception):
                findings.add(words, _first_line(logprobs), option)
                return False
            excess = _excess(logprobs, expected, rounded)
            if excess > 1:
                findings.add(words, _times(excess), option)
            return excess <= 1

        alone = _attempt(lambda: _alone(model, documents))
        words = "the fused kernels give other logprobs than its own forward"
        if not hold(words, alone, reference, own):
            # What else differs is what will when that option is set.
            stack.enter_context(as_transformers(model))
            alone, own = reference, None
        padded = _attempt(lambda: _padded(model, documents))
        hold("padded rows change a document's logprobs", padded, alone, own)
        if packs:
            packed, option = _attempt(lambda: _packed(model, documents)), f"stages.{stage}.packing"
            hold("packed rows change a document's logprobs", packed, alone, f"{option}=false")


def _documents(config: Any) -> list[Example]:
    """Of ids that mean nothing special, always the same."""
    text = config.get_text_config()
    names = ("pad_token_id", "bos_token_id", "eos_token_id")
    special = {str(getattr(text, name, None)) for name in names}
    drawn = random.Random(0)

    def ids(count: int) -> list[int]:
        found: list[int] = []
        while len(found) < count:
            token = drawn.randrange(text.vocab_size)
            if str(token) not in special or text.vocab_size <= len(special):
                found.append(token)
        return found

    prompts: dict[int, list[int]] = {}
    return [
        Example(prompts.setdefault(prompt, ids(prompt)), ids(completion))
        for prompt, completion in _DOCUMENTS
    ]


def _alone(
    model: PreTrainedModel, documents: Sequence[Example], temperature: float = _TEMPERATURE
) -> Tensor:
    """Logprobs of all completions, each document by itself."""
    parts = [padded_batch([document], 0) for document in documents]
    return torch.cat([_read(model, batch, temperature) for batch in parts])


def _padded(model: PreTrainedModel, documents: Sequence[Example]) -> Tensor:
    """The same as rows of one batch, as SFT, DPO and RL have them."""
    return _read(model, padded_batch(documents, 0))


def _packed(model: PreTrainedModel, documents: Sequence[Example]) -> Tensor:
    """The same in one row that ends in padding."""
    tokens = sum(document.length for document in documents) + _PADDING_TOKENS
    return _read(model, packed_batch([documents], tokens, 0, TrainedPart.COMPLETION))


def _read(model: PreTrainedModel, batch: TokenBatch, temperature: float = _TEMPERATURE) -> Tensor:
    placed = batch.to(model.device)
    return token_logprobs(model, placed, temperature)[placed.completion_mask].float()


def _excess(logprobs: Tensor, expected: Tensor, rounded: Tensor) -> float:
    """How far two ways are apart, as a multiple of what rounding explains; above 1 = too far."""
    finite = expected.isfinite() & rounded.isfinite()
    tolerance = _TIMES_ROUNDING * _rms((rounded - expected)[finite]) + _LEAST_TOLERANCE
    apart = _rms((logprobs - expected)[finite])
    return apart / tolerance if apart == apart else float("inf")


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def _times(excess: float) -> str:
    return f"{excess * _TIMES_ROUNDING:,.0f} times what rounding explains"


def _attempt(compute: Callable[[], Any]) -> Any:
    """What it gives, or the exception with which the model's code fails."""
    try:
        return compute()
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        return error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _hides_leaks(model: PreTrainedModel) -> bool:
    rounds = mixes_precision(model) or model.dtype != torch.float32
    if not rounds or _is_quantized(model):
        return False
    if model.device.type == "cuda":
        return _COPY_BYTES * model.num_parameters() < torch.cuda.mem_get_info(model.device)[0]
    return model.num_parameters() <= _MOST_COPIED_PARAMETERS


def _is_quantized(model: PreTrainedModel) -> bool:
    return any(hasattr(parameter, "quant_state") for parameter in model.parameters())


@contextmanager
def _placed(policy: PreTrainedModel, hardware: HardwareConfig) -> Iterator[None]:
    """`policy` on the device that trains it, where that holds all of it."""
    before, device = policy.device, device_of(hardware)
    stays = hardware.strategy not in ("single", "ddp") or _is_quantized(policy)
    if stays or before.type == device.type:
        yield
        return
    on_device(policy, device)
    try:
        yield
    finally:
        on_device(policy, before)
        free_memory()


@contextmanager
def _typical_logits(model: PreTrainedModel, documents: Sequence[Example]) -> Iterator[None]:
    """The vocabulary projection reads states so scaled that its logits are a trained model's."""
    head: Any = model.get_output_embeddings()
    if not isinstance(head, nn.Module):
        yield
        return
    batch = padded_batch(documents[:1], 0).to(model.device)
    largest = float(trained_logits(model, batch)[0].abs().max())
    scale = max(1.0, _TYPICAL_LOGIT / largest) if 0 < largest < float("inf") else 1.0
    handle = head.register_forward_pre_hook(lambda module, inputs: (inputs[0] * scale, *inputs[1:]))
    try:
        yield
    finally:
        handle.remove()
