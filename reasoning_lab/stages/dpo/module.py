"""Rollout DPO: raise correct rollouts above incorrect ones of the same problem.

The frozen reference is the policy as it comes in: its logprobs are computed once, before
the first step, and no second model is kept. An optional next-token term on the chosen
completions holds up their likelihood (Pang et al. 2024, arXiv:2404.19733, equation 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from reasoning_lab.data.batches import Example, padded_batch, step_batches
from reasoning_lab.data.corpus import read_rollouts
from reasoning_lab.logprobs import TokenBatch, token_logprobs
from reasoning_lab.losses.dpo import dpo_loss
from reasoning_lab.models.policy import save_policy
from reasoning_lab.models.tokenizer import examples_of
from reasoning_lab.stages.base import (
    Metrics,
    OptimizerFactory,
    PolicyModule,
    Schedule,
    StageContext,
    Steps,
    accumulation_of,
    fit,
    optimizer_of,
    schedule_of,
)
from reasoning_lab.stages.dpo.config import DPOConfig

_REFERENCE_BATCH_PAIRS = 32


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Pairs with what the reference thinks of them.

    Attributes:
        tokens: `2 B` rows: the chosen, then the rejected in the same order.
        reference_logprobs: `[2 B]` float32, summed over each completion.
    """

    tokens: TokenBatch
    reference_logprobs: Tensor

    def to(self, device: torch.device) -> "PairBatch":
        return PairBatch(self.tokens.to(device), self.reference_logprobs.to(device))


class DPOModule(PolicyModule):
    """Sigmoid DPO with an optional next-token term on the chosen completions."""

    def __init__(
        self,
        policy: PreTrainedModel,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        beta: float,
        sft_weight: float,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self._beta = beta
        self._sft_weight = sft_weight

    def training_step(self, batch: PairBatch, index: int) -> Tensor:
        chosen, rejected = token_logprobs(self.policy, batch.tokens).sum(1).chunk(2)
        reference_chosen, reference_rejected = batch.reference_logprobs.chunk(2)
        losses, margins = dpo_loss(
            chosen, rejected, reference_chosen, reference_rejected, self._beta
        )
        chosen_tokens = batch.tokens.completion_mask.chunk(2)[0].sum()
        sft_loss = -chosen.sum() / chosen_tokens
        loss = losses.mean() + self._sft_weight * sft_loss
        self.log_train(
            {
                "loss": loss.detach(),
                "dpo_loss": losses.detach().mean(),
                "sft_loss": sft_loss.detach(),
                "margin": margins.mean(),
                "accuracy": (margins > 0).float().mean(),
                "chosen_logprobs": chosen.detach().mean(),
                "rejected_logprobs": rejected.detach().mean(),
            }
        )
        return loss


def run(config: DPOConfig, context: StageContext) -> Metrics:
    """Write the preference-optimized policy."""
    policy, tokenizer = context.load_policy()
    preferences = context.inputs["preferences"]
    chosen = examples_of(tokenizer, read_rollouts(preferences / "chosen.parquet"))
    rejected = examples_of(tokenizer, read_rollouts(preferences / "rejected.parquet"))
    pairs = list(zip(chosen, rejected, strict=True))
    reference = reference_logprobs(policy, pairs, tokenizer.pad_token_id)
    optimization = config.optimization
    accumulation = accumulation_of(optimization.batch_size, context.hardware.micro_batch_size)
    lengths = [max(one.length, other.length) for one, other in pairs]
    plan = step_batches(lengths, optimization.batch_size, optimization.steps, context.seed)
    size = optimization.batch_size // accumulation
    parts = [step[at : at + size] for step in plan for at in range(0, len(step), size)]

    def collate(indices: Sequence[int]) -> PairBatch:
        tokens = pair_tokens([pairs[index] for index in indices], tokenizer.pad_token_id)
        return PairBatch(tokens, reference[list(indices)].T.flatten())

    module = DPOModule(
        policy,
        optimizer_of(optimization, context.name),
        schedule_of(optimization),
        config.beta,
        config.sft_weight,
    )
    train_s = fit(module, Steps(parts, collate), context, optimization)
    save_policy(policy, tokenizer, context.out_dir)
    tokens = sum(pairs[row][0].length + pairs[row][1].length for rows in plan for row in rows)
    return {"train_tokens": tokens, "train_s": train_s, "pairs": len(pairs)}


def pair_tokens(pairs: Sequence[tuple[Example, Example]], pad_id: int) -> TokenBatch:
    """`2 B` rows: every chosen, then every rejected."""
    rows = [chosen for chosen, _ in pairs] + [rejected for _, rejected in pairs]
    return padded_batch(rows, pad_id)


@torch.no_grad()
def reference_logprobs(
    reference: PreTrainedModel, pairs: Sequence[tuple[Example, Example]], pad_id: int
) -> Tensor:
    """`[pairs, 2]` float32: summed logprobs of chosen and rejected, in one pass."""
    found = []
    for start in range(0, len(pairs), _REFERENCE_BATCH_PAIRS):
        tokens = pair_tokens(pairs[start : start + _REFERENCE_BATCH_PAIRS], pad_id)
        sums = token_logprobs(reference, tokens.to(reference.device)).sum(1)
        found.append(torch.stack(sums.chunk(2), dim=1).cpu())
    return torch.cat(found)
