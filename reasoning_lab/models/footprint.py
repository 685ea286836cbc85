"""What training a model takes in memory, reckoned from its config: no weights are loaded.

Counts parameters of the Llama-like families (gated MLP, grouped-query attention, RMS norms) and
the values that a training step keeps for its backward pass with fused attention and without
activation checkpointing. Simplified: one device, no framework buffers, no fragmentation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_BYTES = {"float32": 4, "bfloat16": 2}
# What attention keeps, as multiples of the widths of all queries and of all keys: rotated heads,
# values and output; phi3 keeps its fused projection as well, qwen3 what it normalises.
_ATTENTION_KEEPS = {
    "llama": (2, 2),
    "mistral": (2, 2),
    "phi3": (4, 3),
    "qwen2": (2, 2),
    "qwen3": (4, 4),
}
# transformers' default, whatever the hidden size.
_QWEN3_HEAD = 128
# Values kept a parameter by each optimizer; Muon keeps one, AdamW, which takes the rest, two.
_STATES = {"AdamW": 2, "Adam": 2, "SGD": 1, "MuonAdamW": 2}


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory of one training stage on one device, in bytes.

    Attributes:
        parameters: Their number.
        weights: Weights and gradients.
        optimizer: Its state; an upper bound where some parameters keep less.
        activations_a_token: Kept from the forward to the backward pass, each trained token.
        copies: Frozen copies of the policy that some stages keep.
    """

    parameters: int
    weights: int
    optimizer: int
    activations_a_token: int
    copies: int = 0


def footprint(
    architecture: Mapping[str, Any],
    vocab_size: int,
    dtype: str,
    optimizer: str,
    frozen: int = 0,
) -> Footprint | None:
    """Reckon a stage's memory; None for a family or an optimizer that is not known here.

    Args:
        architecture: As in a Hugging Face config.
        vocab_size: Used where the architecture names none.
        dtype: Of weights, gradients and optimizer state.
        optimizer: Its import path.
        frozen: How many frozen policies stay in memory.
    """
    states = _STATES.get(optimizer.rpartition(".")[2])
    if architecture.get("model_type") not in _ATTENTION_KEEPS or states is None:
        return None
    size = _BYTES[dtype]
    vocab = architecture.get("vocab_size") or vocab_size
    parameters = parameter_count(architecture, vocab)
    kept = _kept_values(architecture)
    # The loss is taken in float32: logits, their logarithm and the gradient of either.
    return Footprint(
        parameters,
        2 * size * parameters,
        states * size * parameters,
        size * kept + 3 * 4 * vocab,
        frozen * size * parameters,
    )


def parameter_count(architecture: Mapping[str, Any], vocab_size: int) -> int:
    """Parameters of a model of one of the known families."""
    hidden, layers = architecture["hidden_size"], architecture["num_hidden_layers"]
    queries, keys, head = _attention(architecture)
    attention = 2 * hidden * queries + 2 * hidden * keys
    if architecture["model_type"] == "qwen2":
        attention += queries + 2 * keys
    if architecture["model_type"] == "qwen3":
        attention += 2 * head
    layer = attention + 3 * hidden * architecture["intermediate_size"] + 2 * hidden
    tables = 1 if architecture.get("tie_word_embeddings", False) else 2
    return int(tables * vocab_size * hidden + layers * layer + hidden)


def _kept_values(architecture: Mapping[str, Any]) -> int:
    """Values a token that the layers keep for the backward pass."""
    hidden = architecture["hidden_size"]
    queries, keys, _ = _attention(architecture)
    of_queries, of_keys = _ATTENTION_KEEPS[architecture["model_type"]]
    # Each norm keeps three values a channel; the MLP gate, up, the activated gate, their product.
    layer = 6 * hidden + of_queries * queries + of_keys * keys
    layer += 4 * architecture["intermediate_size"]
    return int(architecture["num_hidden_layers"] * layer + 3 * hidden)


def _attention(architecture: Mapping[str, Any]) -> tuple[int, int, int]:
    """Widths of all queries and of all keys together, and of one head."""
    heads = architecture["num_attention_heads"]
    usual = _QWEN3_HEAD if architecture["model_type"] == "qwen3" else None
    head = architecture.get("head_dim") or usual or architecture["hidden_size"] // heads
    return heads * head, (architecture.get("num_key_value_heads") or heads) * head, head
