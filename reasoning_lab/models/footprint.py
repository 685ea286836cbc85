"""What training a model takes in memory, reckoned from its config: no weights are loaded.

Counts parameters of the Llama-like families (gated MLP, grouped-query attention, RMS norms), what
each device and each host keeps of them under a strategy, and the values that a training step keeps
for its backward pass with fused attention. Logits are built for some tokens at a time, as
`reasoning_lab.kernels.logprobs` does; a loss of one's own, which sees all, takes more.

Under ZeRO, weights, gradients and optimizer state are those of DeepSpeed's own estimators
(`estimate_zero2_model_states_mem_needs`, `estimate_zero3_model_states_mem_needs`) but for
rounding. Of what they count this leaves out the host's working space: their
`additional_buffer_factor` of 1.5, and the full copy of the model that each process loads before
it is divided. Left out on the device: communication buckets, the layers that FSDP and ZeRO-3
fetch ahead, the optimizer's own scratch, what the allocator wastes, and the framework itself. A
tensor is divided evenly, without padding.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reasoning_lab.kernels.logit_chunks import chunk_size, most_chunk_tokens

# Of weights and what is kept as they are.
_BYTES = {"float32": 4, "bfloat16": 2, "mixed": 4}
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
# Families that project queries, keys and values at once, and gate and up at once.
_FUSED = ("phi3",)


@dataclass(frozen=True, slots=True)
class Division:
    """What a strategy divides among all devices, and what it keeps besides.

    Attributes:
        weights: True = divided; each device gathers what it computes with.
        gradients: True = divided.
        optimizer: True = its state is divided.
        gradient_copies: Of the gradients in the policy's dtype.
        master_copies: Of weights and of gradients in float32, in which the optimizer works; they
            are divided as its state is.
    """

    weights: bool = False
    gradients: bool = False
    optimizer: bool = False
    gradient_copies: int = 1
    master_copies: int = 0


# FSDP as PyTorch's `fully_shard` divides a model of one dtype. DDP's buckets are as large as the
# gradients unless they are made views of them, which Lightning leaves off. ZeRO-3 keeps gradients
# in float32 alone, as DeepSpeed's estimator has it.
STRATEGIES = {
    "single": Division(),
    "ddp": Division(gradient_copies=2),
    "fsdp": Division(weights=True, gradients=True, optimizer=True),
    "deepspeed1": Division(optimizer=True, master_copies=1),
    "deepspeed2": Division(gradients=True, optimizer=True, master_copies=1),
    "deepspeed3": Division(True, True, True, gradient_copies=0, master_copies=1),
}


@dataclass(frozen=True, slots=True)
class Sharding:
    """How one training stage is spread.

    Attributes:
        strategy: A key of `STRATEGIES`.
        devices: Of one node.
        nodes: Machines.
        offload_optimizer: Where the optimizer's state and the float32 copies lie, of
            `hardware.OFFLOADS`; DeepSpeed only. Gradients then leave the device as they come,
            except under ZeRO-1.
        offload_weights: Where weights lie that no layer computes with; ZeRO-3 with an offloaded
            optimizer only.
        activation_checkpointing: Keep each layer's input alone, and compute the rest again.
    """

    strategy: str = "single"
    devices: int = 1
    nodes: int = 1
    offload_optimizer: str = "none"
    offload_weights: str = "none"
    activation_checkpointing: bool = False

    @property
    def world(self) -> int:
        """All devices."""
        return self.devices * self.nodes


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory of one training stage, in bytes: of one device, where nothing else is said.

    Attributes:
        parameters: Their number.
        trained: Those that the optimizer changes.
        weights: In the policy's dtype.
        gradients: Likewise, with their copies.
        master: Weights in float32 beside those of lower precision.
        optimizer: Its state; an upper bound where some parameters keep less.
        gathered: Weights and gradients of the largest module, which is whole while it computes.
        copies: Frozen copies of the policy that some stages keep.
        activations_a_token: Most that the layers keep at once, each token of a micro-batch.
        logits_a_token: Logits, their logarithm and the gradient of either, each trained token.
        logits_tokens: Most trained tokens that have them at once; None = all.
        head: A gradient of the vocabulary projection, to which those of other tokens are added.
        recomputed_a_token: Of the layer that is computed again under activation checkpointing.
        host: Offloaded to a node's memory.
        nvme: Offloaded to a node's drives.
        casts: The bfloat16 copies of weights that mixed precision keeps for the backward pass.
    """

    parameters: int
    trained: int
    weights: int
    gradients: int
    master: int
    optimizer: int
    gathered: int
    copies: int
    activations_a_token: int
    logits_a_token: int
    logits_tokens: int | None
    head: int
    recomputed_a_token: int
    host: int = 0
    nvme: int = 0
    casts: int = 0

    @property
    def states(self) -> int:
        """What stays on a device between two steps, and what it gathers."""
        kept = self.weights + self.gradients + self.master + self.optimizer
        return kept + self.gathered + self.copies

    def peak(self, tokens: int) -> int:
        """On a device, with so many tokens in a micro-batch, all of them trained.

        The gradients of the step before, or of the micro-batches before, are still there when the
        loss is taken. A checkpointed layer is computed again after the logits are gone.
        """
        turning = max(self.loss(tokens), tokens * self.recomputed_a_token)
        return self.states + self.casts + tokens * self.activations_a_token + turning

    def loss(self, tokens: int) -> int:
        """The part of it that logits take."""
        if self.logits_tokens is None or tokens <= self.logits_tokens:
            return tokens * self.logits_a_token
        return chunk_size(tokens, self.logits_tokens) * self.logits_a_token + self.head


def footprint(
    architecture: Mapping[str, Any],
    vocab_size: int,
    dtype: str,
    optimizer: str,
    sharding: Sharding | None = None,
    frozen: int = 0,
    lora_rank: int | None = None,
    packed: bool = False,
    on_cpu: bool = False,
) -> Footprint | None:
    """Reckon a stage's memory; None for a family or an optimizer that is not known here.

    Args:
        architecture: As in a Hugging Face config.
        vocab_size: Used where the architecture names none.
        dtype: Of weights, gradients and, without a float32 copy, optimizer state.
        optimizer: Its import path.
        sharding: Among which devices and how; None = one device has everything.
        frozen: How many frozen policies stay in memory, each whole on every device.
        lora_rank: Of adapters on every projection of the layers, which alone are trained; None =
            every parameter is. What adapters add to the activations is left out.
        packed: A row holds several documents. What they attend to is kept once more where
            FlashAttention does not take them joined: on a CPU and in float32.
        on_cpu: Else on a GPU, which has more logits at once, and norms in bfloat16 that keep less.
    """
    states = _STATES.get(optimizer.rpartition(".")[2])
    if not is_known(architecture) or states is None:
        return None
    sharding = sharding or Sharding()
    size = _BYTES[dtype]
    vocab = architecture.get("vocab_size") or vocab_size
    parameters = parameter_count(architecture, vocab)
    trained = parameters
    if lora_rank is not None:
        trained = lora_parameter_count(architecture, lora_rank)
        parameters += trained
    largest = largest_module_count(architecture, vocab)
    layer, ends = _kept_bytes(architecture, dtype, packed, on_cpu)
    layers = architecture["num_hidden_layers"]
    checkpointed = sharding.activation_checkpointing
    kept = layers * size * architecture["hidden_size"] if checkpointed else layers * layer
    cast = sum(numbers_in * out for numbers_in, out in _projections(architecture))
    cast = (1 if checkpointed else layers) * cast + vocab * architecture["hidden_size"]
    return Footprint(
        parameters,
        trained,
        **_divided(parameters, trained, largest, states, size, sharding),
        copies=frozen * size * parameters,
        activations_a_token=kept + ends,
        # The loss is taken in float32.
        logits_a_token=3 * 4 * vocab,
        logits_tokens=None
        if sharding.strategy == "deepspeed3"
        else most_chunk_tokens(vocab, on_cpu),
        head=size * vocab * architecture["hidden_size"] if lora_rank is None else 0,
        recomputed_a_token=layer if checkpointed else 0,
        casts=2 * cast if dtype == "mixed" else 0,
    )


def _divided(
    parameters: int, trained: int, largest: int, states: int, size: int, sharding: Sharding
) -> dict[str, int]:
    """Bytes of a device, `host` and `nvme` of a node, for what training keeps of the parameters."""
    division = STRATEGIES[sharding.strategy]
    world = sharding.world

    def part(count: int, divided: bool) -> int:
        return count // world if divided else count

    masters = division.master_copies
    found = {
        "weights": part(size * parameters, division.weights),
        "gradients": part(division.gradient_copies * size * trained, division.gradients)
        + part(4 * masters * trained, division.optimizer),
        "master": part(4 * masters * trained, division.optimizer),
        "optimizer": part(states * (4 if masters else size) * trained, division.optimizer),
        "gathered": 2 * size * largest if division.weights else 0,
        "host": 0,
        "nvme": 0,
    }
    place = {"cpu": "host", "nvme": "nvme"}
    if sharding.offload_optimizer != "none":
        whole = (8 * masters + states * 4) * trained
        found[place[sharding.offload_optimizer]] += whole // sharding.nodes
        left = 0 if division.gradients else size * trained
        found |= {"gradients": left, "master": 0, "optimizer": 0}
    if sharding.offload_weights != "none":
        found[place[sharding.offload_weights]] += size * parameters // sharding.nodes
        found["weights"] = 0
    return found


def is_known(architecture: Mapping[str, Any]) -> bool:
    """Whether its family is one of those that are counted here."""
    return architecture.get("model_type") in _ATTENTION_KEEPS


def parameter_count(architecture: Mapping[str, Any], vocab_size: int) -> int:
    """Parameters of a model of one of the known families."""
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
    """Parameters of the largest single module: a table of embeddings, or a projection."""
    sizes = [numbers_in * out for numbers_in, out in _projections(architecture)]
    if architecture["model_type"] == "qwen2":
        sizes[0] += attention_widths(architecture)[0]
    return int(max(*sizes, vocab_size * architecture["hidden_size"]))


def lora_parameter_count(architecture: Mapping[str, Any], rank: int) -> int:
    """Parameters of adapters of `rank` on every projection of every layer."""
    layer = sum(rank * (numbers_in + out) for numbers_in, out in _projections(architecture))
    return int(architecture["num_hidden_layers"] * layer)


def weight_bytes(architecture: Mapping[str, Any], vocab_size: int, dtype: str) -> int:
    """Of the whole model."""
    return _BYTES[dtype] * parameter_count(architecture, vocab_size)


def cache_bytes(architecture: Mapping[str, Any], dtype: str) -> int:
    """Keys and values of one token of one row, of all layers."""
    return (
        int(2 * attention_widths(architecture)[1] * architecture["num_hidden_layers"])
        * (_BYTES[dtype])
    )


def attention_widths(architecture: Mapping[str, Any]) -> tuple[int, int, int]:
    """Widths of all queries and of all keys together, and of one head."""
    heads = architecture["num_attention_heads"]
    usual = _QWEN3_HEAD if architecture["model_type"] == "qwen3" else None
    head = architecture.get("head_dim") or usual or architecture["hidden_size"] // heads
    return heads * head, (architecture.get("num_key_value_heads") or heads) * head, head


def _projections(architecture: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Numbers in and out of each projection of a layer, as its family's modules hold them."""
    hidden, inner = architecture["hidden_size"], architecture["intermediate_size"]
    queries, keys, _ = attention_widths(architecture)
    ends = [(queries, hidden), (inner, hidden)]
    if architecture["model_type"] in _FUSED:
        return [(hidden, queries + 2 * keys), (hidden, 2 * inner), *ends]
    return [(hidden, queries), *2 * [(hidden, keys)], *2 * [(hidden, inner)], *ends]


def _kept_bytes(
    architecture: Mapping[str, Any], dtype: str, packed: bool, on_cpu: bool
) -> tuple[int, int]:
    """What a token has kept for the backward pass: by one layer, and by the last norm."""
    hidden, family = architecture["hidden_size"], architecture["model_type"]
    queries, keys, _ = attention_widths(architecture)
    of_queries, of_keys = _ATTENTION_KEEPS[family]
    layer = of_queries * queries + of_keys * keys
    # What several documents attend to is put together, unless they are joined; phi3's heads lie
    # such that it is copied of one document too.
    joined = packed and not on_cpu and dtype != "float32"
    if joined and family in _FUSED:
        layer -= queries
    if packed and not joined and family not in _FUSED:
        layer += queries
    # The MLP gate, up, the activated gate, their product.
    layer += 4 * architecture["intermediate_size"]
    # Where `reasoning_lab.kernels.fused_ops` has another norm.
    fused = not (on_cpu and dtype == "bfloat16")
    # Values a channel that a norm keeps, without what a product reads of it.
    norm = 1 if fused else 2
    if dtype != "mixed":
        if fused and family == "qwen3":
            layer -= queries + keys
        # Rotated whole, phi3's heads stay where they were, and so does what they attend to.
        rotates_whole = architecture.get("partial_rotary_factor") in (None, 1)
        if fused and family == "phi3" and rotates_whole and not packed:
            layer -= queries
        size = _BYTES[dtype]
        return int(size * (2 * (norm + 1) * hidden + layer)), size * (norm + 1) * hidden
    # Norms keep theirs in float32, and every product a bfloat16 copy of what it reads; qwen3's
    # norms of heads keep one value more than in one precision.
    layer += (2 if family in _FUSED else 5) * hidden
    layer += queries + keys if family == "qwen3" else 0
    return int(2 * layer + 4 * 2 * norm * hidden), 2 * hidden + 4 * norm * hidden
