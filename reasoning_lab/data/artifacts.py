"""Data as stages exchange it: a corpus of verified rollouts, and pairs of them."""

from dataclasses import dataclass

from reasoning_lab.graph.artifact import Artifact


@dataclass(frozen=True)
class Corpus(Artifact):
    """Verified rollouts of a teacher."""

    kind = "corpus"


@dataclass(frozen=True)
class Preferences(Artifact):
    """Pairs of a correct and an incorrect rollout of one problem."""

    kind = "preferences"
