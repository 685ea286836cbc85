"""Attention within the documents of packed rows.

A mask over a row costs its length squared, in time and in memory, however short its documents are.
Here each document attends alone. On a GPU, in half precision, FlashAttention takes all of them
joined, each of its own length. Elsewhere those of one length, or alike in it, lie side by side as
right-padded rows, which need no mask where attention is causal, so torch takes its fastest kernel.
The tokens come sorted by the lengths of their documents, so that no layer has to sort them.
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
# Documents that share tokens lie together with the longest of which they have at least this share.
_ALIKE_FRAC = 0.75
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
    """Where the documents of one row without padding are, the longest first.

    Attributes:
        position_ids: `[1, N]` int64, of each token in its document.
        shapes: (D, L) of each group: D documents, the longest of L tokens.
        padded: The N tokens as all groups in turn; a place behind a document's end repeats its
            last token. None = as they are: documents are grouped with those of their own length.
        joined: The tokens as one document after the other reads them; None = as they are.
        ends: `[D + 1]` int32, where each document ends among those, after 0.
    """

    position_ids: Int[Tensor, "1 N"]
    shapes: tuple[tuple[int, int], ...]
    padded: Layout | None
    joined: Layout | None
    ends: Int[Tensor, " E"]

    @classmethod
    def of(
        cls, lengths: Int[np.ndarray, " D"], read: Int[np.ndarray, " R"] | None = None
    ) -> "Documents":
        """Those of `lengths` tokens each, none of them empty.

        Args:
            lengths: The longest first.
            read: The tokens that each document reads, one document after the other: documents that
                begin alike share those tokens, at the same positions. None = the next ones.
        """
        ends = np.concatenate([[0], np.cumsum(lengths)])
        within = np.arange(ends[-1]) - np.repeat(ends[:-1], lengths)
        # Shared tokens are copied anyway, so a little padding spares calls at no other price.
        shapes = _groups(lengths, 1 if read is None else _ALIKE_FRAC)
        position_ids, padded, joined = within, None, None
        if read is not None:
            position_ids = np.empty(int(read.max()) + 1, dtype=np.int64)
            position_ids[read] = within
            padded = _padded_layout(lengths, shapes, read)
            joined = Layout.of(read, np.arange(len(read)))
        return cls(
            torch.from_numpy(position_ids)[None],
            shapes,
            padded,
            joined,
            torch.from_numpy(ends.astype(np.int32)),
        )

    @property
    def longest(self) -> int:
        """Tokens of the longest document."""
        return self.shapes[0][1]

    def to(self, device: torch.device) -> "Documents":
        return Documents(
            self.position_ids.to(device),
            self.shapes,
            None if self.padded is None else self.padded.to(device),
            None if self.joined is None else self.joined.to(device),
            self.ends.to(device),
        )


def _groups(lengths: Int[np.ndarray, " D"], alike_frac: float) -> tuple[tuple[int, int], ...]:
    """(D, L) of documents that have at least this share of the longest one's tokens."""
    shapes: list[tuple[int, int]] = []
    first = 0
    while first < len(lengths):
        longest = int(lengths[first])
        alike = int((lengths[first:] >= alike_frac * longest).sum())
        shapes.append((alike, longest))
        first += alike
    return tuple(shapes)


def _padded_layout(
    lengths: Int[np.ndarray, " D"],
    shapes: Sequence[tuple[int, int]],
    read: Int[np.ndarray, " R"],
) -> Layout:
    widths = np.repeat([width for _, width in shapes], [count for count, _ in shapes])
    ends = np.cumsum(widths)
    within = np.arange(ends[-1]) - np.repeat(ends - widths, widths)
    starts, last = np.cumsum(lengths) - lengths, np.repeat(lengths - 1, widths)
    laid = read[np.repeat(starts, widths) + np.minimum(within, last)]
    return Layout.of(laid, np.flatnonzero(within <= last))


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
    """What a forward of a model that `attends_apart` is given beside the tokens."""
    # Kept, as a layer that is computed again in the backward pass reads it once more.
    if model.config._attn_implementation != _NAME:
        model.set_attn_implementation(_NAME)
    # transformers makes no mask where it is given one of four dimensions.
    unread = torch.zeros((1, 1, 1, 1), dtype=torch.bool, device=documents.position_ids.device)
    return {
        "position_ids": documents.position_ids,
        "attention_mask": unread,
        "documents": documents,
    }


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
    states = [each[0].transpose(0, 1) for each in (query, key, value)]
    if _flash_takes(value, options):
        attended = _joined(states, documents, options.get("scaling"))
    else:
        attended = _padded(module, states, documents, options)
    return attended[None], None


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
    layout = documents.padded
    if layout is not None:
        states = [_laid(each, layout) for each in states]
    parts = [each.split(sizes) for each in states]
    attended = []
    for shape, *of_group in zip(documents.shapes, *parts, strict=True):
        heads = [part.unflatten(0, shape).transpose(1, 2) for part in of_group]
        alone, _ = _sdpa(module, *heads, None, **options)
        attended.append(alone.flatten(0, 1))
    together = torch.cat(attended)
    return together if layout is None else cast(Tensor, _returned(together, layout))


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)
