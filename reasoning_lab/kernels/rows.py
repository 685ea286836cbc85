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
MOST_REPEATED_FRAC = 0.05


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
    longest = int(batch.lengths.max())
    takes_documents = has_kernels(model) and not pads_documents(model)
    if not (takes_documents and knows_documents(model, longest)):
        return padded_rows(batch)
    tokens = len(batch.input_ids)
    if batch.first_reads is not None:
        first_reads = batch.first_reads.numpy()
        if (first_reads != np.arange(tokens)).sum() > MOST_REPEATED_FRAC * tokens:
            return _document_row(model, batch, first_reads)
    if tokens >= (1 - _MOST_PADDING_FRAC) * len(batch.lengths) * longest:
        return padded_rows(batch)
    return _document_row(model, batch, None)


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
    model: PreTrainedModel, batch: TokenBatch, first_reads: Int[np.ndarray, " N"] | None
) -> ModelRows:
    """One row of documents, the longest first; with `first_reads` a shared prompt stands once."""
    starts, lengths = batch.cu_seqlens[:-1].numpy(), batch.lengths.numpy()
    order = np.argsort(-lengths, kind="stable")
    lengths = lengths[order]
    tokens = np.repeat(starts[order], lengths) + positions_within(lengths)
    sources, reads = tokens, None
    if first_reads is not None:
        sources = tokens[first_reads[tokens] == tokens]
    places = np.empty(len(tokens), dtype=np.int64)
    places[sources] = np.arange(len(sources))
    if first_reads is not None:
        places = places[first_reads]
        reads = places[tokens]
    predictors = np.roll(places, 1)
    predictors[starts] = 0
    device = batch.input_ids.device
    options = attend_within_documents(model, DocumentLayout.of(lengths, reads, device))
    return ModelRows(_moved(sources[None], device), _moved(predictors, device), options)


def _moved(values: Int[np.ndarray, "..."], device: torch.device) -> Tensor:
    return torch.from_numpy(values).to(device)
