"""Whether training computes what the model does: a probe of a few dozen tokens, at load.

A fast path may miss what a family does: logits that are capped or scaled behind the vocabulary
projection, or states that run on from one document of a row into the next. Both give numbers that
look right. So no list of families decides: each path is held to the model's own forward over one
document, and `reasoning_lab.sampling.engine_check` measures how much rounding explains. Logits are
scaled to a trained model's size meanwhile, since a cap bends no small ones.

Documents of one row that read each other reach the model as padded rows instead. Any other
difference is refused.

Simplified: documents are shorter than the window of a real model's sliding attention, so what
differs beyond a window is not seen.
"""

import copy
import logging
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.data.tokens.batches import completion_batch
from reasoning_lab.kernels.binding import (
    has_kernels,
    mix_precision,
    mixes_precision,
    pad_documents,
    pads_documents,
    reference_kernels,
)
from reasoning_lab.kernels.logprobs import trained_logits
from reasoning_lab.sampling.engine_check import (
    OTHER_MODEL,
    alone_logprobs,
    attempt,
    evaluating,
    excess_of,
    first_line,
    full_float32,
    is_quantized,
    placed,
    read_logprobs,
    rounded_logprobs,
    times_rounding,
)
from reasoning_lab.types import Example, UserError

log = logging.getLogger(__name__)

# A trained model's largest.
_TYPICAL_LOGIT = 30.0
# Prompt and completion tokens of each document. Two prompts are one, as in a group.
_DOCUMENTS = ((5, 12), (5, 7), (4, 9))
# On a CPU, up to so many parameters have a float32 copy that is probed too: bfloat16 hides small
# leaks. On a GPU, as many as have place there, with so many bytes each while they are cast.
_MOST_COPIED_PARAMETERS = 2**27
_COPY_BYTES = 6


class Difference(StrEnum):
    """A way in which training differs from the model's own forward."""

    FORWARD_FAILS = "its own forward fails"
    NOT_FINITE = "its own forward gives no finite numbers"
    KERNELS = "the fused kernels give other logprobs than its own forward"
    ROWS = "padded rows change a document's logprobs"


@dataclass(slots=True)
class Findings:
    """What differs, and the options that change it.

    Attributes:
        differences: How large each is.
        options: Without repetition, in order; None = no option does.
    """

    differences: dict[Difference, str] = field(default_factory=dict)
    options: dict[str | None, None] = field(default_factory=dict)

    def add(self, difference: Difference, size: str, option: str | None) -> None:
        self.differences[difference] = size
        self.options[option] = None

    def __str__(self) -> str:
        differences = [f"{words} ({size})" for words, size in self.differences.items()]
        options = [option for option in self.options if option is not None]
        remedy = OTHER_MODEL if None in self.options else f"set {' and '.join(options)}"
        return f"{' and '.join(differences)}; {remedy}"


def check_student(policy: PreTrainedModel, hardware: HardwareConfig, stage: str) -> None:
    """Hold the logprobs that a stage trains on to the model's own; see `compare_training`.

    Raises:
        UserError: They differ; the sentence names the option that makes them equal.
    """
    findings = compare_training(policy, hardware)
    kind = policy.config.model_type
    if findings.differences:
        raise UserError(f"stages.{stage}: with this model ('{kind}') {findings}")
    if pads_documents(policy):
        log.info("stages.%s: '%s' mixes documents of one row, so it reads them padded", stage, kind)


def compare_training(policy: PreTrainedModel, hardware: HardwareConfig) -> Findings:
    """How the logprobs that training computes differ from the model's own.

    `policy` is whole, before any strategy divides it. It is left as it was, but that it reads
    padded rows where documents of one row would read each other.
    """
    findings = Findings()
    with full_float32(), placed(policy, hardware):
        _compare(policy, findings)
        if _hides_leaks(policy):
            precise = copy.deepcopy(policy).float()
            mix_precision(precise, False)
            _compare(precise, findings)
            if pads_documents(precise):
                pad_documents(policy)
    return findings


@torch.no_grad()
def _compare(model: PreTrainedModel, findings: Findings) -> None:
    """Add to `findings` each path of training that is not the model's own forward."""
    documents = _documents(model.config)
    remedy = "hardware.kernels=reference" if has_kernels(model) else None
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        with reference_kernels(model):
            batch = completion_batch(documents[:1]).to(model.device)
            logits = attempt(lambda: trained_logits(model, batch)[0])
            if isinstance(logits, Exception):
                findings.add(Difference.FORWARD_FAILS, first_line(logits), None)
                return
            stack.enter_context(_typical_logits(model, float(logits.abs().max())))
            reference = alone_logprobs(model, documents)
            rounded = rounded_logprobs(model, lambda: alone_logprobs(model, documents))
        if not reference.isfinite().any():
            findings.add(Difference.NOT_FINITE, "NaN", None)
            return

        def difference(logprobs: Any, expected: Tensor) -> str:
            """How large it is; empty = no more than rounding explains."""
            if isinstance(logprobs, Exception):
                return first_line(logprobs)
            excess = excess_of(logprobs, expected, rounded)
            return times_rounding(excess) if excess > 1 else ""

        alone = attempt(lambda: alone_logprobs(model, documents))
        if size := difference(alone, reference):
            findings.add(Difference.KERNELS, size, remedy)
            # What else differs is what will when that option is set.
            stack.enter_context(reference_kernels(model))
            alone, remedy = reference, None
        together = completion_batch(documents)
        for batch in (together, replace(together, first_reads=None)):
            if difference(attempt(partial(read_logprobs, model, batch)), alone):
                pad_documents(model)
        if size := difference(attempt(lambda: read_logprobs(model, together)), alone):
            with reference_kernels(model):
                padded = attempt(lambda: read_logprobs(model, together))
            option = None if difference(padded, reference) else remedy
            findings.add(Difference.ROWS, size, option)


def _documents(config: Any) -> list[Example]:
    """Of ids that mean nothing special, always the same."""
    text = config.get_text_config()
    names = ("pad_token_id", "bos_token_id", "eos_token_id")
    special = {str(getattr(text, name, None)) for name in names}
    drawn = random.Random(0)

    def ids(count: int) -> list[int]:
        token_ids: list[int] = []
        while len(token_ids) < count:
            token = drawn.randrange(text.vocab_size)
            if str(token) not in special or text.vocab_size <= len(special):
                token_ids.append(token)
        return token_ids

    prompts: dict[int, list[int]] = {}
    return [
        Example(prompts.setdefault(prompt, ids(prompt)), ids(completion))
        for prompt, completion in _DOCUMENTS
    ]


def _hides_leaks(model: PreTrainedModel) -> bool:
    rounds = mixes_precision(model) or model.dtype != torch.float32
    if not rounds or is_quantized(model):
        return False
    if model.device.type == "cuda":
        return _COPY_BYTES * model.num_parameters() < torch.cuda.mem_get_info(model.device)[0]
    return model.num_parameters() <= _MOST_COPIED_PARAMETERS


@contextmanager
def _typical_logits(model: PreTrainedModel, largest: float) -> Iterator[None]:
    """The vocabulary projection reads states so scaled that its logits are a trained model's."""
    head: Any = model.get_output_embeddings()
    if not isinstance(head, nn.Module):
        yield
        return
    scale = max(1.0, _TYPICAL_LOGIT / largest) if 0 < largest < float("inf") else 1.0
    handle = head.register_forward_pre_hook(lambda module, inputs: (inputs[0] * scale, *inputs[1:]))
    try:
        yield
    finally:
        handle.remove()
