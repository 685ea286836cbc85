"""A policy as stages exchange it: a Hugging Face folder. No torch here until it is loaded."""

from dataclasses import dataclass

from reasoning_lab.graph.artifact import Artifact


@dataclass(frozen=True)
class Policy(Artifact):
    """A causal language model with its tokenizer."""

    kind = "policy"
    learned = True
    base_remedy = "set model.path to a checkpoint"
