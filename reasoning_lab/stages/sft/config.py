"""Schema of the `sft` stage."""

from dataclasses import dataclass

from omegaconf import MISSING

from reasoning_lab.config.fields import at_least, number
from reasoning_lab.config.problems import CorpusSelection, DocumentLimit
from reasoning_lab.config.schema import TrainingConfig, register_stage
from reasoning_lab.types import Sequences


@dataclass
class SFTConfig(TrainingConfig):
    """Which accepted rollouts are learned from.

    Attributes:
        levels: Difficulty levels of the subset.
        count: Its most examples.
        max_tokens: Examples with more, prompt and completion together, are left out of it; null =
            none is.
    """

    levels: list[int] = MISSING
    count: int = at_least(1)
    max_tokens: int | None = number(None, least=2, when_set=True)

    def corpus_selections(self, key: str) -> list[CorpusSelection]:
        return [CorpusSelection(f"{key}.levels", self.levels)]

    def document_limit(self, key: str) -> DocumentLimit | None:
        if self.max_tokens is None:
            return None
        return DocumentLimit(f"{key}.max_tokens", self.max_tokens)

    def training_rows(self) -> Sequences | None:
        if self.max_tokens is None:
            return None
        size = self.optimization.batch_size
        return Sequences(self.optimization.steps * size, self.max_tokens, size)


register_stage("sft", SFTConfig)
