"""RL through vLLM in the trainer's process: the `rl` stage, and TRL's colocated mode.

    .venv-vllm/bin/python -m tests.benchmarks.pairs grpo_vllm

`make test-vllm` makes that environment. Completions end as in `grpo_ending`. TRL leaves the
precision of vLLM's weights to vLLM, which takes bfloat16, so ours does too; both policies train in
float32 and weigh tokens by the distance of the two. Each side opens its vLLM in its check and keeps
it. On a CPU ours has vLLM without compilation, and TRL with it, as neither asks the user; the time
of compiling is in no round.
"""

import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from reasoning_lab.config.hardware import HardwareConfig, SamplingHardwareConfig
from reasoning_lab.sampling.engine import Engine, OnProgress
from reasoning_lab.sampling.rollouts import RolloutSampler
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.training.stage import TrainingStage

from . import ours as our_sides
from . import peers
from .ours import TimedContext
from .work import Work
from .workload import ENDING_POLICY

KV_CACHE_GB = 2
OPEN_ENGINES: list[Engine] = []


class OpenEngineContext(TimedContext):
    """Keeps the first engine that it opens, also for later rounds."""

    def sampler_through(
        self,
        tokenizer: PreTrainedTokenizerBase | None,
        engine: Callable[[OnProgress], Engine],
        *arguments: Any,
        **options: Any,
    ) -> RolloutSampler:
        def open_engine(on_progress: OnProgress) -> Engine:
            if not OPEN_ENGINES:
                OPEN_ENGINES.append(engine(on_progress))
                # The process's end closes it.
                OPEN_ENGINES[0].close = lambda: None  # type: ignore[method-assign]
            return OPEN_ENGINES[0]

        return super().sampler_through(tokenizer, open_engine, *arguments, **options)


class OurColocated(our_sides.PolicyGradient):
    """The stage, as `rollout_engine=vllm` on one device has it."""

    def _stage(self, steps: int) -> TrainingStage:
        stage = super()._stage(steps)
        assert isinstance(stage, RLStage)
        return replace(stage, rollout_engine="vllm", rollout_dtype="bfloat16")

    def _context(self, run_folder: Path, data: Path) -> TimedContext:
        context = super()._context(run_folder, data)
        parts = {part.name: getattr(context, part.name) for part in fields(context)}
        sampling = SamplingHardwareConfig(kv_cache_gb=KV_CACHE_GB)
        return OpenEngineContext(**{**parts, "hardware": HardwareConfig(sampling=sampling)})


class TheirColocated(peers.PolicyGradient):
    """GRPOTrainer with `vllm_mode="colocate"`; one trainer, which is trained again each round."""

    def __init__(self, folder: Path) -> None:
        # Before vLLM is imported, what our engine has too.
        os.environ |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_CPU_KVCACHE_SPACE": str(KV_CACHE_GB),
        }
        super().__init__(folder, "grpo", 0, ENDING_POLICY)
        self._sampling = {"use_vllm": True, "vllm_mode": "colocate"}
        self._opened: tuple[Any, int, int] | None = None

    def check(self) -> Work:
        return self.round()

    def _open(self, suffix: str, epochs: int) -> tuple[Any, int, int]:
        if self._opened is None:
            self._opened = super()._open(suffix, epochs)
        return self._opened


def ours(folder: Path) -> OurColocated:
    return OurColocated(folder, ENDING_POLICY)


def peer(folder: Path) -> TheirColocated:
    return TheirColocated(folder)
