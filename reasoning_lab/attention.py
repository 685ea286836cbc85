"""Attention within the documents of packed rows.

A mask over a row costs its length squared, in time and in memory, however short its documents are.
Here each document attends alone: those alike in length lie side by side as right-padded rows, which
need no mask where attention is causal, so torch takes its fastest kernel on every device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

_NAME = "documents"
# Their layers hand on what a forward is given to the attention function, and attend plainly.
_FAMILIES = ("llama", "mistral", "phi3", "qwen2", "qwen3")
# Documents lie together with the longest of which they have at least this share, so at most as
# much again is padding.
_ALIKE_FRAC = 0.5


@dataclass(frozen=True, slots=True)
class Documents:
    """Where the documents of packed rows are.

    Attributes:
        position_ids: `[B, T]` int64, restarting at 0 with each document.
        shapes: (D, L) of each group: D documents, the longest of L tokens.
        laid: `[P]` int64, which of the B T tokens is at each place of all groups in turn; a place
            behind a document's end repeats its last token.
        places: `[B T]` int64, each token's place among those; of a shared one, one of its places.
        copies: `[C]` int64, the other places of shared tokens.
    """

    position_ids: Int[Tensor, "B T"]
    shapes: tuple[tuple[int, int], ...]
    laid: Int[Tensor, " P"]
    places: Int[Tensor, " N"]
    copies: Int[Tensor, " C"]

    @classmethod
    def of(
        cls, lengths: Sequence[int], rows: int, read: Int[np.ndarray, " R"] | None = None
    ) -> "Documents":
        """Those of `lengths` tokens each, which together fill `rows` equal rows.

        Args:
            lengths: In order.
            rows: How many.
            read: The tokens that each document reads, one document after the other: documents that
                begin alike share those tokens, at the same positions. None = the next ones.
        """
        counts = np.array([length for length in lengths if length], dtype=np.int64)
        starts = np.cumsum(counts) - counts
        within_document = np.arange(int(counts.sum())) - np.repeat(starts, counts)
        if read is None:
            read = np.arange(len(within_document))
        tokens = int(read.max()) + 1
        position_ids = np.empty(tokens, dtype=np.int64)
        position_ids[read] = within_document
        order = np.argsort(-counts, kind="stable")
        places = np.empty(tokens, dtype=np.int64)
        laid: list[np.ndarray] = []
        filled_places: list[np.ndarray] = []
        shapes: list[tuple[int, int]] = []
        filled = first = 0
        while first < len(order):
            longest = int(counts[order[first]])
            alike = int((counts[order[first:]] >= _ALIKE_FRAC * longest).sum())
            group = order[first : first + alike]
            within = np.arange(longest)
            last = counts[group, None] - 1
            index = read[(starts[group, None] + np.minimum(within, last)).reshape(-1)]
            real = np.flatnonzero(within <= last)
            places[index[real]] = filled + real
            laid.append(index)
            filled_places.append(filled + real)
            shapes.append((alike, longest))
            filled, first = filled + index.size, first + alike
        tokens_laid, real_places = np.concatenate(laid), np.concatenate(filled_places)
        of_token = places[tokens_laid[real_places]]
        return cls(
            torch.from_numpy(position_ids.reshape(rows, -1)),
            tuple(shapes),
            torch.from_numpy(tokens_laid),
            torch.from_numpy(places),
            torch.from_numpy(real_places[of_token != real_places]),
        )

    @property
    def longest(self) -> int:
        """Tokens of the longest document."""
        return max(length for _, length in self.shapes)

    def to(self, device: torch.device) -> "Documents":
        moved = (each.to(device) for each in (self.laid, self.places, self.copies))
        return Documents(self.position_ids.to(device), self.shapes, *moved)


def attends_apart(model: PreTrainedModel, documents: Documents) -> bool:
    """Whether each document attends alone, without a mask.

    Not with an attention implementation of the user's, of a family that is not known here, or
    with a window narrower than a document.
    """
    config: Any = model.config
    window = getattr(config, "sliding_window", None)
    known = config._attn_implementation in ("sdpa", _NAME) and config.model_type in _FAMILIES
    return known and (window is None or window >= documents.longest)


def apart(model: PreTrainedModel, documents: Documents) -> dict[str, Any]:
    """What a forward is given beside the tokens, so that no document sees another.

    Where they do not attend alone, transformers sees to it by the positions.
    """
    given: dict[str, Any] = {"position_ids": documents.position_ids}
    if not attends_apart(model, documents):
        return given
    # Kept, as a layer that is computed again in the backward pass reads it once more.
    if model.config._attn_implementation != _NAME:
        model.set_attn_implementation(_NAME)
    # transformers makes no mask where it is given one of four dimensions.
    unread = torch.zeros((1, 1, 1, 1), dtype=torch.bool, device=documents.position_ids.device)
    return {**given, "attention_mask": unread, "documents": documents}


class _Laid(torch.autograd.Function):
    """`tokens[laid]`; what stands behind a document's end has no part in the gradient.

    Summed over a shared token's places, on a GPU in no fixed order.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, documents: Documents) -> Tensor:
        ctx.documents = documents
        return tokens.index_select(0, documents.laid)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        documents = ctx.documents
        found = gradient.index_select(0, documents.places)
        if len(documents.copies):
            found.index_add_(0, documents.laid[documents.copies], gradient[documents.copies])
        return found, None


class _Returned(torch.autograd.Function):
    """`laid[places]`: the tokens in their order again."""

    @staticmethod
    def forward(ctx: Any, laid: Tensor, documents: Documents) -> Tensor:
        ctx.documents = documents
        return laid.index_select(0, documents.places)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        documents = ctx.documents
        found = gradient.new_zeros((len(documents.laid), *gradient.shape[1:]))
        found[documents.places] = gradient
        return found, None


# Their signatures are not told.
_laid: Any = _Laid.apply
_returned: Any = _Returned.apply
_sdpa: Any = sdpa_attention_forward


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    documents: Documents | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Scaled dot products, by transformers; with `documents`, of each alone.

    Takes `[B, heads, T, D]` and gives `[B, T, heads, D]`.
    """
    if documents is None:
        found: tuple[Tensor, None] = _sdpa(module, query, key, value, attention_mask, **options)
        return found
    rows, _, tokens, _ = query.shape
    sizes = [count * length for count, length in documents.shapes]
    parts = [
        _laid(states.transpose(1, 2).flatten(0, 1), documents).split(sizes)
        for states in (query, key, value)
    ]
    attended = []
    for shape, *of_group in zip(documents.shapes, *parts, strict=True):
        heads = [part.unflatten(0, shape).transpose(1, 2) for part in of_group]
        alone, _ = _sdpa(module, *heads, None, **options)
        attended.append(alone.flatten(0, 1))
    together: Tensor = _returned(torch.cat(attended), documents)
    return together.unflatten(0, (rows, tokens)), None


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)
