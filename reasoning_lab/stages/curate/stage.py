"""The `curate` stage: it removes from a corpus what should not be trained on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.data.curation.step import build_steps
from reasoning_lab.data.sources.readers import read_prompts
from reasoning_lab.system.files import sha256
from reasoning_lab.training.stage import LabStage
from reasoning_lab.types import UserError


@dataclass
class CurateStage(LabStage):
    """Curation of a corpus by a list of steps.

    Attributes:
        steps: `_target_` and options of each step of `reasoning_lab.data`, in order; null
            leaves a step out.
        files: JSONL files of benchmark problems (`prompt`, `problem` or `question`) that the
            corpus is decontaminated against, besides the recipe's benchmarks. Their content is
            identity, their paths are not.
    """

    name = "curate"
    implementation = "reasoning_lab.stages.curate.produce.run"
    consumes = (Corpus,)
    produces = Corpus
    reads = ("data", "benchmarks")
    version = 2

    steps: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=list, metadata={"placement": True})

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"files": [sha256(Path(path)) for path in self.files]}

    def check(self, key: str, hardware: HardwareConfig) -> None:
        """Refuse steps that cannot be built and files that cannot be read."""
        if not build_steps(self.steps, f"{key}.steps"):
            raise UserError(f"{key}.steps: there is no step; keep one, or leave the stage out")
        for path in self.files:
            read_prompts(path, f"{key}.files")

    def output_rows(self, input_rows: Mapping[str, int | None]) -> int | None:
        """Nothing is left out."""
        return input_rows.get(Corpus.kind)
