"""Attention within documents that stand in one row.

A mask over a row costs its length squared, in time and in memory, however short its documents are.
Here each document attends alone. On a GPU, in half precision, FlashAttention takes all of them
joined, each of its own length. Elsewhere those of one length, or alike in it, lie side by side as
right-padded rows, which need no mask where attention is causal, so torch takes its fastest kernel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

_NAME = "documents"
# Their layers hand on what a forward is given to the attention function, and attend plainly.
_FAMILIES = ("llama", "mistral", "phi3", "qwen2", "qwen3")
# Where tokens are copied anyway, documents of at least this share of the longest one's tokens lie
# together: a little padding spares calls.
_ALIKE_FRAC = 0.75
# What FlashAttention takes: its precisions, and GPUs since Ampere.
_HALVES = (torch.bfloat16, torch.float16)
_LEAST_CAPABILITY = (8, 0)


class Regrouping(NamedTuple):
    """An order of tokens in which those that a document reads stand side by side.

    Attributes:
        sources: `[P]` int64, which of the M tokens is at each place.
        places: `[M]` int64, each token's place; of one that several documents read, one of them.
    """

    sources: Int[Tensor, " P"]
    places: Int[Tensor, " M"]

    @classmethod
    def of(
        cls,
        sources: Int[np.ndarray, " P"],
        real: Int[np.ndarray, " R"],
        device: torch.device | None = None,
    ) -> "Regrouping":
        """The order of which only the places `real` count; the others are padding."""
        tokens = sources[real]
        places = np.empty(int(tokens.max()) + 1, dtype=np.int64)
        places[tokens] = real
        return cls(torch.from_numpy(sources).to(device), torch.from_numpy(places).to(device))


@dataclass(frozen=True, slots=True)
class DocumentLayout:
    """Where the documents of one row of M tokens are.

    Attributes:
        position_ids: `[1, M]` int64, of each token in its document.
        shapes: (D, L) of each group: D documents, the longest of L tokens.
        padded: The M tokens as all groups in turn; a place behind a document's end repeats its
            last token. None = as they are: documents are grouped with those of their own length.
        joined: The tokens as one document after the other reads them; None = as they are.
        cu_seqlens: `[D + 1]` int32, where each document begins among those, and their end.
        longest: Tokens of the longest document.
    """

    position_ids: Int[Tensor, "1 M"]
    shapes: tuple[tuple[int, int], ...]
    padded: Regrouping | None
    joined: Regrouping | None
    cu_seqlens: Int[Tensor, " D+1"]
    longest: int

    @classmethod
    def of(
        cls,
        lengths: Int[np.ndarray, " D"],
        reads: Int[np.ndarray, " R"] | None = None,
        device: torch.device | None = None,
    ) -> "DocumentLayout":
        """Of documents of `lengths` tokens each, none of them empty.

        Args:
            lengths: The longest first.
            reads: The tokens that each document reads, one document after the other: documents
                that begin alike share those tokens, at the same positions. None = the next ones.
            device: Where its tensors are.
        """
        ends = np.concatenate([[0], np.cumsum(lengths)])
        positions = positions_within(lengths)
        shapes = _groups(lengths, 1 if reads is None else _ALIKE_FRAC)
        padded, joined = None, None
        if reads is not None:
            padded = _padded_regrouping(lengths, shapes, reads, device)
            joined = Regrouping.of(reads, np.arange(len(reads)), device)
            of_reads, positions = positions, np.empty(int(reads.max()) + 1, dtype=np.int64)
            positions[reads] = of_reads
        return cls(
            torch.from_numpy(positions)[None].to(device),
            shapes,
            padded,
            joined,
            torch.from_numpy(ends.astype(np.int32)).to(device),
            int(lengths[0]),
        )


def positions_within(lengths: Int[np.ndarray, " D"]) -> Int[np.ndarray, " N"]:
    """Each token's place in its document, of documents that stand one behind the other."""
    ends = np.cumsum(lengths)
    positions: Int[np.ndarray, " N"] = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    return positions


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


def _padded_regrouping(
    lengths: Int[np.ndarray, " D"],
    shapes: Sequence[tuple[int, int]],
    reads: Int[np.ndarray, " R"],
    device: torch.device | None,
) -> Regrouping:
    widths = np.repeat([width for _, width in shapes], [count for count, _ in shapes])
    within = positions_within(widths)
    starts, last = np.cumsum(lengths) - lengths, np.repeat(lengths - 1, widths)
    sources = reads[np.repeat(starts, widths) + np.minimum(within, last)]
    return Regrouping.of(sources, np.flatnonzero(within <= last), device)


def knows_documents(model: PreTrainedModel, longest: int) -> bool:
    """Whether documents of up to `longest` tokens can attend alone in this model.

    Not with an attention implementation of the user's, of a family that is not known here, or
    with a window narrower than a document.
    """
    config: Any = model.config
    window = getattr(config, "sliding_window", None)
    known = config._attn_implementation in ("sdpa", _NAME) and config.model_type in _FAMILIES
    return known and (window is None or window >= longest)


def attend_within_documents(model: PreTrainedModel, layout: DocumentLayout) -> dict[str, Any]:
    """What a forward of a model that `knows_documents` is given beside the tokens."""
    # It stays, as a layer that is computed again in the backward pass reads it once more.
    if model.config._attn_implementation != _NAME:
        model.set_attn_implementation(_NAME)
    # transformers makes no mask where it is given one of four dimensions.
    unread = torch.zeros((1, 1, 1, 1), dtype=torch.bool, device=layout.position_ids.device)
    return {
        "position_ids": layout.position_ids,
        "attention_mask": unread,
        "document_layout": layout,
    }


# transformers' own has no types.
_sdpa: Any = sdpa_attention_forward


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    document_layout: DocumentLayout | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Scaled dot products, by transformers; with a layout, of each document alone.

    Takes `[B, heads, T, D]` and gives `[B, T, heads, D]`.
    """
    if document_layout is None:
        plain: tuple[Tensor, None] = _sdpa(module, query, key, value, attention_mask, **options)
        return plain
    states = [heads[0].transpose(0, 1) for heads in (query, key, value)]
    if flash_attention_supports(value, options):
        attended = attend_joined(states, document_layout, options.get("scaling"))
    else:
        attended = attend_padded(module, states, document_layout, options)
    return attended[None], None


def flash_attention_supports(value: Tensor, options: Mapping[str, Any]) -> bool:
    """Whether FlashAttention has a kernel for documents joined, here and for these values."""
    return (
        value.is_cuda
        and value.dtype in _HALVES
        and value.shape[-1] % 8 == 0
        and value.shape[-1] <= 256
        and not options.get("dropout")
        and torch.cuda.get_device_capability(value.device) >= _LEAST_CAPABILITY
    )


def attend_joined(states: Sequence[Tensor], layout: DocumentLayout, scale: float | None) -> Tensor:
    """`[M, heads, D]` of queries, keys and values `[M, heads, D]`, by FlashAttention."""
    order = layout.joined
    # Beside autocast, positions leave queries and keys in float32.
    query, key, value = (part.to(states[2].dtype) for part in states)
    if order is not None:
        query, key, value = (part.index_select(0, order.sources) for part in (query, key, value))
    attended: Tensor = varlen_attn(
        query,
        key,
        value,
        layout.cu_seqlens,
        layout.cu_seqlens,
        layout.longest,
        layout.longest,
        scale=scale,
        window_size=(-1, 0),
        enable_gqa=True,
    )  # type: ignore[assignment]
    return attended if order is None else attended.index_select(0, order.places)


def attend_padded(
    module: torch.nn.Module,
    states: Sequence[Tensor],
    layout: DocumentLayout,
    options: Mapping[str, Any],
) -> Tensor:
    """As `attend_joined`, by transformers' function for each group of documents alike in length."""
    sizes = [count * length for count, length in layout.shapes]
    order = layout.padded
    if order is not None:
        states = [part.index_select(0, order.sources) for part in states]
    groups = zip(layout.shapes, *(part.split(sizes) for part in states), strict=True)
    attended = []
    for shape, *of_group in groups:
        heads = [part.unflatten(0, shape).transpose(1, 2) for part in of_group]
        of_documents, _ = _sdpa(module, *heads, None, **options)
        attended.append(of_documents.flatten(0, 1))
    together = torch.cat(attended)
    return together if order is None else together.index_select(0, order.places)


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)
