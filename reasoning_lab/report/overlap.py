"""How many prompts of a stage were in what its policy had been trained on before."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from reasoning_lab.data.trained_prompts import TrainedPrompts
from reasoning_lab.graph.artifact import Artifact
from reasoning_lab.graph.record import Record


@dataclass(frozen=True, slots=True)
class PromptOverlap:
    """Prompts of a stage that earlier stages trained on, or a twin of theirs.

    Attributes:
        prompts: Distinct prompts of the stage.
        seen: Those that any earlier stage has.
        by_stage: Earlier stage to those that it has.
    """

    prompts: int
    seen: int
    by_stage: Mapping[str, int]

    def sentence(self, name: str) -> str:
        """It in words; `name` is the stage's."""
        listed = ", ".join(f"{count:,} by {stage}" for stage, count in self.by_stage.items())
        counts = f"{self.seen:,} were trained on before" + (f": {listed}" if listed else "")
        return f"Of {self.prompts:,} prompts of {name}, {counts}."


def prompt_overlap(record: Record) -> PromptOverlap | None:
    """Which prompts of an artifact its ancestors have; None = it drew none, or is the first."""
    prompts = TrainedPrompts.read(record.path)
    ancestors = [one for one in Artifact(record.path).ancestors() if one.path != record.path]
    if not len(prompts) or not ancestors:
        return None
    seen = np.zeros(len(prompts), bool)
    by_stage: dict[str, int] = {}
    for ancestor in ancestors:
        shared = prompts.in_common(TrainedPrompts.read(ancestor.path))
        seen |= shared
        if shared.any():
            by_stage[ancestor.stage] = by_stage.get(ancestor.stage, 0) + int(shared.sum())
    return PromptOverlap(len(prompts), int(seen.sum()), by_stage)
