"""Attention within the documents of packed rows.

A mask over a row costs its length squared, in time and in memory, however short its documents are.
Here each document attends alone. On a GPU, in half precision, FlashAttention takes all of them
joined, each of its own length. Elsewhere those alike in length lie side by side as right-padded
rows, which need no mask where attention is causal, so torch takes its fastest kernel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

_NAME = "documents"
# Their layers hand on what a forward is given to the attention function, and attend plainly.
_FAMILIES = ("llama", "mistral", "phi3", "qwen2", "qwen3")
# Documents lie together with the longest of which they have at least this share, so at most as
# much again is padding.
_ALIKE_FRAC = 0.5
# What FlashAttention takes: its precisions, and GPUs since Ampere.
_HALVES = (torch.bfloat16, torch.float16)
_LEAST_CAPABILITY = (8, 0)


@dataclass(frozen=True, slots=True)
class Layout:
    """An order of tokens in which those that a document reads stand side by side.

    Attributes:
        laid: `[P]` int64, which of the N tokens is at each place.
        places: `[N]` int64, each token's place; of one that several documents read, one of them.
        copies: `[C]` int64, the other places of such tokens.
    """

    laid: Int[Tensor, " P"]
    places: Int[Tensor, " N"]
    copies: Int[Tensor, " C"]

    @classmethod
    def of(cls, laid: Int[np.ndarray, " P"], real: Int[np.ndarray, " R"]) -> "Layout":
        """The layout of which only the places `real` count; the others are padding."""
        tokens = laid[real]
        places = np.empty(int(tokens.max()) + 1, dtype=np.int64)
        places[tokens] = real
        copies = real[places[tokens] != real]
        return cls(torch.from_numpy(laid), torch.from_numpy(places), torch.from_numpy(copies))

    def to(self, device: torch.device) -> "Layout":
        return Layout(*(each.to(device) for each in (self.laid, self.places, self.copies)))


@dataclass(frozen=True, slots=True)
class Documents:
    """Where the documents of packed rows are.

    Attributes:
        position_ids: `[B, T]` int64, restarting at 0 with each document.
        shapes: (D, L) of each group: D documents, the longest of L tokens.
        padded: The B T tokens as all groups in turn; a place behind a document's end repeats its
            last token.
        joined: The tokens as one document after the other reads them; None = as they are.
        ends: `[D + 1]` int32, where each document ends among those, after 0.
    """

    position_ids: Int[Tensor, "B T"]
    shapes: tuple[tuple[int, int], ...]
    padded: Layout
    joined: Layout | None
    ends: Int[Tensor, " E"]

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
        ends = np.concatenate([[0], np.cumsum(counts)])
        starts, total = ends[:-1], int(ends[-1])
        within_document = np.arange(total) - np.repeat(starts, counts)
        joined = None if read is None else Layout.of(read, np.arange(total))
        if read is None:
            read = np.arange(total)
        position_ids = np.empty(int(read.max()) + 1, dtype=np.int64)
        position_ids[read] = within_document
        order = np.argsort(-counts, kind="stable")
        laid: list[np.ndarray] = []
        real: list[np.ndarray] = []
        shapes: list[tuple[int, int]] = []
        filled = first = 0
        while first < len(order):
            longest = int(counts[order[first]])
            alike = int((counts[order[first:]] >= _ALIKE_FRAC * longest).sum())
            group = order[first : first + alike]
            within = np.arange(longest)
            last = counts[group, None] - 1
            laid.append(read[(starts[group, None] + np.minimum(within, last)).reshape(-1)])
            real.append(filled + np.flatnonzero(within <= last))
            shapes.append((alike, longest))
            filled, first = filled + alike * longest, first + alike
        return cls(
            torch.from_numpy(position_ids.reshape(rows, -1)),
            tuple(shapes),
            Layout.of(np.concatenate(laid), np.concatenate(real)),
            joined,
            torch.from_numpy(ends.astype(np.int32)),
        )

    @property
    def longest(self) -> int:
        """Tokens of the longest document."""
        return max(length for _, length in self.shapes)

    def to(self, device: torch.device) -> "Documents":
        return Documents(
            self.position_ids.to(device),
            self.shapes,
            self.padded.to(device),
            None if self.joined is None else self.joined.to(device),
            self.ends.to(device),
        )


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
    """`tokens[laid]`; padding has no part in the gradient.

    Summed over a shared token's places, on a GPU in no fixed order.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, layout: Layout) -> Tensor:
        ctx.layout = layout
        return tokens.index_select(0, layout.laid)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        layout = ctx.layout
        found = gradient.index_select(0, layout.places)
        if len(layout.copies):
            found.index_add_(0, layout.laid[layout.copies], gradient[layout.copies])
        return found, None


class _Returned(torch.autograd.Function):
    """`laid[places]`: the tokens in their order again."""

    @staticmethod
    def forward(ctx: Any, laid: Tensor, layout: Layout) -> Tensor:
        ctx.layout = layout
        return laid.index_select(0, layout.places)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        layout = ctx.layout
        found = gradient.new_zeros((len(layout.laid), *gradient.shape[1:]))
        found[layout.places] = gradient
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
    states = [each.transpose(1, 2).flatten(0, 1) for each in (query, key, value)]
    if _flash_takes(value, options):
        attended = _joined(states, documents, options.get("scaling"))
    else:
        attended = _padded(module, states, documents, options)
    return attended.unflatten(0, (rows, tokens)), None


def _flash_takes(value: Tensor, options: Mapping[str, Any]) -> bool:
    """Whether FlashAttention has a kernel for documents joined, here and for these values."""
    return (
        value.is_cuda
        and value.dtype in _HALVES
        and value.shape[-1] % 8 == 0
        and value.shape[-1] <= 256
        and not options.get("dropout")
        and torch.cuda.get_device_capability(value.device) >= _LEAST_CAPABILITY
    )


def _joined(states: Sequence[Tensor], documents: Documents, scale: float | None) -> Tensor:
    """`[N, heads, D]` of queries, keys and values `[N, heads, D]`, without padding."""
    layout, ends, longest = documents.joined, documents.ends, documents.longest
    # Beside autocast, positions leave queries and keys in float32.
    query, key, value = (each.to(states[2].dtype) for each in states)
    if layout is not None:
        query, key, value = (_laid(each, layout) for each in (query, key, value))
    attended: Tensor = varlen_attn(
        query,
        key,
        value,
        ends,
        ends,
        longest,
        longest,
        scale=scale,
        window_size=(-1, 0),
        enable_gqa=True,
    )  # type: ignore[assignment]
    return attended if layout is None else cast(Tensor, _returned(attended, layout))


def _padded(
    module: torch.nn.Module,
    states: Sequence[Tensor],
    documents: Documents,
    options: Mapping[str, Any],
) -> Tensor:
    """As `_joined`, by transformers' own function for each group of documents alike in length."""
    sizes = [count * length for count, length in documents.shapes]
    parts = [_laid(each, documents.padded).split(sizes) for each in states]
    attended = []
    for shape, *of_group in zip(documents.shapes, *parts, strict=True):
        heads = [part.unflatten(0, shape).transpose(1, 2) for part in of_group]
        alone, _ = _sdpa(module, *heads, None, **options)
        attended.append(alone.flatten(0, 1))
    together: Tensor = _returned(torch.cat(attended), documents.padded)
    return together


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)
