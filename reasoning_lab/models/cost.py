"""FLOPs and time of training and of generation, estimated from a model's config.

Training follows Kaplan et al. 2020 (arXiv:2001.08361, section 2.1). A parameter takes 2 operations
per token in the forward pass and 4 in the backward pass, 6 in all; attention adds its own. Time is
these FLOPs at a fraction of the device's peak, the model-FLOPs utilisation (MFU; Chowdhery et al.
2022, arXiv:2204.02311, appendix B). A forward pass that activation checkpointing repeats therefore
lowers the MFU and adds no FLOPs. Left out: norms, rotations, the loss, padding, and the forward
passes of frozen policies.
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

# Assumed, not measured: well-tuned trainers of dense models reach it on these devices.
ASSUMED_MFU = 0.4
# Fraction of a device's memory for weights and cache where it only generates.
_GENERATION_FRAC = 0.9


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator, as its vendor specifies it.

    Attributes:
        flops_per_s: Peak FLOPs per second of dense bfloat16 products.
        memory_bytes: Device memory.
        bytes_per_s: Bandwidth of the device memory.
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
    """FLOPs of the forward pass of `rows` rows of `row_tokens` tokens.

    They are `tokens * (2 N + 2 L W T)`: N parameters without an embedding table that is only looked
    up, L layers, W the width of all queries, T tokens of a row. Attention's scores and its sum take
    `4 W` operations for each earlier token, of which a causal row has T / 2 on average. The
    documents of a packed row are shorter, so for them this is an upper bound.
    """
    vocab = architecture.get("vocab_size") or vocab_size
    matmul_parameters = parameter_count(architecture, vocab)
    if not architecture.get("tie_word_embeddings", False):
        matmul_parameters -= vocab * architecture["hidden_size"]
    queries, _, _ = attention_widths(architecture)
    attention = architecture["num_hidden_layers"] * queries * row_tokens
    return float(rows * row_tokens * 2 * (matmul_parameters + attention))


def training_flops(
    architecture: Mapping[str, Any], vocab_size: int, rows: int, row_tokens: int
) -> float:
    """FLOPs of one forward pass and of the backward pass, which takes twice as many."""
    return 3 * forward_flops(architecture, vocab_size, rows, row_tokens)


def training_s(flops: float, device: Device, devices: int, mfu: float = ASSUMED_MFU) -> float:
    """Seconds that `devices` devices need for `flops` at a fraction `mfu` of their peak."""
    return flops / (device.flops_per_s * devices * mfu)


def generation_s(
    architecture: Mapping[str, Any],
    vocab_size: int,
    dtype: str,
    rows: int,
    row_tokens: int,
    batch_rows: int,
    device: Device,
    devices: int,
) -> float:
    """Lower bound on the seconds in which `devices` devices generate `rows` completions.

    Each device holds the whole model and decodes `B` rows at a time: `batch_rows`, or fewer if its
    memory cannot hold them at full length. One decoding step takes
    `max((weights + B * cache * T / 2) / bandwidth, 2 N B / peak)` seconds. It reads all weights
    once, and the keys and values of T / 2 tokens of every row on average. Left out: the prompts,
    sampling, and batches that run empty.
    """
    vocab = architecture.get("vocab_size") or vocab_size
    weights = weight_bytes(architecture, vocab, dtype)
    cache = cache_bytes(architecture, dtype)
    fitting_rows = (_GENERATION_FRAC * device.memory_bytes - weights) / (cache * row_tokens)
    batch = max(1, min(batch_rows, int(fitting_rows), -(-rows // devices)))
    read_s = (weights + batch * cache * row_tokens / 2) / device.bytes_per_s
    compute_s = forward_flops(architecture, vocab, batch, 1) / device.flops_per_s
    return rows * row_tokens / (batch * devices) * max(read_s, compute_s)
