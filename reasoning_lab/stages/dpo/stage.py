"""The `dpo` stage: direct preference optimization on verified pairs (paper, step 3)."""

from collections.abc import Mapping
from dataclasses import dataclass

from omegaconf import MISSING

from reasoning_lab.config.fields import AUTO, choice, number
from reasoning_lab.data.artifacts import Preferences
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.training.stage import OfflineStage


@dataclass
class DPOStage(OfflineStage):
    """How far preferences may move the policy.

    Attributes:
        loss: What is made of a pair; see `reasoning_lab.losses.dpo`.
        beta: How strongly the policy is held to the reference: the higher, the closer.
        beta_end: Reached linearly with the last step; null = `beta` throughout.
        label_smoothing: The share of pairs whose labels are taken to be swapped.
        sft_weight: Weight of the chosen completions' mean next-token loss; 0 = preferences alone.
        max_tokens: Pairs of which a side has more, prompt and completion together, are left out;
            null = none is, `auto` = as for `row_tokens` of `midtrain`.
    """

    name = "dpo"
    implementation = "reasoning_lab.stages.dpo.module.run"
    consumes = (Policy, Preferences)
    produces = Policy
    reads = ("model",)
    version = 2
    sequences_per_row = 2

    loss: str = choice("sigmoid", "sigmoid_norm", "ipo", "hinge", "apo_zero", "apo_down")
    beta: float = number(MISSING, least=1e-6)
    beta_end: float | None = number(None, least=1e-6)
    label_smoothing: float = number(0.0, least=0.0, most=0.5)
    sft_weight: float = number(0.0, least=0.0)
    max_tokens: int | str | None = number(None, least=2, when_set=True, words=[AUTO])

    def epoch_rows(self, input_rows: Mapping[str, int | None]) -> int | None:
        return input_rows.get(Preferences.kind)

    def row_tokens_at_most(self) -> int | None:
        tokens = self.max_tokens
        return None if tokens is None or isinstance(tokens, str) else 2 * tokens
