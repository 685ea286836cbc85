"""How a batch's documents reach one model.

As padded rows `[D, T]`, documents as rows, which every causal model reads right. Or, where the
model's kernels let documents attend alone, as one row: without padding, and a shared prompt once.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

from reasoning_lab.kernels.attention import (
    DocumentLayout,
    attend_within_documents,
    knows_documents,
    positions_within,
)
from reasoning_lab.kernels.batch import TokenBatch
from reasoning_lab.kernels.binding import has_kernels, pads_documents

# Of a batch's tokens. More padding is left out, at the price of more calls of attention; of the
# rest more repeated prompts are, at the price that each layer copies what attention reads.
_MOST_PADDING_FRAC = 0.05
_MOST_REPEATED_FRAC = 0.05


@dataclass(frozen=True, slots=True)
class ModelRows:
    """What a model is to read, R rows of T tokens.

    Attributes:
        sources: `[R, T]` int64, which of the batch's N tokens stands at each place.
        predictors: `[N]` int64, the place, of R T, whose state predicts each token; 0 for a
            document's first.
        options: What the model's forward is given beside the tokens.
    """

    sources: Int[Tensor, "R T"]
    predictors: Int[Tensor, " N"]
    options: dict[str, Any] = field(default_factory=dict)


def model_rows(model: PreTrainedModel, batch: TokenBatch) -> ModelRows:
    """The batch as `model` reads it fastest; on the batch's device."""
    lengths, device = batch.lengths.numpy(), batch.input_ids.device
    takes_documents = has_kernels(model) and not pads_documents(model)
    if not (takes_documents and knows_documents(model, int(lengths.max()))):
        return padded_rows(batch)
    # FlashAttention takes any lengths; elsewhere attention takes documents of one length at once.
    widths = lengths if device.type == "cuda" else _rounded(lengths)
    padded = len(lengths) * int(lengths.max())
    read = min(int(widths.sum()), padded)
    if batch.first_reads is not None:
        first_reads = batch.first_reads.numpy()
        if (first_reads != np.arange(len(first_reads))).sum() > _MOST_REPEATED_FRAC * read:
            return _document_row(model, batch, lengths, first_reads)
    if read >= (1 - _MOST_PADDING_FRAC) * padded:
        return padded_rows(batch)
    return _document_row(model, batch, widths, None)


def padded_rows(batch: TokenBatch) -> ModelRows:
    """Right-padded rows, a document each; no token reads the padding behind it."""
    lengths, starts = batch.lengths.numpy(), batch.cu_seqlens[:-1].numpy()
    width = int(lengths.max())
    sources = starts[:, None] + np.minimum(np.arange(width), lengths[:, None] - 1)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    predictors = np.maximum(rows * width + batch.position_ids.numpy() - 1, 0)
    device = batch.input_ids.device
    return ModelRows(_moved(sources, device), _moved(predictors, device))


def _document_row(
    model: PreTrainedModel,
    batch: TokenBatch,
    widths: Int[np.ndarray, " D"],
    first_reads: Int[np.ndarray, " N"] | None,
) -> ModelRows:
    """One row of documents, the longest first, each repeating its last token up to its width.

    With `first_reads` a shared prompt stands there once.
    """
    order = np.argsort(-widths, kind="stable")
    starts, widths = batch.cu_seqlens[:-1].numpy(), widths[order]
    last = np.repeat(batch.lengths.numpy()[order] - 1, widths)
    tokens = np.repeat(starts[order], widths) + np.minimum(positions_within(widths), last)
    sources = tokens if first_reads is None else tokens[first_reads[tokens] == tokens]
    places = np.empty(len(batch.input_ids), dtype=np.int64)
    places[sources] = np.arange(len(sources))
    places = places if first_reads is None else places[first_reads]
    predictors = np.roll(places, 1)
    predictors[starts] = 0
    device = batch.input_ids.device
    reads = None if first_reads is None else places[tokens]
    layout = DocumentLayout.of(widths, reads, device)
    options = attend_within_documents(model, layout)
    return ModelRows(_moved(sources[None], device), _moved(predictors, device), options)


def _rounded(lengths: Int[np.ndarray, " D"]) -> Int[np.ndarray, " D"]:
    """Up to five binary digits, and to no more than the longest."""
    digits = np.floor(np.log2(lengths)).astype(np.int64) + 1
    unit = 1 << np.maximum(0, digits - 5)
    rounded: Int[np.ndarray, " D"] = np.minimum(-(-lengths // unit) * unit, lengths.max())
    return rounded


def _moved(values: Int[np.ndarray, "..."], device: torch.device) -> Tensor:
    return torch.from_numpy(values).to(device)
