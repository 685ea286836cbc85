"""Schema of the `dpo` stage."""

from dataclasses import dataclass

from omegaconf import MISSING

from reasoning_lab.schema import TrainingConfig, number, register_stage


@dataclass
class DPOConfig(TrainingConfig):
    """How far preferences may move the policy.

    Attributes:
        beta: How dearly the policy pays for leaving the reference.
        sft_weight: Weight of the chosen completions' mean next-token loss; 0 = plain DPO.
    """

    beta: float = number(MISSING, least=0.0)
    sft_weight: float = number(0.0, least=0.0)


register_stage("dpo", DPOConfig)
