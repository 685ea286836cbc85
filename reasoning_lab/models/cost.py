"""FLOPs and time of training and of generation, estimated from a model's config.

Training follows Kaplan et al. 2020 (arXiv:2001.08361, section 2.1). A parameter takes 2 operations
per token in the forward pass and 4 in the backward pass, 6 in all; attention adds its own. Time is
these FLOPs at a fraction of the device's peak, the model-FLOPs utilisation (MFU; Chowdhery et al.
2022, arXiv:2204.02311, appendix B). A forward pass that activation checkpointing repeats therefore
lowers the MFU and adds no FLOPs. Left out: norms, rotations, the loss, padding, and the forward
passes of frozen copies of the policy.
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
# Kernels that transformers starts for one token in one layer, and outside of all layers together:
# 32 to 56 and about 40, counted on a CPU as operations that are no views.
KERNELS_OF_LAYER = 40
# Assumed: what torch and CUDA take to start one.
KERNEL_START_S = 5e-6


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator, as its vendor specifies it.

    Attributes:
        flops_per_s: Peak FLOPs per second of dense bfloat16 products.
        memory_bytes: Device memory.
        bytes_per_s: Bandwidth of the device memory.
        vllm_rows: vLLM's own limit on the rows that it decodes together: 1,024 from 70 GiB on,
            except on an A100, and else 256 (`EngineArgs.get_batch_defaults`).
    """

    flops_per_s: float
    memory_bytes: float
    bytes_per_s: float
    vllm_rows: int


# NVIDIA's data sheets; A100 of 80 GB, H100, H200 and B200 on SXM boards.
DEVICES = {
    "a10": Device(125e12, 24e9, 0.6e12, 256),
    "a100": Device(312e12, 80e9, 2.039e12, 256),
    "b200": Device(2250e12, 180e9, 8e12, 1024),
    "h100": Device(989e12, 80e9, 3.35e12, 1024),
    "h200": Device(989e12, 141e9, 4.8e12, 1024),
    "l4": Device(121e12, 24e9, 0.3e12, 256),
    "l40s": Device(362e12, 48e9, 0.864e12, 256),
    "rtx4090": Device(165e12, 24e9, 1.008e12, 256),
}


def forward_flops(
    architecture: Mapping[str, Any], vocab_size: int, rows: int, row_tokens: float
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
    architecture: Mapping[str, Any], vocab_size: int, rows: int, row_tokens: float
) -> float:
    """FLOPs of one forward pass and of the backward pass, which takes twice as many."""
    return 3 * forward_flops(architecture, vocab_size, rows, row_tokens)


def training_s(flops: float, device: Device, devices: int, mfu: float = ASSUMED_MFU) -> float:
    """Seconds that `devices` devices need for `flops` at a fraction `mfu` of their peak."""
    return flops / (device.flops_per_s * devices * mfu)


@dataclass(frozen=True, slots=True)
class Decoder:
    """How an engine decodes.

    Attributes:
        rows: Most rows that one copy of the model decodes together.
        copies: Copies of the model, which share the rows.
        devices: Devices of one copy, which share its weights and products.
        cache_bytes: Room of one copy for keys and values, which may hold fewer rows; None = it
            takes what the rows need.
        starts_kernels: True = each kernel is started by itself; False = a CUDA graph starts them.
    """

    rows: int
    copies: int = 1
    devices: int = 1
    cache_bytes: float | None = None
    starts_kernels: bool = True


def generation_s(
    architecture: Mapping[str, Any],
    vocab_size: int,
    dtype: str,
    rows: int,
    row_tokens: float,
    decoder: Decoder,
    device: Device,
) -> float:
    """Seconds in which an engine generates `rows` completions of `row_tokens` tokens.

    A copy of the model decodes `B` rows at a time: `decoder.rows`, or fewer if there are no more or
    its cache cannot hold them at full length. It takes `ceil(rows / copies / B)` rounds of
    `row_tokens` steps. One step takes `max((weights + B * cache * T / 2) / bandwidth,
    2 N B / (peak * MFU)) + starts` seconds. It reads all weights once, and the keys and values of
    T / 2 tokens of every row on average. Left out: the prompts, and the exchange between devices.
    """
    vocab = architecture.get("vocab_size") or vocab_size
    weights = weight_bytes(architecture, vocab, dtype)
    cache = cache_bytes(architecture, dtype)
    copy_rows = -(-rows // decoder.copies)
    batch = min(decoder.rows, copy_rows)
    if decoder.cache_bytes is not None:
        batch = max(1, min(batch, int(decoder.cache_bytes / (cache * row_tokens))))
    read_s = (weights + batch * cache * row_tokens / 2) / device.bytes_per_s
    compute_s = forward_flops(architecture, vocab, batch, 1) / (device.flops_per_s * ASSUMED_MFU)
    step_s = max(read_s, compute_s) / decoder.devices
    if decoder.starts_kernels:
        step_s += KERNELS_OF_LAYER * (architecture["num_hidden_layers"] + 1) * KERNEL_START_S
    return -(-copy_rows // batch) * row_tokens * step_s
