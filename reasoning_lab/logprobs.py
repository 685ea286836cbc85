"""Log-probabilities of given tokens, computed only where a token is trained.

Shared by every stage, so that a policy, its reference and an engine mean the same by
`logprobs`: log softmax(logits / temperature) at the token that was really there.
"""

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Right-padded or packed rows of tokens with the targets that carry loss.

    Attributes:
        input_ids: `[B, T]` int64.
        attention_mask: `[B, T]` int64, 1 = real token; None for packed rows, which hold no
            padding and keep documents apart by `position_ids`.
        completion_mask: `[B, T]` bool, True = trained token (position 0 is never one).
        position_ids: `[B, T]` int64, restarting at 0 with each packed document; None when a
            row is one document.
    """

    input_ids: Int[Tensor, "B T"]
    attention_mask: Int[Tensor, "B T"] | None
    completion_mask: Bool[Tensor, "B T"]
    position_ids: Int[Tensor, "B T"] | None = None

    def to(self, device: torch.device) -> "TokenBatch":
        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device)

        return TokenBatch(
            self.input_ids.to(device),
            move(self.attention_mask),
            self.completion_mask.to(device),
            move(self.position_ids),
        )


def trained_logits(
    model: PreTrainedModel, batch: TokenBatch
) -> tuple[Float[Tensor, "N V"], Int[Tensor, " N"]]:
    """Logits that predict each trained token, and those tokens.

    `N` counts the True entries of `completion_mask` in row-major order. The vocabulary
    projection runs for those alone, so no `[B, T, V]` tensor is ever built.
    """
    forward = getattr(model, "_shared_forward", None) or partial(_trained_logits, model)
    found: tuple[Tensor, Tensor] = forward(batch)
    return found


def shared_forward(model: PreTrainedModel) -> None:
    """Have `trained_logits` go through a method of the model, to which a strategy adds hooks."""
    model._shared_forward = partial(_trained_logits, model)  # type: ignore[assignment]


def mix_precision(model: PreTrainedModel) -> None:
    """Have `trained_logits` take products in bfloat16 from the model's float32 weights."""
    model._mixes_precision = True  # type: ignore[assignment]


def mixes_precision(model: PreTrainedModel) -> bool:
    """Whether `mix_precision` was here."""
    return bool(getattr(model, "_mixes_precision", False))


def _trained_logits(model: PreTrainedModel, batch: TokenBatch) -> tuple[Tensor, Tensor]:
    # Each weight is read once, so a cache of its bfloat16 copy would only take memory.
    with torch.autocast(
        batch.input_ids.device.type,
        torch.bfloat16,
        enabled=mixes_precision(model),
        cache_enabled=False,
    ):
        hidden = model.base_model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,  # With a cache, transformers drops the packing mask silently.
        )[0]
        trained = batch.completion_mask[:, 1:]
        logits = model.get_output_embeddings()(hidden[:, :-1][trained])
    return logits.float(), batch.input_ids[:, 1:][trained]


def token_logprobs(
    model: PreTrainedModel, batch: TokenBatch, temperature: float = 1.0
) -> Float[Tensor, "B T"]:
    """Log-probability of every trained token at its own position; 0 elsewhere."""
    logits, targets = trained_logits(model, batch)
    chosen = torch.log_softmax(logits / temperature, dim=-1).gather(1, targets[:, None])[:, 0]
    return torch.zeros(
        batch.input_ids.shape, dtype=chosen.dtype, device=chosen.device
    ).masked_scatter(batch.completion_mask, chosen)
