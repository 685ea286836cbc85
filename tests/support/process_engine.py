"""An engine without a model, which dies on demand; `EngineProcess` runs it in another process."""

import os
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.types import Completion, Prompt, UserError


@dataclass
class WeighingEngine:
    """Its completions say what they were made of: the prompt, the seed and the weights' sums.

    Attributes:
        diary: A line is added for each engine that is built, with its process's id.
        fatal: A file; while it is there, a request takes a character from it and dies.
    """

    diary: Path
    fatal: Path
    sums: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with self.diary.open("a") as lines:
            lines.write(f"{os.getpid()}\n")
        if self.diary.name == "refused":
            raise UserError("engine.model: there is none")
        if self.diary.name == "killed":
            os.kill(os.getpid(), signal.SIGKILL)

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        left = self.fatal.read_text() if self.fatal.exists() else ""
        if left:
            self.fatal.write_text(left[1:])
            if left[0] == "k":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("a kernel failed")
        if prompts[0] == "refuse":
            raise UserError("no such prompt")
        if prompts[0] == "hang":
            time.sleep(600)
        return [
            Completion([seed], f"{prompt} {sorted(self.sums.items())}")
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]

    def extend(
        self,
        prompts: Sequence[Prompt],
        started: Sequence[Completion],
        sampling: Sampling,
        seeds: Sequence[int],
        most_tokens: int,
    ) -> list[Completion]:
        return [
            Completion([*one.token_ids, *[seed] * most_tokens], one.text)
            for one, seed in zip(started, seeds, strict=True)
        ]

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        self.sums = {name: float(tensor.double().sum()) for name, tensor in weights}

    def close(self) -> None:
        pass
