"""Schema of the `dpo` stage."""

from dataclasses import dataclass

from omegaconf import MISSING

from reasoning_lab.config.fields import choice, number
from reasoning_lab.config.schema import TrainingConfig, register_stage
from reasoning_lab.types import Sequences


@dataclass
class DPOConfig(TrainingConfig):
    """How far preferences may move the policy.

    Attributes:
        loss: What is made of a pair; see `reasoning_lab.losses.dpo`.
        beta: How dearly the policy pays for leaving the reference.
        beta_end: Reached linearly with the last step; null = `beta` throughout.
        label_smoothing: The share of pairs whose labels are taken to be swapped.
        sft_weight: Weight of the chosen completions' mean next-token loss; 0 = preferences alone.
        max_tokens: Pairs of which a side has more, prompt and completion together, are left out;
            null = none is.
    """

    loss: str = choice("sigmoid", "sigmoid_norm", "ipo", "hinge", "apo_zero", "apo_down")
    beta: float = number(MISSING, least=1e-6)
    beta_end: float | None = number(None, least=1e-6)
    label_smoothing: float = number(0.0, least=0.0, most=0.5)
    sft_weight: float = number(0.0, least=0.0)
    max_tokens: int | None = number(None, least=2, when_set=True)

    def training_rows(self) -> Sequences | None:
        if self.max_tokens is None:
            return None
        size = self.optimization.batch_size
        return Sequences(2 * self.optimization.steps * size, self.max_tokens, size, each=2)


register_stage("dpo", DPOConfig)
