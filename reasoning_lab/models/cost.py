"""Arithmetic and time of training and of generation, reckoned from a model's config.

Training follows Kaplan et al. 2020 (arXiv:2001.08361, section 2.1): 2 operations a parameter and
token forwards and 4 backwards, 6 in all, and what attention adds. Time is that arithmetic at a
share of the device's peak, the model-FLOPs utilisation (MFU; Chowdhery et al. 2022,
arXiv:2204.02311, appendix B), so a forward pass that activation checkpointing repeats is in the
MFU and not in the arithmetic. Left out: norms, rotations, the loss, padding, and frozen policies
that only read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reasoning_lab.models.footprint import (
    attention_widths,
    cache_bytes,
    parameter_count,
    weight_bytes,
)

# Reached by well-tuned trainers of dense models on these devices; what was not measured is assumed.
ASSUMED_MFU = 0.4
# What is left of a device's memory for weights and cache where it only generates.
_GENERATION_FRAC = 0.9


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator, as its maker states it.

    Attributes:
        flops_per_s: Peak of dense bfloat16 products.
        memory_bytes: Its own memory.
        bytes_per_s: Bandwidth of that memory.
    """

    flops_per_s: float
    memory_bytes: float
    bytes_per_s: float


# NVIDIA's data sheets, SXM boards: A100 80 GB, H100, H200.
DEVICES = {
    "a100": Device(312e12, 80e9, 2.039e12),
    "h100": Device(989e12, 80e9, 3.35e12),
    "h200": Device(989e12, 141e9, 4.8e12),
}


def forward_flops(
    architecture: Mapping[str, Any], vocab_size: int, rows: int, row_tokens: int
) -> float:
    """Of reading `rows` rows of `row_tokens` tokens.

    `tokens * (2 N + 2 L W T)`: N parameters without a table that is only looked up, L layers, W the
    width of all queries, T tokens a row. Attention's scores and its sum take `4 W` operations for
    each earlier token, of which a causal row has T / 2 on average. A packed row's documents are
    shorter, so for them it is an upper bound.
    """
    vocab = architecture.get("vocab_size") or vocab_size
    multiplied = parameter_count(architecture, vocab)
    if not architecture.get("tie_word_embeddings", False):
        multiplied -= vocab * architecture["hidden_size"]
    queries, _, _ = attention_widths(architecture)
    attention = architecture["num_hidden_layers"] * queries * row_tokens
    return float(rows * row_tokens * 2 * (multiplied + attention))


def training_flops(
    architecture: Mapping[str, Any], vocab_size: int, rows: int, row_tokens: int
) -> float:
    """Forwards once and backwards, which is twice that."""
    return 3 * forward_flops(architecture, vocab_size, rows, row_tokens)


def training_s(flops: float, device: Device, devices: int, mfu: float = ASSUMED_MFU) -> float:
    """Seconds of `flops` on so many devices at a share `mfu` of their peak."""
    return flops / (device.flops_per_s * devices * mfu)


def generation_s(
    architecture: Mapping[str, Any],
    vocab_size: int,
    dtype: str,
    rows: int,
    row_tokens: int,
    together: int,
    device: Device,
    devices: int,
) -> float:
    """Seconds, at the least, in which so many devices write `rows` completions.

    Each device holds the whole model and decodes `B` rows at a time, `together` or as many as its
    memory holds at full length. A token of each takes
    `max((weights + B * cache * T / 2) / bandwidth, 2 N B / peak)`: all weights are read once, and
    of every row the keys and values of T / 2 tokens on average. Left out: the prompts, sampling,
    and batches that run empty.
    """
    vocab = architecture.get("vocab_size") or vocab_size
    weights = weight_bytes(architecture, vocab, dtype)
    cache = cache_bytes(architecture, dtype)
    room = (_GENERATION_FRAC * device.memory_bytes - weights) / (cache * row_tokens)
    batch = max(1, min(together, int(room), -(-rows // devices)))
    read = (weights + batch * cache * row_tokens / 2) / device.bytes_per_s
    computed = forward_flops(architecture, vocab, batch, 1) / device.flops_per_s
    return rows * row_tokens / (batch * devices) * max(read, computed)
