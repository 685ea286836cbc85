"""Data as stages exchange it: a corpus of verified rollouts, and pairs of them."""

from dataclasses import dataclass
from pathlib import Path

from reasoning_lab.data.corpus import RolloutFile
from reasoning_lab.graph.artifact import Artifact


@dataclass(frozen=True)
class Corpus(Artifact):
    """Verified rollouts of a teacher; what trains is apart from what does not."""

    kind = "corpus"

    @property
    def accepted_file(self) -> Path:
        """Correct rollouts of training problems."""
        return self.path / "accepted.parquet"

    @property
    def rejected_file(self) -> Path:
        """All other rollouts of training problems."""
        return self.path / "rejected.parquet"

    @property
    def validation_file(self) -> Path:
        """Correct rollouts of validation problems."""
        return self.path / "validation.parquet"

    def accepted(self) -> RolloutFile:
        return RolloutFile(self.accepted_file)

    def rejected(self) -> RolloutFile:
        return RolloutFile(self.rejected_file)

    def validation(self) -> RolloutFile:
        return RolloutFile(self.validation_file)


@dataclass(frozen=True)
class Preferences(Artifact):
    """Pairs of a correct and an incorrect rollout of one problem, row by row."""

    kind = "preferences"

    @property
    def chosen_file(self) -> Path:
        """The correct side of each pair."""
        return self.path / "chosen.parquet"

    @property
    def rejected_file(self) -> Path:
        """The incorrect side of each pair."""
        return self.path / "rejected.parquet"

    @property
    def pairs_file(self) -> Path:
        """Who wrote each pair, how long its sides are and what verified it: JSON lines."""
        return self.path / "pairs.jsonl"

    def chosen(self) -> RolloutFile:
        return RolloutFile(self.chosen_file)

    def rejected(self) -> RolloutFile:
        return RolloutFile(self.rejected_file)
