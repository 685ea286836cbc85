"""Memory of a process and of a machine, and bytes on disk, estimated from configs.

Every figure has a lower and an upper bound. The model's parts are exact. What a process takes
beside them was measured on a CPU; what CUDA adds to it is assumed. Text has no bound of its own:
a token is taken to be at most eight bytes of it. Left out: caches of the operating system.
"""

from dataclasses import dataclass

from reasoning_lab.models.bounds import Bounds

# A process that has imported torch, transformers and Lightning, with what it loads and leaves as it
# goes through all stages. Measured: 300 to 580 MB on a CPU. A GPU's upper bound is assumed.
PROCESS_ON_CPU = Bounds(0.25e9, 0.8e9)
PROCESS_ON_GPU = Bounds(0.25e9, 4e9)
# Pages of libraries that all processes of a machine share: 235 MB measured on a CPU, else assumed.
LIBRARIES_ON_CPU = Bounds(0.1e9, 0.4e9)
LIBRARIES_ON_GPU = Bounds(0.1e9, 6e9)
# Of a verifier's worker, and once more of the process that starts them; 110 MB measured.
_WORKER_BYTES = 0.15e9
# What measured peaks on a CPU lay above the estimate at most (tests/benchmarks/footprint.py).
_CPU_OVERHEAD = 1.15
# DeepSpeed's own factor for the working space of an offloaded state.
_OFFLOAD_OVERHEAD = 1.5
# A sampled token as Python objects: its id and its logprob in lists (40 and 32 bytes), its text,
# and its copy on the way between ranks.
_SAMPLED_TOKEN_BYTES = 100
# Arrays that plan what is trained on: measured at their peak.
_PLANNED_DOCUMENT_BYTES = 25
# A row of parquet: an id in eight bytes and as much text for each token; problem, answer and names.
_STORED_TOKEN_BYTES = 16
_STORED_ROW_BYTES = 8192
# An artifact's record, its metrics, the configs of a model; what a state holds besides tensors.
_SMALL_FILES_BYTES = 1e6
# A token of tokenizer.json with its merges: 44 to 77 of the models in conf/model.
_VOCABULARY_ENTRY_BYTES = 100
# A document of a token table besides its tokens: two numbers, two runs of its mask, two offsets,
# of four bytes each, and its share of a file's header.
_TABLE_DOCUMENT_BYTES = 28


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What one process of a stage has in memory.

    Attributes:
        on_cpu: True = the device's memory is the process's own.
        device: Bytes on its device.
        loaded: Bytes of the policy that it loads, whole, before it goes to the device.
        copies: Bytes of further policies.
        offloaded: Bytes of the optimizer's state that DeepSpeed keeps in memory.
        sampled_tokens: Most tokens of completions that it has at once.
        documents: Most documents that it plans steps of.
    """

    on_cpu: bool
    device: Bounds
    loaded: float = 0
    copies: float = 0
    offloaded: float = 0
    sampled_tokens: float = 0
    documents: float = 0


def rank_bytes(process: Process) -> Bounds:
    """Memory of one process.

    On a GPU the policy is in memory until the device has it, and once more where its file has
    another precision.
    """
    texts = (
        _SAMPLED_TOKEN_BYTES * process.sampled_tokens + _PLANNED_DOCUMENT_BYTES * process.documents
    )
    if process.on_cpu:
        device = Bounds(process.device.least, process.device.map(lambda b: _CPU_OVERHEAD * b).most)
        return PROCESS_ON_CPU + device + Bounds(0, texts)
    most = 2 * process.loaded + process.copies + _OFFLOAD_OVERHEAD * process.offloaded + texts
    return PROCESS_ON_GPU + Bounds(max(process.loaded, process.offloaded), most)


def machine_bytes(
    rank: Bounds,
    ranks: int,
    on_cpu: bool,
    tables: Bounds,
    verifier_workers: int,
    verifier_memory_bytes: float,
) -> Bounds:
    """Memory of a machine: its ranks, each with its verifier, and once the pages that they share.

    Args:
        rank: Of one process.
        ranks: Processes on the machine.
        on_cpu: Whether they compute on its processor.
        tables: Token tables that they read.
        verifier_workers: Of one process; they start when they are needed.
        verifier_memory_bytes: What a check may take.
    """
    verifier = (verifier_workers + 1) * _WORKER_BYTES + verifier_workers * verifier_memory_bytes
    libraries = LIBRARIES_ON_CPU if on_cpu else LIBRARIES_ON_GPU
    processes = (rank + Bounds(0, verifier)).map(lambda count: ranks * count)
    return processes + libraries + Bounds(0, tables.most)


def policy_file_bytes(weights: float, vocab_size: int) -> Bounds:
    """A policy's artifact: its weights, its tokenizer and small files."""
    return Bounds(weights, weights + _VOCABULARY_ENTRY_BYTES * vocab_size + _SMALL_FILES_BYTES)


def rollout_file_bytes(rows: float, tokens: float) -> Bounds:
    """`rows` rollouts with `tokens` tokens at most, of which at least the small files exist."""
    most = _STORED_ROW_BYTES * rows + _STORED_TOKEN_BYTES * tokens + _SMALL_FILES_BYTES
    return Bounds(0, most)


def table_bytes(documents: float, tokens: float) -> Bounds:
    """A token table of at most so many documents and tokens: four bytes a token."""
    return Bounds(0, 4 * tokens + _TABLE_DOCUMENT_BYTES * documents + _SMALL_FILES_BYTES)


def states_bytes(state: float, steps: int | None, every_steps: int, kept: int) -> Bounds:
    """All states on disk at once; None = it is not known how many steps there are.

    One is written after `every_steps` steps, or earlier by the clock. The newest `kept` are kept,
    and the one before them is removed when the next has been written.
    """
    least = 0 if steps is None else min(kept, steps // every_steps)
    most = kept + 1 if steps is None else min(kept + 1, steps)
    return Bounds(least * state, most * (state + _SMALL_FILES_BYTES))
