"""Log-probabilities of given tokens, computed only where a token is trained.

Shared by every stage, so that a policy, its reference and an engine mean the same by
`logprobs`: log softmax(logits / temperature) at the token that was really there.

The logits of many tokens over a large vocabulary are more memory than all else in training, so they
are built some tokens at a time. Of a plain float32 vocabulary projection torch's own
`linear_cross_entropy` does so, and takes the mean's gradient on the way forwards, which is faster
even where all fit; of any other, also in bfloat16, where that would round the log-probabilities to
eight bits, each part is computed again in the backward pass.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from reasoning_lab.kernels.attention import Documents, apart, attends_apart
from reasoning_lab.losses.next_token import next_token_loss
from reasoning_lab.losses.parts import logits_at_once, part_size

# Values: 16 MiB in float32. Below, torch's own way to the mean gains nothing.
_FEW_LOGITS = 2**22

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unpadded:
    """Rows as documents of one row without padding, that read a common beginning once.

    Attributes:
        kept: `[N]` int64, which of the B T tokens, in the order in which they are read.
        before: `[B, T]` int64, which of those N stands before each token in its document; 0 where
            none does.
        documents: Of those N.
    """

    kept: Int[Tensor, " N"]
    before: Int[Tensor, "B T"]
    documents: Documents

    @classmethod
    def of(
        cls,
        shape: tuple[int, int],
        starts: Sequence[int],
        lengths: Sequence[int],
        beginnings: Sequence[tuple[int, int]] = (),
    ) -> "Unpadded":
        """Of rows of that shape, of which everything outside the documents is padding.

        Args:
            shape: (B, T).
            starts: Of each document, its first token's place among the B T.
            lengths: Of each, at least 1.
            beginnings: Of each document, the first that begins alike, and in how many tokens; none
                given = they share nothing.
        """
        order = np.argsort(-np.asarray(lengths), kind="stable")
        first, count = np.asarray(starts)[order], np.asarray(lengths)[order]
        ends = np.cumsum(count)
        within = np.arange(ends[-1]) - np.repeat(ends - count, count)
        places = np.repeat(first, count) + within
        read_at = places
        if beginnings:
            mate, shared = np.array(beginnings)[order].T
            alike = within < np.repeat(shared, count)
            read_at = np.where(alike, np.repeat(np.asarray(starts)[mate], count) + within, places)
        kept = places[read_at == places]
        number = np.zeros(shape[0] * shape[1], dtype=np.int64)
        number[kept] = np.arange(len(kept))
        read = number[read_at]
        before = np.zeros(shape, dtype=np.int64)
        before.reshape(-1)[places[1:]] = np.where(within[1:], read[:-1], 0)
        documents = Documents.of(count, None if len(kept) == len(places) else read)
        return cls(torch.from_numpy(kept), torch.from_numpy(before), documents)

    def to(self, device: torch.device) -> "Unpadded":
        moved = self.kept.to(device), self.before.to(device)
        return Unpadded(*moved, self.documents.to(device))


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Right-padded or packed rows of tokens with the targets that carry loss.

    Attributes:
        input_ids: `[B, T]` int64.
        completion_mask: `[B, T]` bool, True = trained token (a document's first is never one).
        position_ids: `[B, T]` int64, of packed rows, restarting at 0 with each document; None when
            a row is one document, behind which padding needs no mask: no token reads what follows
            it.
        unpadded: The same rows for a model whose documents can attend alone; None where it saves
            too little.
    """

    input_ids: Int[Tensor, "B T"]
    completion_mask: Bool[Tensor, "B T"]
    position_ids: Int[Tensor, "B T"] | None = None
    unpadded: Unpadded | None = None

    def to(self, device: torch.device) -> "TokenBatch":
        return TokenBatch(
            self.input_ids.to(device),
            self.completion_mask.to(device),
            None if self.position_ids is None else self.position_ids.to(device),
            None if self.unpadded is None else self.unpadded.to(device),
        )


def trained_logits(
    model: PreTrainedModel, batch: TokenBatch
) -> tuple[Float[Tensor, "N V"], Int[Tensor, " N"]]:
    """Logits that predict each trained token, and those tokens: for a loss of one's own.

    `N` counts the True entries of `completion_mask` in row-major order. The vocabulary
    projection runs for those alone, so no `[B, T, V]` tensor is ever built.
    """
    return _inside(model, _trained_logits, batch)


def mean_logprob(model: PreTrainedModel, batch: TokenBatch) -> Float[Tensor, ""]:
    """Mean log-probability of the trained tokens; without any, a differentiable 0."""
    return _inside(model, _mean_logprob, batch)


def token_logprobs(
    model: PreTrainedModel, batch: TokenBatch, temperature: float = 1.0
) -> Float[Tensor, "B T"]:
    """Log-probability of every trained token at its own position; 0 elsewhere."""
    chosen = _inside(model, partial(_chosen, temperature=temperature), batch)
    return torch.zeros(
        batch.input_ids.shape, dtype=chosen.dtype, device=chosen.device
    ).masked_scatter(batch.completion_mask, chosen)


@torch.no_grad()
def token_entropies(model: PreTrainedModel, batch: TokenBatch) -> Float[Tensor, "B T"]:
    """Entropy in nats of softmax(logits) that each trained token is drawn from; 0 elsewhere.

    At temperature 1, whatever the temperature that sampled, so that steps can be compared.
    Without gradient.
    """
    entropies = _inside(model, _entropies, batch)
    return torch.zeros(
        batch.input_ids.shape, dtype=entropies.dtype, device=entropies.device
    ).masked_scatter(batch.completion_mask, entropies)


def shared_forward(model: PreTrainedModel) -> None:
    """Have all of these go through a method of the model, to which a strategy adds hooks."""
    model._shared_forward = partial(_called, model)  # type: ignore[assignment]


def mix_precision(model: PreTrainedModel, mixes: bool = True) -> None:
    """Have all of these take products in bfloat16 from the model's float32 weights."""
    model._mixes_precision = mixes  # type: ignore[assignment]


def mixes_precision(model: PreTrainedModel) -> bool:
    """Whether `mix_precision` was here."""
    return bool(getattr(model, "_mixes_precision", False))


def use_reference_kernels(model: PreTrainedModel, uses: bool = True) -> None:
    """Have all of these take the logits of the model's own forward."""
    model._reference_kernels = uses  # type: ignore[assignment]


def has_reference_kernels(model: PreTrainedModel) -> bool:
    """Whether `use_reference_kernels` was here."""
    return bool(getattr(model, "_reference_kernels", False))


def _inside(
    model: PreTrainedModel, compute: Callable[[PreTrainedModel, TokenBatch], T], batch: TokenBatch
) -> T:
    call: Any = getattr(model, "_shared_forward", None) or partial(_called, model)
    found: T = call(compute, batch)
    return found


def _called(
    model: PreTrainedModel, compute: Callable[[PreTrainedModel, TokenBatch], T], batch: TokenBatch
) -> T:
    # Each weight is read once, so a cache of its bfloat16 copy would only take memory.
    with torch.autocast(
        batch.input_ids.device.type,
        torch.bfloat16,
        enabled=mixes_precision(model),
        cache_enabled=False,
    ):
        return compute(model, batch)


def _trained_states(model: PreTrainedModel, batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """`[N, H]` that the vocabulary projection reads, and `[N]` int64 that it is to predict."""
    unpadded = batch.unpadded
    if unpadded is not None and attends_apart(model, unpadded.documents):
        input_ids = batch.input_ids.flatten()[unpadded.kept]
        hidden = _hidden(model, input_ids[None], apart(model, unpadded.documents))
        trained = batch.completion_mask
        return hidden[0][unpadded.before[trained]], batch.input_ids[trained]
    trained = batch.completion_mask[:, 1:]
    hidden = _hidden(model, batch.input_ids, _packed_positions(batch))
    return hidden[:, :-1][trained], batch.input_ids[:, 1:][trained]


def _packed_positions(batch: TokenBatch) -> dict[str, Any]:
    """By which transformers keeps packed documents apart."""
    return {} if batch.position_ids is None else {"position_ids": batch.position_ids}


def _hidden(model: PreTrainedModel, input_ids: Tensor, given: dict[str, Any]) -> Tensor:
    """`[B, T, H]` that the vocabulary projection reads."""
    found: Tensor = model.base_model(
        input_ids=input_ids,
        use_cache=False,  # With a cache, transformers drops the packing mask silently.
        **given,
    )[0]
    return found


def _trained_logits(model: PreTrainedModel, batch: TokenBatch) -> tuple[Tensor, Tensor]:
    if has_reference_kernels(model):
        return _forward_logits(model, batch)
    states, targets = _trained_states(model, batch)
    return model.get_output_embeddings()(states).float(), targets


def _forward_logits(model: PreTrainedModel, batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """As `_trained_logits`, by the model's own forward, which may cap and scale them."""
    trained = batch.completion_mask[:, 1:]
    # Not through the hooks of a sharded model, which `_shared_forward` has already run.
    output = model.forward(input_ids=batch.input_ids, use_cache=False, **_packed_positions(batch))
    return output.logits[:, :-1][trained].float(), batch.input_ids[:, 1:][trained]


def _mean_logprob(model: PreTrainedModel, batch: TokenBatch) -> Tensor:
    if has_reference_kernels(model):
        return -next_token_loss(*_forward_logits(model, batch))
    states, targets = _trained_states(model, batch)
    head: Any = model.get_output_embeddings()
    size = _part_size(head, targets)
    many = size < len(targets) or size * head.out_features > _FEW_LOGITS
    if many and _is_plain(head):
        return -_cross_entropy(head, states, targets, size, "mean")
    if size == len(targets):
        return -next_token_loss(head(states).float(), targets)
    return _chosen_by_parts(head, states, targets, 1.0, size).mean()


def _chosen(model: PreTrainedModel, batch: TokenBatch, temperature: float) -> Tensor:
    """`[N]` float32 log-probabilities of the trained tokens."""
    if has_reference_kernels(model):
        return _chosen_of(*_forward_logits(model, batch), temperature)
    states, targets = _trained_states(model, batch)
    head: Any = model.get_output_embeddings()
    size = _part_size(head, targets)
    if size == len(targets):
        return _chosen_at_once(head, states, targets, temperature)
    if _is_plain(head):
        return -_cross_entropy(head, states / temperature, targets, size, "none")
    return _chosen_by_parts(head, states, targets, temperature, size)


def _entropies(model: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """`[N]` float32, of the distributions that predict the trained tokens."""
    if has_reference_kernels(model):
        logits, _ = _forward_logits(model, batch)
        entropies: Tensor = torch.special.entr(logits.float().softmax(-1)).sum(-1)
        return entropies
    states, targets = _trained_states(model, batch)
    head: Any = model.get_output_embeddings()
    parts = states.split(max(1, _part_size(head, targets)))
    return torch.cat([torch.special.entr(head(part).float().softmax(-1)).sum(-1) for part in parts])


def _part_size(head: Any, targets: Tensor) -> int:
    # ZeRO-3 gathers the weights at each call, which ranks must do equally often.
    if _is_divided(head):
        return len(targets)
    most = logits_at_once(head.out_features, targets.device.type == "cpu")
    return part_size(len(targets), most)


def _is_divided(head: Any) -> bool:
    """Whether ZeRO-3 keeps its weights in parts, which naming one outside its forward gathers."""
    return any(hasattr(parameter, "ds_id") for parameter in head.parameters())


def _is_plain(head: Any) -> bool:
    """Whether its logits are one float32 product: no adapter, bias, hook, 4-bit, absent weights."""
    if type(head) is not nn.Linear or _is_divided(head) or head.weight.dtype != torch.float32:
        return False
    if torch.is_autocast_enabled(head.weight.device.type):
        return False
    if head._forward_pre_hooks or head._forward_hooks:
        return False
    bias: Tensor | None = head.bias
    return bias is None


def _cross_entropy(head: Any, states: Tensor, targets: Tensor, size: int, reduction: str) -> Tensor:
    options = nn.LinearCrossEntropyOptions(batch_chunk_size=size, chunking_method=None)
    return F.linear_cross_entropy(
        states, head.weight, targets, reduction=reduction, options=options
    )


def _chosen_by_parts(
    head: Any, states: Tensor, targets: Tensor, temperature: float, size: int
) -> Tensor:
    parts = zip(states.split(size), targets.split(size), strict=True)
    return torch.cat(
        [
            checkpoint(_chosen_at_once, head, *part, temperature, use_reentrant=False)
            for part in parts
        ]
    )


def _chosen_at_once(head: Any, states: Tensor, targets: Tensor, temperature: float) -> Tensor:
    return _chosen_of(head(states).float(), targets, temperature)


def _chosen_of(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    if temperature != 1.0:
        logits = logits / temperature
    return -F.cross_entropy(logits, targets, reduction="none")
