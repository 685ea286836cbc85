"""How documents reach a model: padded, joined, a shared prompt once; same values and gradients."""

import copy
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from reasoning_lab.data.tokens.batches import completion_batch, token_batch
from reasoning_lab.data.tokens.documents import TrainedPart, document_of
from reasoning_lab.kernels import attention
from reasoning_lab.kernels.attention import (
    DocumentLayout,
    attend_joined,
    attend_padded,
)
from reasoning_lab.kernels.batch import TokenBatch
from reasoning_lab.kernels.binding import bind_kernels, pad_documents
from reasoning_lab.kernels.logprobs import mean_logprob, token_logprobs, trained_logits
from reasoning_lab.kernels.rows import model_rows, padded_rows
from reasoning_lab.types import Example

VOCAB = 40
FAMILIES = ["llama", "mistral", "phi3", "qwen2", "qwen3"]
# Two are of 15 tokens and two of one, of which none is trained.
LENGTHS = [30, 9, 1, 15, 15, 5, 4, 1]
# Two prompts, of which one begins three documents, between them one that begins with the other.
PROMPT, OTHER = [5, 6, 7, 8], [5, 6]
EXAMPLES = [
    Example(PROMPT, [9]),
    Example(OTHER, [7, 8, 10, 11, 12, 13, 14, 15, 16, 17]),
    Example(PROMPT, [9, 10, 11]),
    Example(PROMPT, [18, 19, 20, 21, 22, 23, 24, 25]),
]


def built(family: str = "llama", **changes: Any) -> PreTrainedModel:
    """Computes with its own forward, over padded rows."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family,
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **changes,
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float64)
    model.train()
    return model


def fused(family: str = "llama", **changes: Any) -> PreTrainedModel:
    model = built(family, **changes)
    bind_kernels(model)
    return model


def packed(lengths: list[int] = LENGTHS) -> TokenBatch:
    """Documents of random tokens, of which all but the first are trained."""
    generator = torch.Generator().manual_seed(1)
    drawn = [torch.randint(3, VOCAB, (length,), generator=generator).tolist() for length in lengths]
    part = TrainedPart.SEQUENCE
    return token_batch([document_of(Example([], ids), trained=part) for ids in drawn])


def alone(batch: TokenBatch) -> list[TokenBatch]:
    """Each document that has a trained token in a batch of its own."""
    bounds = pairwise(batch.cu_seqlens.tolist())
    return [
        TokenBatch(
            batch.input_ids[start:end],
            torch.tensor([0, end - start], dtype=torch.int32),
            batch.loss_mask[start:end],
        )
        for start, end in bounds
        if batch.loss_mask[start:end].any()
    ]


def gradients(model: PreTrainedModel, batches: list[TokenBatch]) -> list[Tensor]:
    """The logprobs, and of a sum in which every token has a weight of its own the gradients."""
    model.zero_grad()
    logprobs = torch.cat([token_logprobs(model, batch, temperature=0.7) for batch in batches])
    weights = torch.linspace(0.5, 2.0, len(logprobs), dtype=logprobs.dtype)
    (logprobs * weights).sum().backward()
    slopes = [parameter.grad for parameter in model.parameters()]
    return [logprobs.detach(), *(slope.clone() for slope in slopes if slope is not None)]


def assert_near(left: list[Tensor], right: list[Tensor], shares: bool = False) -> None:
    # The logits are float32, and so are the gradients that a shared prompt's state sums.
    rtol, atol = (1e-4, 1e-5) if shares else (1e-7, 1e-9)
    assert len(left) == len(right) > 10
    for one, other in zip(left, right, strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=atol)


BATCHES = {
    "packed": packed(),
    "shared prompts": completion_batch(EXAMPLES),
    "separate prompts": replace(completion_batch(EXAMPLES), first_reads=None),
}


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("family", FAMILIES)
def test_values_and_gradients_are_those_of_documents_alone(
    family: str, kind: str, checkpointed: bool
) -> None:
    """Of the kernels in one row, and of the reference padded and alone."""
    model, reference, batch = fused(family), built(family), BATCHES[kind]
    assert len(model_rows(model, batch).sources) == 1
    if checkpointed:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    expected = gradients(reference, alone(batch))
    assert_near(gradients(model, [batch]), expected, shares=kind == "shared prompts")
    assert_near(gradients(reference, [batch]), expected)


def test_padded_rows_by_hand() -> None:
    batch = completion_batch([Example([3], [4]), Example([5, 6], [7])])
    rows = padded_rows(batch)
    assert batch.input_ids[rows.sources].tolist() == [[3, 4, 4], [5, 6, 7]]
    assert rows.predictors[batch.loss_mask].tolist() == [0, 4]
    assert rows.options == {}


def test_a_shared_row_by_hand() -> None:
    """The third document begins with two tokens of the first, and the second is the longest."""
    examples = [Example([5, 6], [7]), Example([8], [9, 10, 11]), Example([5, 6], [12, 13])]
    batch = completion_batch(examples)
    rows = model_rows(fused(), batch)
    # The longest come first; the first document's own token is read last.
    assert batch.input_ids[rows.sources].tolist() == [[8, 9, 10, 11, 12, 13, 5, 6, 7]]
    assert rows.predictors[batch.loss_mask].tolist() == [7, 0, 1, 2, 7, 4]
    layout = rows.options["document_layout"]
    assert layout.position_ids.tolist() == [[0, 1, 2, 3, 2, 3, 0, 1, 2]]
    assert layout.joined.sources.tolist() == [0, 1, 2, 3, 6, 7, 4, 5, 6, 7, 8]
    assert layout.cu_seqlens.tolist() == [0, 4, 8, 11]


def test_a_document_row_by_hand() -> None:
    rows = model_rows(fused(), packed([2, 3, 3]))
    assert rows.sources.tolist() == [[2, 3, 4, 5, 6, 7, 0, 1]]
    assert rows.predictors.tolist() == [0, 6, 0, 0, 1, 0, 3, 4]
    assert rows.options["document_layout"].shapes == ((2, 3), (1, 2))
    assert rows.options["document_layout"].joined is None


def test_documents_that_share_nothing_have_no_padding() -> None:
    examples = [Example([5 + row], [9 + row] * (n - 1)) for row, n in enumerate((20, 33, 45, 45))]
    model, batch = fused(), completion_batch(examples)
    layout = model_rows(model, batch).options["document_layout"]
    assert layout.shapes == ((2, 45), (1, 33), (1, 20))
    assert layout.padded is None
    assert_near(gradients(model, [batch]), gradients(built(), alone(batch)))


def test_a_layout_by_hand() -> None:
    layout = DocumentLayout.of(np.array([6, 3, 3, 1]))
    assert layout.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 0, 1, 2, 0, 1, 2, 0]]
    assert layout.shapes == ((1, 6), (2, 3), (1, 1))
    assert layout.longest == 6
    assert layout.padded is None
    assert layout.joined is None
    assert layout.cu_seqlens.tolist() == [0, 6, 9, 12, 13]


def test_a_layout_of_shared_beginnings_by_hand() -> None:
    # The second begins with two tokens of the first, which has four.
    layout = DocumentLayout.of(np.array([4, 3, 2]), np.array([0, 1, 2, 3, 0, 1, 4, 5, 6]))
    assert layout.position_ids.tolist() == [[0, 1, 2, 3, 2, 0, 1]]
    # Three tokens are at least three quarters of four, two are not.
    assert layout.shapes == ((2, 4), (1, 2))
    assert layout.joined is not None
    assert layout.joined.sources.tolist() == [0, 1, 2, 3, 0, 1, 4, 5, 6]
    padded = layout.padded
    assert padded is not None
    assert padded.sources.tolist() == [0, 1, 2, 3, 0, 1, 4, 4, 5, 6]
    # The first two tokens stand in both documents; place 7 is padding.
    assert padded.places.tolist() == [4, 5, 2, 3, 6, 8, 9]
    assert padded.sources[padded.places].tolist() == [*range(7)]


def test_a_batch_with_little_to_save_is_padded() -> None:
    def rows(examples: list[Example]) -> int:
        return len(model_rows(fused(), completion_batch(examples)).sources)

    even = [Example([number, 6, 7, 8], [9] * 10) for number in (5, 6, 7)]
    assert rows(even) == 3
    assert rows([*even, Example([9], [9])]) == 1
    assert rows([Example([5, 6, 7, 8], [9] * 10)] * 3) == 1
    # Two tokens of 120 are read twice.
    assert rows([Example([5, 6], [9] * 58)] * 2) == 2


def test_documents_of_several_examples_share_their_first_prompt_alone() -> None:
    first, other = Example(PROMPT, [9, 10]), Example(PROMPT, [11, 12, 13])
    documents = [document_of(first, other), document_of(first, first), document_of(first)]
    sources = model_rows(fused(), token_batch(documents)).sources
    assert sources.shape == (1, (6 + 7) + (2 + 6) + 2)


def test_trained_logits_keep_their_order() -> None:
    batch = completion_batch(EXAMPLES)
    logits, targets = trained_logits(fused(), batch)
    reference_logits, reference_targets = trained_logits(built(), batch)
    assert targets.tolist() == reference_targets.tolist()
    torch.testing.assert_close(logits, reference_logits)


@pytest.mark.parametrize(
    ("family", "implementation", "window"),
    [("llama", "eager", None), ("olmo", "sdpa", None), ("mistral", "sdpa", 5)],
)
def test_other_models_read_padded_rows(
    family: str, implementation: str, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's own attention, a family not known here, a window narrower than a document."""
    # Eager attention takes its softmax in float32, whose sums over rows of another length have
    # other last digits on some CPUs. In float64, padding adds exact zeros on any.
    softmax = torch.softmax
    monkeypatch.setattr(
        torch.nn.functional, "softmax", lambda scores, dim, dtype=None: softmax(scores, dim)
    )
    model = fused(family, **({} if window is None else {"sliding_window": window}))
    model.set_attn_implementation(implementation)
    batch = completion_batch(EXAMPLES)
    assert len(model_rows(model, batch).sources) == len(EXAMPLES)
    expected = gradients(copy.deepcopy(model), alone(batch))
    assert_near(gradients(model, [batch]), expected)
    assert model.config._attn_implementation == implementation


def test_a_model_that_pads_documents_reads_padded_rows() -> None:
    model, batch = fused(), completion_batch(EXAMPLES)
    pad_documents(model)
    assert len(model_rows(model, batch).sources) == len(EXAMPLES)
    assert_near(gradients(model, [batch]), gradients(built(), alone(batch)))


def flash_by_hand(
    query: Tensor, key: Tensor, value: Tensor, ends: Tensor, *_: Any, scale: float, **options: Any
) -> Tensor:
    """What FlashAttention's kernel computes, which only a GPU has: `[M, heads, D]`."""
    assert options == {"window_size": (-1, 0), "enable_gqa": True}
    parts = []
    for start, end in pairwise(ends.tolist()):
        q, k, v = (states[start:end].transpose(0, 1) for states in (query, key, value))
        parts.append(
            scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
        )
    return torch.cat(parts, 1).transpose(0, 1)


@pytest.mark.parametrize("kind", BATCHES)
def test_joined_documents_attend_as_the_padded_ones(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "varlen_attn", flash_by_hand)
    model: Any = fused()
    layout = model_rows(model, BATCHES[kind]).options["document_layout"]
    generator = torch.Generator().manual_seed(0)
    shape = layout.position_ids.shape[1], 4, 8
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3)]
    weights = torch.randn(shape, generator=generator, dtype=torch.float64)
    module = model.model.layers[0].self_attn
    module.num_key_value_groups = 1
    results = []
    for joins in (False, True):
        states = [values.clone().requires_grad_() for values in drawn]
        attended = (
            attend_joined(states, layout, 0.5)
            if joins
            else attend_padded(module, states, layout, {"scaling": 0.5})
        )
        (attended * weights).sum().backward()
        results.append([attended.detach(), *(values.grad for values in states)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_a_cpu_takes_no_flash_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(attention, "varlen_attn", fail)
    token_logprobs(fused().bfloat16(), packed())


class Largest(TorchDispatchMode):
    """The most values of any tensor that an operation gives."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own lacks annotations.
        self.values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        for result in results if isinstance(results, tuple) else (results,):
            if isinstance(result, torch.Tensor):
                self.values = max(self.values, result.numel())
        return results


def test_nothing_grows_with_the_square_of_a_row() -> None:
    tokens = 2048
    model, batch = fused(), packed([40, 24] * (tokens // 64))
    assert len(model_rows(model, batch).sources) == 1
    with Largest() as largest:
        mean_logprob(model, batch).backward()
    assert 0 < largest.values < tokens**2 / 4


def test_no_layer_reads_padding() -> None:
    """32 documents, all but one of them short: a projection gives far less than padded rows'."""
    examples = [Example(OTHER, [7] * (500 if number else 4)) for number in (1, *[0] * 31)]
    model, batch = fused(), completion_batch(examples)
    with Largest() as largest:
        token_logprobs(model, batch).sum().backward()
    # 48 numbers inside a layer, 40 words.
    assert 0 < largest.values < 48 * padded_rows(batch).sources.numel() / 4


def test_a_model_saved_after_it_does_not_mention_it(tmp_path: Path) -> None:
    model = fused()
    mean_logprob(model, packed())
    assert model.config._attn_implementation == "documents"
    model.save_pretrained(tmp_path)
    assert "documents" not in json.dumps(json.loads((tmp_path / "config.json").read_text()))


def test_a_second_model_is_left_as_it_is() -> None:
    """Of the same class, beside one with kernels that has trained."""
    batch = packed()
    before = built()
    expected = gradients(before, [batch])
    model = fused()
    mean_logprob(model, batch).backward()
    after = built()
    for one, other in zip(gradients(after, [batch]), expected, strict=True):
        assert torch.equal(one, other)
    assert after.config._attn_implementation == before.config._attn_implementation == "sdpa"
    assert not any("forward" in vars(module) for module in after.modules())
