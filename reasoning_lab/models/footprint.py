"""The memory footprint of training a model, estimated from its config without loading weights.

The estimate counts parameters of the Llama-like families (gated MLP, grouped-query attention, RMS
norms) and what each device and host stores of them under a strategy. It adds the activations that a
training step saves for its backward pass with fused attention. Logits exist for some tokens at a
time, as in `reasoning_lab.kernels.logprobs`; a user's own loss that needs all of them takes more.

Under ZeRO, weights, gradients and optimizer state match DeepSpeed's own estimators
(`estimate_zero2_model_states_mem_needs`, `estimate_zero3_model_states_mem_needs`) except for
rounding. Unlike them, this leaves out the host's working space: their `additional_buffer_factor` of
1.5, and the full copy of the model that each process loads before it is divided. Left out on the
device: communication buckets, the layers that FSDP and ZeRO-3 prefetch, the optimizer's scratch
memory, fragmentation, and the framework itself. A tensor is divided evenly, without padding.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.kernels.logit_chunks import chunk_size, most_chunk_tokens

# Bytes of one value: weights, gradients and activations of this dtype.
_BYTES = {"float32": 4, "bfloat16": 2, "mixed": 4}
# Attention's activations, as multiples of the widths of all queries and of all keys: rotated heads,
# values and output. phi3 saves its fused projection as well, qwen3 the inputs of its head norms.
_ATTENTION_ACTIVATIONS = {
    "llama": (2, 2),
    "mistral": (2, 2),
    "phi3": (4, 3),
    "qwen2": (2, 2),
    "qwen3": (4, 4),
}
_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
# transformers' default, whatever the hidden size.
_QWEN3_HEAD_DIM = 128
# State values per parameter. Muon has one and its AdamW part two, so two is an upper bound.
_OPTIMIZER_STATES = {"AdamW": 2, "Adam": 2, "SGD": 1, "MuonAdamW": 2}
# Families with one projection for queries, keys and values, and one for gate and up.
_FUSED_PROJECTIONS = ("phi3",)


@dataclass(frozen=True, slots=True)
class Division:
    """What a strategy divides among all devices, and the copies that it stores.

    Attributes:
        weights: True = weights are divided; each device gathers the module that computes.
        gradients: True = gradients are divided.
        optimizer: True = the optimizer's state is divided.
        gradient_copies: Copies of the gradients in the policy's dtype.
        master_copies: Copies of weights and of gradients in float32, which the optimizer updates;
            they are divided as its state is.
    """

    weights: bool = False
    gradients: bool = False
    optimizer: bool = False
    gradient_copies: int = 1
    master_copies: int = 0


# FSDP: PyTorch's `fully_shard` of a model of one dtype. DDP: its buckets are as large as the
# gradients, because Lightning does not make the gradients views of them. ZeRO-3: gradients only in
# float32, as in DeepSpeed's estimator.
STRATEGIES = {
    "single": Division(),
    "ddp": Division(gradient_copies=2),
    "fsdp": Division(weights=True, gradients=True, optimizer=True),
    "deepspeed1": Division(optimizer=True, master_copies=1),
    "deepspeed2": Division(gradients=True, optimizer=True, master_copies=1),
    "deepspeed3": Division(True, True, True, gradient_copies=0, master_copies=1),
}


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory of one training stage: bytes of one device, unless an attribute says otherwise.

    Attributes:
        parameters: Number of parameters.
        trained: Number of parameters that the optimizer changes.
        weights: Weights in the policy's dtype.
        gradients: Gradients in the policy's dtype, with their copies.
        master: Float32 weights beside those of lower precision.
        optimizer: The optimizer's state; an upper bound where some parameters have less.
        gathered: Weights and gradients of the largest module, which is whole while it computes.
        copies: Frozen copies of the policy that some stages hold.
        activations_per_token: Most activations saved at once, for each token of a micro-batch.
        logits_per_token: Logits, their log-softmax and a gradient, for each trained token.
        logits_tokens: Most trained tokens that have logits at once; None = all.
        head: Accumulated gradient of the vocabulary projection.
        recomputed_per_token: Activations of the layer that activation checkpointing recomputes.
        host: Bytes offloaded to a node's memory.
        nvme: Bytes offloaded to a node's drives.
        casts: The bfloat16 copies of weights that mixed precision saves for the backward pass.
    """

    parameters: int
    trained: int
    weights: int
    gradients: int
    master: int
    optimizer: int
    gathered: int
    copies: int
    activations_per_token: int
    logits_per_token: int
    logits_tokens: int | None
    head: int
    recomputed_per_token: int
    host: int = 0
    nvme: int = 0
    casts: int = 0

    @property
    def states(self) -> int:
        """Model states on a device between two steps, and the modules that it gathers."""
        stored = self.weights + self.gradients + self.master + self.optimizer
        return stored + self.gathered + self.copies

    def peak(self, tokens: int) -> int:
        """Peak bytes of a device with `tokens` tokens in a micro-batch, all of them trained.

        The gradients of the last step, or of earlier micro-batches, still exist while the loss is
        computed. A checkpointed layer is recomputed after the logits are freed.
        """
        backward_start = max(self.loss(tokens), tokens * self.recomputed_per_token)
        return self.states + self.casts + tokens * self.activations_per_token + backward_start

    def loss(self, tokens: int) -> int:
        """Bytes of the logits at the peak."""
        if self.logits_tokens is None or tokens <= self.logits_tokens:
            return tokens * self.logits_per_token
        return chunk_size(tokens, self.logits_tokens) * self.logits_per_token + self.head


def footprint(
    architecture: Mapping[str, Any],
    vocab_size: int,
    dtype: str,
    optimizer: str,
    hardware: HardwareConfig,
    frozen: int = 0,
    lora_rank: int | None = None,
    packed: bool = False,
) -> Footprint | None:
    """Estimate a stage's memory; None for an unknown family or optimizer.

    Args:
        architecture: Keys of a Hugging Face config.
        vocab_size: Used where the architecture has none.
        dtype: Dtype of weights, gradients and, without a float32 copy, optimizer state.
        optimizer: The optimizer's import path.
        hardware: How the stage is distributed, and with which kernels it computes. A GPU has more
            logits at once than a CPU, and its norms in bfloat16 save less.
        frozen: Number of frozen policies in memory, each whole on every device.
        lora_rank: Rank of adapters on every projection of the layers, the only trained parameters;
            None = every parameter is trained. The adapters' activations are left out.
        packed: True = a row holds several documents. Keys and values are saved once more where
            FlashAttention cannot read the documents joined: on a CPU and in float32.
    """
    states = _OPTIMIZER_STATES.get(optimizer.rpartition(".")[2])
    if not is_known(architecture) or states is None:
        return None
    on_cpu, checkpointed = hardware.accelerator == "cpu", hardware.activation_checkpointing
    all_logits = hardware.kernels == "reference"
    size = _BYTES[dtype]
    hidden, layers = architecture["hidden_size"], architecture["num_hidden_layers"]
    vocab = architecture.get("vocab_size") or vocab_size
    parameters = trained = parameter_count(architecture, vocab)
    if lora_rank is not None:
        trained = lora_parameter_count(architecture, lora_rank)
        parameters += trained
    largest = largest_module_count(architecture, vocab)
    layer, last_norm = _activation_bytes(architecture, dtype, packed, on_cpu)
    activations = layers * size * hidden if checkpointed else layers * layer
    cast = sum(features_in * out for features_in, out in _projections(architecture))
    cast = (1 if checkpointed else layers) * cast + vocab * hidden
    return Footprint(
        parameters,
        trained,
        **_divided(parameters, trained, largest, states, size, hardware),
        copies=frozen * size * parameters,
        activations_per_token=activations + last_norm,
        # The loss is taken in float32.
        logits_per_token=3 * 4 * vocab,
        logits_tokens=None if all_logits else most_chunk_tokens(vocab, on_cpu),
        head=size * vocab * hidden if lora_rank is None else 0,
        recomputed_per_token=layer if checkpointed else 0,
        casts=2 * cast if dtype == "mixed" else 0,
    )


def _divided(
    parameters: int, trained: int, largest: int, states: int, size: int, hardware: HardwareConfig
) -> dict[str, int]:
    """Bytes of parameters, gradients and optimizer: of a device, `host` and `nvme` of a node.

    Gradients of an offloaded optimizer leave the device at once, except under ZeRO-1.
    """
    division = STRATEGIES[hardware.strategy]

    def part(count: int, divided: bool) -> int:
        return count // hardware.world_size if divided else count

    masters = division.master_copies
    stored = {
        "weights": part(size * parameters, division.weights),
        "gradients": part(division.gradient_copies * size * trained, division.gradients)
        + part(4 * masters * trained, division.optimizer),
        "master": part(4 * masters * trained, division.optimizer),
        "optimizer": part(states * (4 if masters else size) * trained, division.optimizer),
        "gathered": 2 * size * largest if division.weights else 0,
    }
    if hardware.offload == "none":
        return stored
    offloaded = (8 * masters + states * 4) * trained // hardware.nodes
    gradients = 0 if division.gradients else size * trained
    stored |= {"gradients": gradients, "master": 0, "optimizer": 0}
    return stored | {"host" if hardware.offload == "cpu" else "nvme": offloaded}


def is_known(architecture: Mapping[str, Any]) -> bool:
    """Whether this module can estimate it: a known family, with its sizes."""
    sizes = (architecture.get(name) for name in _SIZES)
    return architecture.get("model_type") in _ATTENTION_ACTIVATIONS and all(sizes)


def parameter_count(architecture: Mapping[str, Any], vocab_size: int) -> int:
    """Number of parameters of a model of a known family."""
    hidden, layers = architecture["hidden_size"], architecture["num_hidden_layers"]
    queries, keys, head = attention_widths(architecture)
    attention = 2 * hidden * queries + 2 * hidden * keys
    if architecture["model_type"] == "qwen2":
        attention += queries + 2 * keys
    if architecture["model_type"] == "qwen3":
        attention += 2 * head
    layer = attention + 3 * hidden * architecture["intermediate_size"] + 2 * hidden
    tables = 1 if architecture.get("tie_word_embeddings", False) else 2
    return int(tables * vocab_size * hidden + layers * layer + hidden)


def largest_module_count(architecture: Mapping[str, Any], vocab_size: int) -> int:
    """Number of parameters of the largest module: an embedding table, or a projection."""
    sizes = [features_in * out for features_in, out in _projections(architecture)]
    if architecture["model_type"] == "qwen2":
        sizes[0] += attention_widths(architecture)[0]
    return int(max(*sizes, vocab_size * architecture["hidden_size"]))


def lora_parameter_count(architecture: Mapping[str, Any], rank: int) -> int:
    """Number of parameters of adapters of `rank` on every projection of every layer."""
    layer = sum(rank * (features_in + out) for features_in, out in _projections(architecture))
    return int(architecture["num_hidden_layers"] * layer)


def state_bytes(memory: Footprint, dtype: str, optimizer: str, strategy: str) -> int:
    """Bytes of a training state on disk, whatever devices share: weights and optimizer.

    Beside an adapter only its own weights are in it. Under ZeRO the optimizer's values and a copy
    of the weights are float32.
    """
    size, masters = _BYTES[dtype], STRATEGIES[strategy].master_copies
    values = _OPTIMIZER_STATES[optimizer.rpartition(".")[2]]
    optimizer_bytes = 4 * masters + values * (4 if masters else size)
    return (size + optimizer_bytes) * memory.trained


def weight_bytes(architecture: Mapping[str, Any], vocab_size: int, dtype: str) -> int:
    """Bytes of all weights."""
    return _BYTES[dtype] * parameter_count(architecture, vocab_size)


def cache_bytes(architecture: Mapping[str, Any], dtype: str) -> int:
    """Bytes of the keys and values of one token in all layers."""
    _, keys, _ = attention_widths(architecture)
    return int(2 * keys * architecture["num_hidden_layers"]) * _BYTES[dtype]


def attention_widths(architecture: Mapping[str, Any]) -> tuple[int, int, int]:
    """The total width of the queries, the total width of the keys, and the width of one head."""
    heads = architecture["num_attention_heads"]
    default = _QWEN3_HEAD_DIM if architecture["model_type"] == "qwen3" else None
    head = architecture.get("head_dim") or default or architecture["hidden_size"] // heads
    return heads * head, (architecture.get("num_key_value_heads") or heads) * head, head


def _projections(architecture: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Input and output features of each projection module of a layer, by family."""
    hidden, inner = architecture["hidden_size"], architecture["intermediate_size"]
    queries, keys, _ = attention_widths(architecture)
    ends = [(queries, hidden), (inner, hidden)]
    if architecture["model_type"] in _FUSED_PROJECTIONS:
        return [(hidden, queries + 2 * keys), (hidden, 2 * inner), *ends]
    return [(hidden, queries), *2 * [(hidden, keys)], *2 * [(hidden, inner)], *ends]


def _activation_bytes(
    architecture: Mapping[str, Any], dtype: str, packed: bool, on_cpu: bool
) -> tuple[int, int]:
    """Bytes that one layer, and the last norm, save of a token for the backward pass."""
    hidden, family = architecture["hidden_size"], architecture["model_type"]
    queries, keys, _ = attention_widths(architecture)
    of_queries, of_keys = _ATTENTION_ACTIVATIONS[family]
    layer = of_queries * queries + of_keys * keys
    # Several documents need a gathered copy of keys and values, unless they are joined. phi3's
    # memory layout needs the copy for a single document too.
    joined = packed and not on_cpu and dtype != "float32"
    if joined and family in _FUSED_PROJECTIONS:
        layer -= queries
    if packed and not joined and family not in _FUSED_PROJECTIONS:
        layer += queries
    # The MLP's gate, up, activated gate, and their product.
    layer += 4 * architecture["intermediate_size"]
    # Where `reasoning_lab.kernels.fused_ops` replaces the norm.
    fused_norm = not (on_cpu and dtype == "bfloat16")
    # Values per channel that a norm saves, besides the input of the next product.
    norm = 1 if fused_norm else 2
    if dtype != "mixed":
        if fused_norm and family == "qwen3":
            layer -= queries + keys
        # If phi3's heads are rotated whole, they and their keys and values are not copied.
        rotates_whole_head = architecture.get("partial_rotary_factor") in (None, 1)
        if fused_norm and family == "phi3" and rotates_whole_head and not packed:
            layer -= queries
        size = _BYTES[dtype]
        return int(size * (2 * (norm + 1) * hidden + layer)), size * (norm + 1) * hidden
    # Norms save float32 values, and every product a bfloat16 copy of its input. qwen3's head norms
    # save one value more than in a single precision.
    layer += (2 if family in _FUSED_PROJECTIONS else 5) * hidden
    layer += queries + keys if family == "qwen3" else 0
    return int(2 * layer + 4 * 2 * norm * hidden), 2 * hidden + 4 * norm * hidden
