"""What a side reports of a round, and the sides of each pair."""

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

CHECK_STEPS = 2


@dataclass(frozen=True)
class Work:
    """One round of one side.

    Attributes:
        units: Amount of work, in the pair's unit.
        seconds: Wall time of the work.
        cpu_seconds: CPU time of this process, which a busy machine distorts less.
        tokens: Trained on or written, padding aside.
        losses: Of each step; none where nothing is trained.
        flops: Of the products that the work needs, however it is done; 0 = not estimated.
        read_bytes: Weights, keys and values that decoding has to read; 0 = not estimated.
    """

    units: float
    seconds: float
    cpu_seconds: float
    tokens: int
    losses: tuple[float, ...] = ()
    flops: float = 0.0
    read_bytes: float = 0.0


class Clock:
    """Measures time from its construction."""

    def __init__(self) -> None:
        self._started, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Seconds since then, and CPU seconds of this process."""
        return time.perf_counter() - self._started, time.process_time() - self._cpu


class Side(Protocol):
    """One side of a pair, ready to work."""

    def check(self) -> Work:
        """A little of the work, whose results must be equal on both sides; it also warms up.

        Of training it is `CHECK_STEPS` steps on one batch: the first loss before any update, the
        second after one.
        """
        ...

    def round(self) -> Work: ...


@dataclass(frozen=True)
class Pair:
    """Ours and a peer's way to the same work.

    Attributes:
        ours: Import path of the function that builds our side from a workload's folder.
        peer: The same for the peer.
        peer_name: What the peer is.
        unit: Of `Work.units` a second.
        targets: Ratio to reach, by size, None = there is none; a size that is missing is not
            measured.
        package: Without it nothing is measured.
    """

    ours: str
    peer: str
    peer_name: str
    unit: str
    targets: dict[str, float | None]
    package: str | None = None

    @property
    def is_possible(self) -> bool:
        return self.package is None or find_spec(self.package) is not None


_OURS, _TRL = "tests.benchmarks.pairs.ours", "tests.benchmarks.pairs.peers"
_VLLM = "tests.benchmarks.pairs.distillation"
_COLOCATED = "tests.benchmarks.pairs.colocated"
_GRPO = Pair(
    f"{_OURS}.grpo",
    f"{_TRL}.policy_gradient",
    "TRL GRPOTrainer",
    "completions/s",
    {"tiny": 2.5, "30m": 2.0},
)
PAIRS = {
    "midtrain": Pair(
        f"{_OURS}.midtrain",
        f"{_TRL}.packed",
        "TRL SFTTrainer, packing=True",
        "tokens/s",
        {"tiny": 2.2, "30m": 2.5},
    ),
    "sft": Pair(
        f"{_OURS}.sft", f"{_TRL}.varied", "TRL SFTTrainer", "tokens/s", {"tiny": 2.5, "30m": 4.5}
    ),
    "dpo": Pair(
        f"{_OURS}.dpo",
        f"{_TRL}.preferences",
        "TRL DPOTrainer",
        "pairs/s",
        {"tiny": 2.5, "30m": 4.0},
    ),
    "grpo": _GRPO,
    "grpo_ending": replace(
        _GRPO, ours=f"{_OURS}.grpo_ending", peer=f"{_TRL}.policy_gradient_ending"
    ),
    "generation": Pair(
        f"{_OURS}.generation",
        f"{_TRL}.generation",
        "transformers.generate",
        "completions/s",
        {"tiny": 2.5, "30m": 1.8},
    ),
    "verification": Pair(
        f"{_OURS}.verification",
        f"{_TRL}.verification",
        "math-verify in a loop",
        "answers/s",
        {"tiny": 1.8},
    ),
    "distillation": Pair(
        f"{_VLLM}.ours",
        f"{_VLLM}.peer",
        "vLLM and math-verify in a loop",
        "completions/s",
        {"tiny": None, "30m": None},
        package="vllm",
    ),
    "grpo_vllm": Pair(
        f"{_COLOCATED}.ours",
        f"{_COLOCATED}.peer",
        "TRL GRPOTrainer, colocated vLLM",
        "completions/s",
        {"tiny": None, "30m": None},
        package="vllm",
    ),
}


def side_of(path: str, folder: Path) -> Side:
    """The side that `path` names."""
    module, _, name = path.rpartition(".")
    factory: Callable[[Path], Side] = getattr(importlib.import_module(module), name)
    return factory(folder)
