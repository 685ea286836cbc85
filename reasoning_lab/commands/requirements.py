"""What a node needs of a machine: memory of a device, a process and the machine, and disk."""

from dataclasses import dataclass, replace

from reasoning_lab.commands.estimates import Costs, file_bytes, input_rows
from reasoning_lab.commands.prices import NodeConfig
from reasoning_lab.config.hardware import SHARDED
from reasoning_lab.data.artifacts import Corpus, Preferences
from reasoning_lab.graph.record import Record
from reasoning_lab.models.bounds import Bounds
from reasoning_lab.models.footprint import (
    Footprint,
    cache_bytes,
    footprint,
    state_bytes,
    weight_bytes,
)
from reasoning_lab.models.host import (
    Process,
    machine_bytes,
    policy_file_bytes,
    rank_bytes,
    rollout_file_bytes,
    states_bytes,
    table_bytes,
)
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.training.stage import TrainingStage
from reasoning_lab.types import Sequences

# Keys and values of transformers' engine have a quarter of room for further tokens.
_CACHE_ROOM = 1.25
# Logits of the next token, their probabilities and the sum of these, in float32.
_SAMPLED_LOGIT_BYTES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """Bytes that a node takes at its peak; memory is None where no policy is in it.

    Attributes:
        device: Memory of one device.
        rank: Memory of one process.
        machine: Memory of a machine: its processes, and once what they share.
        artifact: Disk of what it makes.
        work: Disk while the node runs: training states, rollouts so far.
        tables: Disk of the tokens that it trains on; they stay below `runs/work`.
    """

    device: Bounds | None = None
    rank: Bounds | None = None
    machine: Bounds | None = None
    artifact: Bounds
    work: Bounds
    tables: Bounds


def memory_of(config: NodeConfig) -> Footprint | None:
    """What training takes of a device; None = it is no training, or a family is unknown."""
    stage, model, hardware = config.stage, config.root.model, config.root.hardware
    if not isinstance(stage, TrainingStage) or not config.graders_known:
        return None
    memory = footprint(
        config.architecture,
        config.vocab_size,
        model.dtype,
        stage.optimization.optimizer.target,
        hardware,
        stage.frozen_copies(),
        lora_rank=model.adapter.rank if model.adapter else None,
        packed=config.work.trained is not None and config.work.trained.packed,
    )
    if memory is None:
        return None
    # What grades and what samples is whole on every device.
    copies = memory.copies + sum(
        weight_bytes(architecture, architecture["vocab_size"], dtype)
        for architecture, dtype in config.graders
    )
    has_copy = hardware.strategy in SHARDED or config.sampling_dtype != model.dtype
    of_sampling = max(stage.sampling_copies(), int(has_copy and config.work.written is not None))
    return replace(memory, copies=copies + of_sampling * config.sampling_weights)


def requirements(
    config: NodeConfig, memory: Footprint | None, record: Record | None, costs: Costs
) -> Requirements:
    """What a node needs.

    Args:
        config: The node.
        memory: Of `memory_of`.
        record: Of the artifact that is reused; None = it is to be made.
        costs: What artifacts of the store took.
    """
    if record is not None:
        nothing = Bounds.exactly(0)
        size = Bounds.exactly(file_bytes(record))
        return Requirements(artifact=size, work=nothing, tables=nothing)
    artifact, tables = _artifact(config, costs), _tables(config)
    work = _work(config, memory, artifact)
    is_known = config.is_known and config.graders_known
    if not is_known or (memory is None and not _samples_here(config)):
        return Requirements(artifact=artifact, work=work, tables=tables)
    device = _device(config, memory)
    rank = rank_bytes(_process(config, memory, device))
    hardware = config.root.hardware
    machine = machine_bytes(
        rank,
        config.ranks,
        hardware.accelerator == "cpu",
        tables,
        hardware.verifier_workers,
        hardware.verifier_memory_mb * 2**20,
    )
    return Requirements(
        device=device, rank=rank, machine=machine, artifact=artifact, work=work, tables=tables
    )


def _samples_here(config: NodeConfig) -> bool:
    return config.work.written is not None and config.decoder is not None


def _device(config: NodeConfig, memory: Footprint | None) -> Bounds:
    """The least is what is there between two steps, the most is of rows as long as they may be."""
    trained, written = config.work.trained, config.work.written
    by_vllm = config.work.engine == "vllm"
    sampling = 0.0 if written is None else _sampling_bytes(config, written)
    if memory is None:
        weights = config.sampling_weights
        if by_vllm and config.decoder is not None:
            return Bounds(weights / config.decoder.devices, sampling)
        return Bounds(weights, None if sampling is None else weights + sampling)
    states = memory.states
    if trained is None or sampling is None:
        return Bounds(states)
    training = memory.peak(_rows_at_once(trained, config) * trained.tokens) - states
    # Unless it sleeps, vLLM keeps what it has while the policy trains.
    beside = by_vllm and not config.root.hardware.sampling.sleep
    return Bounds(states, states + (training + sampling if beside else max(training, sampling)))


def _sampling_bytes(config: NodeConfig, written: Sequences) -> float | None:
    """Of a device: vLLM's whole share, else what is beside the weights; None = unknown."""
    decoder = config.decoder
    if decoder is None:
        return 0.0
    if config.work.engine == "hf":
        rows = min(decoder.rows, -(-written.rows // decoder.copies))
        of_token = cache_bytes(config.architecture, config.sampling_dtype)
        cache = _CACHE_ROOM * written.tokens * of_token
        return rows * (cache + _SAMPLED_LOGIT_BYTES * config.vocab_size)
    if decoder.cache_bytes is None:
        return None
    return (decoder.cache_bytes + config.sampling_weights) / decoder.devices


def _rows_at_once(rows: Sequences, config: NodeConfig) -> int:
    """Rows of one forward pass of one device."""
    hardware = config.root.hardware
    share = max(1, rows.rows_per_forward // hardware.world_size)
    return rows.sequences_per_row * min(share, hardware.micro_batch_size or share)


def _process(config: NodeConfig, memory: Footprint | None, device: Bounds) -> Process:
    written, hardware, model = config.work.written, config.root.hardware, config.root.model
    sampled = 0
    if written is not None:
        rows = written.rows_in_memory or written.rows
        if not isinstance(config.stage, TrainingStage):  # Each rank is given the shards of all.
            rows = min(written.rows, rows * config.ranks)
        sampled = rows * written.tokens
    loaded = config.sampling_weights
    if memory is not None:
        loaded = weight_bytes(config.architecture, config.vocab_size, model.dtype)
    return Process(
        on_cpu=hardware.accelerator == "cpu",
        device=device,
        loaded=loaded,
        copies=memory.copies if memory else 0,
        offloaded=memory.host / config.ranks if memory else 0,
        sampled_tokens=sampled,
        documents=_documents(config)[0] or 0,
    )


def _documents(config: NodeConfig) -> tuple[float | None, float | None]:
    """Documents of a corpus or of pairs that it trains on at most, and their tokens."""
    stage = config.stage
    if not isinstance(stage, TrainingStage) or not {Corpus, Preferences} & {*stage.consumes}:
        return 0, 0
    rows, tokens = stage.epoch_rows(input_rows(config.node)), stage.row_tokens_at_most()
    if rows is None:
        return None, None
    return rows * stage.sequences_per_row, None if tokens is None else rows * tokens


def _tables(config: NodeConfig) -> Bounds:
    documents, tokens = _documents(config)
    if documents == 0:
        return Bounds.exactly(0)
    return Bounds(0) if documents is None or tokens is None else table_bytes(documents, tokens)


def _artifact(config: NodeConfig, costs: Costs) -> Bounds:
    stage, written, model = config.stage, config.work.written, config.root.model
    if stage.produces is Policy:
        if not config.is_known:
            return Bounds(0)
        weights = weight_bytes(config.architecture, config.vocab_size, model.dtype)
        policy = policy_file_bytes(weights, config.vocab_size)
        keeps_last = isinstance(stage, TrainingStage) and stage.keep_last
        return policy + policy if keeps_last else policy
    if like := costs.expected(config.node, file_bytes, config.work.rows):
        return like
    if written is None:
        return Bounds(0)
    # Both rollouts of a pair.
    pairs = stage.output_rows(input_rows(config.node))
    rows = written.rows if pairs is None else 2 * pairs
    return rollout_file_bytes(rows, rows * written.tokens)


def _work(config: NodeConfig, memory: Footprint | None, artifact: Bounds) -> Bounds:
    """States of a training; of what only samples, the rollouts until they are an artifact."""
    stage, written, hardware = config.stage, config.work.written, config.root.hardware
    if not isinstance(stage, TrainingStage):
        if written is None:
            return Bounds(0, artifact.most)
        return rollout_file_bytes(written.rows, written.rows * written.tokens)
    if memory is None:
        return Bounds(0)
    optimization = stage.optimization
    target = optimization.optimizer.target
    state = state_bytes(memory, config.root.model.dtype, target, hardware.strategy)
    states = states_bytes(
        state,
        optimization.planned_steps,
        optimization.checkpoint_every_steps,
        optimization.keep_checkpoints,
    )
    if config.is_bound:  # So that there may be fewer steps.
        states = replace(states, least=0)
    if stage.weights != "last":
        # Those of each state, the best so far, and one that is being written.
        of_best = weight_bytes(config.architecture, config.vocab_size, config.root.model.dtype)
        states += Bounds(0, (optimization.keep_checkpoints + 2) * of_best)
    if written is None:
        return states
    rows = written.rows_in_memory or written.rows
    further = rollout_file_bytes(rows, rows * written.tokens)
    if config.work.engine == "vllm":
        further += Bounds(0, config.sampling_weights)
    return states + further
