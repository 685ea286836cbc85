"""Policies that read the rollouts of an update and do not learn: the reference, and a teacher."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from reasoning_lab.kernels.batch import TokenBatch
from reasoning_lab.kernels.logprobs import token_logprobs


class FrozenPolicy:
    """A policy that does not learn, whole on every rank."""

    def __init__(self, policy: PreTrainedModel) -> None:
        self._model = policy.eval().requires_grad_(False)

    @torch.no_grad()
    def logprobs(self, tokens: TokenBatch, temperature: float) -> Tensor:
        """`[K]` float32, at the temperature that sampled."""
        self._model.to(tokens.input_ids.device)
        return token_logprobs(self._model, tokens, temperature)


@dataclass(frozen=True, slots=True)
class Teacher:
    """What grades tokens in on-policy distillation.

    Attributes:
        policy: Its tokens are those of the policy that learns.
        reward_weight: Of the advantages of rewards, beside its own.
    """

    policy: FrozenPolicy
    reward_weight: float
