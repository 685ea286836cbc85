"""Packed rows: documents apart without a mask, to the gradient."""

import json
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from reasoning_lab.data.tokens.batches import padded_batch
from reasoning_lab.kernels import attention
from reasoning_lab.kernels.attention import Documents
from reasoning_lab.kernels.logprobs import TokenBatch, Unpadded, mean_logprob, token_logprobs
from reasoning_lab.types import Example

VOCAB = 40
ROWS, TOKENS = 2, 40
# Of which two are of 15 tokens and two of one.
LENGTHS = [30, 9, 1, 15, 15, 5, 4, 1]


def built(family: str = "llama", **changes: Any) -> PreTrainedModel:
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
    return model.train()


def packed(lengths: Sequence[int] = LENGTHS, tokens: int = TOKENS) -> TokenBatch:
    ids = torch.randint(3, VOCAB, (ROWS, tokens), generator=torch.Generator().manual_seed(1))
    positions = torch.cat([torch.arange(length) for length in lengths]).view(ROWS, tokens)
    starts = [0, *accumulate(lengths)][:-1]
    unpadded = Unpadded.of((ROWS, tokens), starts, lengths)
    return TokenBatch(ids, positions > 0, positions, unpadded)


def alone(batch: TokenBatch) -> list[TokenBatch]:
    """Each document that has a trained token in a batch of its own."""
    parts = batch.input_ids.flatten().split(LENGTHS)
    return [
        TokenBatch(part[None], (torch.arange(len(part)) > 0)[None])
        for part in parts
        if len(part) > 1
    ]


def test_documents_by_hand() -> None:
    found = Documents.of(np.array([6, 3, 3, 1]))
    assert found.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 0, 1, 2, 0, 1, 2, 0]]
    assert found.shapes == ((1, 6), (2, 3), (1, 1))
    assert found.longest == 6
    assert found.padded is None
    assert found.joined is None
    assert found.ends.tolist() == [0, 6, 9, 12, 13]


def test_documents_that_share_a_beginning_by_hand() -> None:
    # The second begins with two tokens of the first, which has four.
    found = Documents.of(np.array([4, 3, 2]), np.array([0, 1, 2, 3, 0, 1, 4, 5, 6]))
    assert found.position_ids.tolist() == [[0, 1, 2, 3, 2, 0, 1]]
    # Three tokens are at least three quarters of four, two are not.
    assert found.shapes == ((2, 4), (1, 2))
    assert found.joined is not None
    assert found.joined.laid.tolist() == [0, 1, 2, 3, 0, 1, 4, 5, 6]
    assert found.padded is not None
    assert found.padded.laid.tolist() == [0, 1, 2, 3, 0, 1, 4, 4, 5, 6]
    assert sorted([*found.padded.places.tolist(), *found.padded.copies.tolist()]) == [
        *range(7),
        8,
        9,
    ]
    assert found.padded.laid[found.padded.copies].tolist() == [0, 1]
    assert found.padded.laid[found.padded.places].tolist() == [*range(7)]


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("family", ["llama", "mistral", "phi3", "qwen2", "qwen3"])
def test_gradients_are_those_of_documents_alone(family: str, checkpointed: bool) -> None:
    model, batch = built(family), packed()
    if checkpointed:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    mean_logprob(model, batch).backward()  # type: ignore[no-untyped-call]
    found = {name: value.grad for name, value in model.named_parameters()}
    model.zero_grad()
    trained = int(batch.completion_mask.sum())
    for each in alone(batch):
        share = int(each.completion_mask.sum()) / trained
        (share * mean_logprob(model, each)).backward()  # type: ignore[no-untyped-call]
    for name, value in model.named_parameters():
        assert value.grad is not None
        torch.testing.assert_close(found[name], value.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("family", "changes", "implementation"),
    [("llama", {}, "eager"), ("mistral", {"sliding_window": 12}, "sdpa"), ("olmo", {}, "sdpa")],
)
def test_other_models_are_kept_apart_by_positions(
    family: str, changes: dict[str, Any], implementation: str
) -> None:
    """The user's own attention, a window narrower than a document, a family not known here."""
    model, batch = built(family, **changes), packed()
    model.set_attn_implementation(implementation)
    with torch.no_grad():
        found = token_logprobs(model, batch)[batch.completion_mask]
        expected = [token_logprobs(model, each)[each.completion_mask] for each in alone(batch)]
    assert model.config._attn_implementation == implementation
    torch.testing.assert_close(found, torch.cat(expected), rtol=0, atol=1e-6)


def flash_by_hand(
    query: Tensor, key: Tensor, value: Tensor, ends: Tensor, *_: Any, scale: float, **options: Any
) -> Tensor:
    """What FlashAttention's kernel computes, which only a GPU has: `[N, heads, D]`."""
    assert options == {"window_size": (-1, 0), "enable_gqa": True}
    parts = []
    for start, end in pairwise(ends.tolist()):
        heads = [each[start:end].transpose(0, 1) for each in (query, key, value)]
        parts.append(
            scaled_dot_product_attention(*heads, is_causal=True, scale=scale, enable_gqa=True)
        )
    return torch.cat(parts, 1).transpose(0, 1)


@pytest.mark.parametrize("shared", [False, True], ids=["packed", "shared prompts"])
def test_joined_documents_are_the_padded_ones(
    shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = [Example([5, 6, 7], [8] * length) for length in (2, 9, 4)] + [Example([5, 6], [9])]
    batch = padded_batch(shown, 0) if shared else packed()
    assert not shared or batch.unpadded is not None
    model = built()
    monkeypatch.setattr(attention, "varlen_attn", flash_by_hand)
    found = []
    for takes in (False, True):
        monkeypatch.setattr(attention, "_flash_takes", lambda value, options, takes=takes: takes)
        model.zero_grad()
        logprobs = token_logprobs(model, batch)
        (logprobs * torch.arange(logprobs.numel()).view_as(logprobs)).sum().backward()
        found.append([logprobs.detach(), *(each.grad for each in model.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_a_cpu_takes_no_flash_attention() -> None:
    assert not attention._flash_takes(torch.zeros(8, 1, 8, dtype=torch.bfloat16), {})


class Largest(TorchDispatchMode):
    """The most values of any tensor that an operation gives."""

    values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for each in found if isinstance(found, tuple) else (found,):
            if isinstance(each, torch.Tensor):
                self.values = max(self.values, each.numel())
        return found


def test_nothing_grows_with_the_square_of_a_row() -> None:
    tokens = 1024
    model, batch = built(), packed([32] * (ROWS * tokens // 32), tokens)
    with Largest() as largest:
        mean_logprob(model, batch).backward()  # type: ignore[no-untyped-call]
    assert 0 < largest.values < tokens**2


def test_a_model_saved_after_it_says_nothing_of_it(tmp_path: Path) -> None:
    model = built()
    mean_logprob(model, packed())
    model.save_pretrained(tmp_path)
    assert "documents" not in json.dumps(json.loads((tmp_path / "config.json").read_text()))
