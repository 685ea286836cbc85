"""A policy as stages exchange it: a Hugging Face folder. Torch is imported when it is loaded."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reasoning_lab.graph.artifact import Artifact
from reasoning_lab.graph.recipe import BASE

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# The folder of the last weights in an artifact whose policy has the best.
LAST_WEIGHTS = "last"


@dataclass(frozen=True)
class Policy(Artifact):
    """A causal language model with its tokenizer.

    Attributes:
        is_base: True = the checkpoint that a recipe starts from; its path may be a hub id.
        revision: The hub commit of such a checkpoint.
    """

    kind = "policy"
    learned = True
    base_remedy = "set model.path to a checkpoint"

    is_base: bool = False
    revision: str | None = None

    @property
    def author(self) -> str:
        """Who its rollouts are said to be by: its fingerprint, or `base`."""
        return BASE if self.is_base else self.path.name

    def load(
        self, dtype: str, kernels: str = "fused", system_prompt: str | None = None
    ) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
        """The model and its tokenizer; see `reasoning_lab.models.policy.load_policy`."""
        from reasoning_lab.models.policy import load_policy

        return load_policy(
            self.path, dtype, self.revision, kernels=kernels, system_prompt=system_prompt
        )
