"""Logits in chunks of tokens: the same losses and gradients as of all, in less memory."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from reasoning_lab.data.tokens.batches import completion_batch, token_batch
from reasoning_lab.data.tokens.documents import TrainedPart, document_of
from reasoning_lab.kernels import logit_chunks
from reasoning_lab.kernels.batch import TokenBatch
from reasoning_lab.kernels.binding import bind_kernels, pad_documents, reference_kernels
from reasoning_lab.kernels.logprobs import (
    mean_logprob,
    token_entropies,
    token_logprobs,
    token_logprobs_and_entropies,
    trained_logits,
)
from reasoning_lab.types import Example
from tests.support.tensors import largest_allocation
from tests.support.tiny import tiny_model

VOCAB, PAD = 61, 0
TRAINED = 9 + 2 + 1 + 14


def bound(model: PreTrainedModel) -> PreTrainedModel:
    bind_kernels(model)
    # Read as padded rows: another order of attention's sums would hide what chunks change.
    pad_documents(model)
    return model


def plain() -> PreTrainedModel:
    return bound(tiny_model("llama", VOCAB, PAD, 1, seed=0))


def tied() -> PreTrainedModel:
    return bound(tiny_model("qwen3", VOCAB, PAD, 1, seed=1, tie_word_embeddings=True))


def biased() -> PreTrainedModel:
    model = plain()
    model.lm_head.bias = nn.Parameter(torch.randn(VOCAB))
    return model


def frozen() -> PreTrainedModel:
    model = plain()
    model.lm_head.weight.requires_grad_(False)
    return model


def adapted() -> PreTrainedModel:
    peft = pytest.importorskip("peft")
    model = plain()
    peft.inject_adapter_in_model(
        peft.LoraConfig(r=4, target_modules=["lm_head", "q_proj"], init_lora_weights=False), model
    )
    return model


def low_precision() -> PreTrainedModel:
    return plain().bfloat16()


HEADS = [plain, tied, biased, frozen, adapted, low_precision]


def batch() -> TokenBatch:
    generator = torch.Generator().manual_seed(5)
    sizes = [(3, 9), (7, 2), (1, 1), (5, 14)]
    examples = [
        Example(
            torch.randint(2, VOCAB, (prompt,), generator=generator).tolist(),
            torch.randint(2, VOCAB, (completion,), generator=generator).tolist(),
        )
        for prompt, completion in sizes
    ]
    return completion_batch(examples)


def padded_logits(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """`[K, V]` and `[K]`, by the model's own forward pass over padded rows."""
    tokens = batch()
    documents = tokens.input_ids.split(tokens.lengths.tolist())
    ids = nn.utils.rnn.pad_sequence(list(documents), batch_first=True, padding_value=PAD)
    masks = tokens.loss_mask.split(tokens.lengths.tolist())
    trained = nn.utils.rnn.pad_sequence(list(masks), batch_first=True)[:, 1:]
    logits = model(ids, use_cache=False).logits
    return logits[:, :-1][trained].float(), ids[:, 1:][trained]


def whole(model: PreTrainedModel, temperature: float) -> Tensor:
    """`[K]`, by torch's cross-entropy."""
    logits, targets = padded_logits(model)
    return -F.cross_entropy(logits / temperature, targets, reduction="none")


def gradients(model: PreTrainedModel, value: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    value.backward()
    named = model.named_parameters()
    return {name: parameter.grad.float() for name, parameter in named if parameter.grad is not None}


@pytest.mark.parametrize("tokens", [1, 3, 7, 13, 25, 26, 1000])
@pytest.mark.parametrize("build", HEADS)
def test_parts_give_the_whole_loss_and_gradient(
    build: Callable[[], PreTrainedModel], tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build()
    weights = torch.randn(TRAINED, generator=torch.Generator().manual_seed(1))
    near: dict[str, Any] = {"rtol": 1e-4, "atol": 2e-6}
    if build is low_precision:  # Each part's gradient of a weight is rounded to bfloat16.
        near = {"rtol": 3e-2, "atol": 3e-2}
    # So that the mean is taken in torch's own way also where all of these logits fit.
    monkeypatch.setattr(logit_chunks, "FEW_LOGITS", 20 * VOCAB)
    expected = whole(model, 0.7)
    # Terms of 16 are rounded by 2e-6 in float32, differently from one CPU to another.
    exact = model if build is low_precision else copy.deepcopy(model).double()
    slope = gradients(exact, (whole(exact, 0.7) * weights).sum())
    mean = whole(model, 1.0).mean()
    mean_slope = gradients(model, mean)

    monkeypatch.setattr(logit_chunks, "LOGITS_AT_ONCE", tokens * VOCAB)
    logprobs = token_logprobs(model, batch(), 0.7)
    assert logprobs.dtype == torch.float32
    torch.testing.assert_close(logprobs, expected, rtol=1e-5, atol=1e-5)
    logprobs = token_logprobs(exact, batch(), 0.7)
    torch.testing.assert_close(gradients(exact, (logprobs * weights).sum()), slope, **near)
    ours = mean_logprob(model, batch())
    torch.testing.assert_close(ours, mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients(model, ours), mean_slope, **near)
    with torch.no_grad():
        torch.testing.assert_close(mean_logprob(model, batch()), mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tokens", [1, 7, 1000])
@pytest.mark.parametrize("head", HEADS)
def test_entropies_are_those_of_the_models_own_distributions(
    head: Callable[[], PreTrainedModel], tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = head()
    logits, _ = padded_logits(model)
    expected = torch.distributions.Categorical(logits=logits).entropy()
    monkeypatch.setattr(logit_chunks, "LOGITS_AT_ONCE", tokens * VOCAB)
    entropies = token_entropies(model, batch())
    assert not entropies.requires_grad
    torch.testing.assert_close(entropies, expected, rtol=1e-4, atol=1e-5)
    with reference_kernels(model):
        entropies = token_entropies(model, batch())
    torch.testing.assert_close(entropies, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tokens", [1, 7, 1000])
@pytest.mark.parametrize("build", HEADS)
def test_entropies_with_a_gradient_are_those_of_the_whole_logits(
    build: Callable[[], PreTrainedModel], tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build()
    if build is not low_precision:  # Rounding of float32 differs from one CPU to another.
        model.double()
    factors = torch.randn(2, TRAINED, generator=torch.Generator().manual_seed(1))
    logits, targets = padded_logits(model)
    entropies = torch.distributions.Categorical(logits=logits / 0.7).entropy()
    chosen = -F.cross_entropy(logits / 0.7, targets, reduction="none")
    slope = gradients(model, (factors * torch.stack([chosen, entropies])).sum())
    monkeypatch.setattr(logit_chunks, "LOGITS_AT_ONCE", tokens * VOCAB)
    values = torch.stack(token_logprobs_and_entropies(model, batch(), 0.7))
    torch.testing.assert_close(values, torch.stack([chosen, entropies]), rtol=1e-4, atol=1e-5)
    near: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}
    if build is low_precision:
        near = {"rtol": 3e-2, "atol": 3e-2}
    ours = gradients(model, (factors * values).sum())
    torch.testing.assert_close(ours, slope, **near)
    ours = gradients(model, (factors * values_of_reference(model)).sum())
    torch.testing.assert_close(ours, slope, **near)
    at_temperature = token_entropies(model, batch(), 0.7)
    torch.testing.assert_close(at_temperature, entropies, rtol=1e-4, atol=1e-5)


def values_of_reference(model: PreTrainedModel) -> Tensor:
    """`[2, K]`, logprobs and entropies by the model's own forward pass."""
    with reference_kernels(model):
        return torch.stack(token_logprobs_and_entropies(model, batch(), 0.7))


@pytest.mark.parametrize("logit", [-1e4, float("-inf")])
def test_a_token_without_probability_leaves_entropies_and_their_gradient_finite(
    logit: float,
) -> None:
    model = biased()
    with torch.no_grad():
        model.lm_head.bias[VOCAB - 1] = logit
        model.lm_head.weight[VOCAB - 1] = 0.0
    tokens = batch()
    tokens.input_ids[tokens.input_ids == VOCAB - 1] = 2
    logprobs, entropies = token_logprobs_and_entropies(model, tokens)
    assert logprobs.isfinite().all()
    assert entropies.isfinite().all()
    slope = gradients(model, entropies.sum())
    assert all(values.isfinite().all() for values in slope.values())


def test_one_part_is_the_plain_formula_to_the_bit() -> None:
    model = plain()
    logits, targets = trained_logits(model, batch())
    chosen = torch.log_softmax(logits / 0.7, dim=-1).gather(1, targets[:, None])[:, 0]
    logprobs = token_logprobs(model, batch(), 0.7)
    assert torch.equal(logprobs, chosen)
    slope = gradients(model, chosen.sum())
    again = gradients(model, token_logprobs(model, batch(), 0.7).sum())
    assert all(torch.equal(slope[name], again[name]) for name in slope)
    total = F.cross_entropy(logits, targets, reduction="sum")
    assert torch.equal(mean_logprob(model, batch()), -total / TRAINED)


@pytest.mark.parametrize("build", HEADS)
def test_without_a_trained_token_the_mean_is_a_differentiable_0(
    build: Callable[[], PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logit_chunks, "LOGITS_AT_ONCE", 1)
    tokens = batch()
    tokens.loss_mask.zero_()
    mean = mean_logprob(build(), tokens)
    mean.backward()
    assert mean == 0


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "biased"])
@pytest.mark.parametrize("step", ["mean", "tokens", "entropies"])
def test_no_tensor_holds_all_logits(step: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vocab, tokens, at_once = 2000, 600, 50
    model = bound(tiny_model("llama", vocab, PAD, 1, seed=0))
    if kind == "biased":
        model.lm_head.bias = nn.Parameter(torch.randn(vocab))
    if kind == "bfloat16":
        model.bfloat16()
    ids = torch.randint(2, vocab, (20, 31), generator=torch.Generator().manual_seed(0))
    examples = [Example([], row) for row in ids.tolist()]
    rows = token_batch([document_of(one, trained=TrainedPart.SEQUENCE) for one in examples])

    def run() -> None:
        if step == "mean":
            value = mean_logprob(model, rows)
        elif step == "tokens":
            value = token_logprobs(model, rows).sum()
        else:
            value = torch.stack(token_logprobs_and_entropies(model, rows)).sum()
        value.backward()

    every = 4 * tokens * vocab
    if step != "entropies":  # These have half as many logits at once.
        # A product in bfloat16 may take some bytes of alignment besides.
        assert every <= largest_allocation(run) <= every + 4096
    monkeypatch.setattr(logit_chunks, "LOGITS_AT_ONCE", at_once * vocab)
    head = 4 * vocab * 64
    most = max(4 * at_once * vocab, head)
    assert largest_allocation(run) <= most + 4096 < every / 9


@pytest.mark.parametrize(
    ("tokens", "most", "size"),
    [
        (0, 682, 0),
        (600, 682, 600),
        (682, 682, 682),
        # Two parts of 380, of which five eighths of 85 have room; four of 512, in seven.
        (760, 682, 425),
        (2048, 682, 595),
        (1364, 682, 682),
        (7, 3, 3),
        (5, 1, 1),
    ],
)
def test_parts_are_as_few_as_can_be_and_about_alike(tokens: int, most: int, size: int) -> None:
    assert logit_chunks.chunk_size(tokens, most) == size
