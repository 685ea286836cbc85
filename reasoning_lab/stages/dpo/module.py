"""Rollout DPO: raise correct rollouts above incorrect ones of the same problem.

The frozen reference is the policy as it comes in: its logprobs are computed once, before
the first step, kept beside the checkpoints, and no second model stays in memory. An optional
next-token term on the chosen completions holds up their likelihood (Pang et al. 2024,
arXiv:2404.19733, equation 1).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.data.artifacts import Preferences
from reasoning_lab.data.tokens.automatic import length_table, token_limit
from reasoning_lab.data.tokens.batches import token_batch
from reasoning_lab.data.tokens.limits import drop_too_long
from reasoning_lab.data.tokens.table import TokenTable
from reasoning_lab.graph.stage import Metrics
from reasoning_lab.kernels.batch import TokenBatch
from reasoning_lab.kernels.logprobs import token_logprobs
from reasoning_lab.losses.dpo import DPOLoss, SideLogprobs, dpo_loss
from reasoning_lab.models.policy import context_tokens, sampling_device, to_device
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.stages.dpo.stage import DPOStage
from reasoning_lab.system.files import find_checksummed, rename_with_checksum
from reasoning_lab.system.ranks import (
    Peers,
    broadcast_from_rank0,
    rank,
    rank_slice,
    world_size,
)
from reasoning_lab.training.completion_limit import DOCUMENT_TOKENS
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.loop import (
    PolicyModule,
    best_metrics,
    fit,
    micro_batches_per_step,
    save_trained,
)
from reasoning_lab.training.micro_batches import MicroBatch, micro_batches
from reasoning_lab.training.step_plan import in_steps, step_plan
from reasoning_lab.training.validation import policy_validation
from reasoning_lab.types import UserError

# Read by the reference at once, where hardware names no micro-batch.
_REFERENCE_BATCH_PAIRS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PairBatch(MicroBatch):
    """B pairs with what the reference thinks of them.

    `tokens` are `2 B` documents: the chosen, then the rejected in the same order. `weight` counts
    the chosen's trained tokens.

    Attributes:
        reference_logprobs: `[2 B]` float32, summed over each completion.
    """

    reference_logprobs: Tensor


class DPOModule(PolicyModule):
    """A preference loss with an optional next-token term on the chosen completions."""

    def __init__(self, policy: PreTrainedModel, config: DPOStage, stage: str) -> None:
        super().__init__(policy, config.optimization, stage)
        self._config = config

    def training_step(self, batch: PairBatch, index: int) -> Tensor:
        config = self._config
        logprobs = token_logprobs(self.policy, batch.tokens)
        chosen, rejected = map(
            SideLogprobs,
            batch.tokens.sum_by_document(logprobs).chunk(2),
            batch.reference_logprobs.chunk(2),
            batch.tokens.trained_lengths.chunk(2),
        )
        beta = beta_at(self.global_step, config.optimization.steps, config.beta, config.beta_end)
        result = dpo_loss(config.loss, chosen, rejected, beta, config.label_smoothing)
        sft_loss = -chosen.policy.sum() / chosen.tokens.sum()
        loss = result.losses.mean() + config.sft_weight * batch.weight * sft_loss
        self.log_train(
            {
                "loss": loss.detach(),
                "dpo_loss": result.losses.detach().mean(),
                "sft_loss": batch.weight * sft_loss.detach(),
                "beta": beta,
                **preference_metrics(chosen, rejected, result),
            }
        )
        return loss


def beta_at(step: int, steps: int, start: float, end: float | None) -> float:
    """Linear from `start` at step 0 to `end` at the last one; constant without an `end`."""
    if end is None or steps == 1:
        return start
    return start + (end - start) * step / (steps - 1)


def preference_metrics(
    chosen: SideLogprobs, rejected: SideLogprobs, result: DPOLoss
) -> dict[str, Tensor]:
    """What is logged of a batch of pairs; means over them.

    `kl_to_reference` is the mean of log policy - log reference a token, over both sides: an
    estimate of the divergence as far as the completions are the policy's own. `length_bias` is the
    correlation of a pair's reward margin with how many tokens longer its chosen side is; 0 where
    either doesn't vary.
    """
    margins = result.chosen_rewards - result.rejected_rewards
    ratios = (chosen.ratio() + rejected.ratio()).detach()
    tokens = chosen.tokens + rejected.tokens
    longer = (chosen.tokens - rejected.tokens).float()
    return {
        "margin": margins.mean(),
        "accuracy": (margins > 0).float().mean(),
        "chosen_reward": result.chosen_rewards.mean(),
        "rejected_reward": result.rejected_rewards.mean(),
        "chosen_logprobs": chosen.policy.detach().mean(),
        "rejected_logprobs": rejected.policy.detach().mean(),
        "kl_to_reference": ratios.sum() / tokens.sum(),
        "chosen_longer_tokens": longer.mean(),
        "length_bias": _correlation(margins, longer),
    }


def _correlation(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's, of two `[B]`; 0 where either is constant."""
    one, other = one - one.mean(), other - other.mean()
    size = one.norm() * other.norm()
    return torch.where(size > 0, (one * other).sum() / size.clamp(min=1e-12), 0.0)


def run(
    config: DPOStage, context: StageContext, policy: Policy, preferences: Preferences
) -> Metrics:
    """Write the preference-optimized policy."""
    student, tokenizer = context.load_student(policy)
    longest = context_tokens(student)
    pairs = fitting_pairs(preferences, tokenizer, config.max_tokens, context, longest)
    placed = to_device(student, sampling_device(context.hardware))
    size = context.hardware.micro_batch_size or _REFERENCE_BATCH_PAIRS
    with context.progress.task("pair", len(pairs), "reference logprobs") as task:
        reference = stored_reference_logprobs(placed, pairs, context.work_dir, size, task.advance)
    tokens = pairs.chosen.lengths + pairs.rejected.lengths
    optimization = in_steps(config.optimization, context.name, len(pairs), tokens.mean(), "pairs")
    config = replace(config, optimization=optimization)
    plan = step_plan(pairs.lengths, optimization, context.seed)

    def make(rows: Int[np.ndarray, " B"], weight: float) -> PairBatch:
        return PairBatch(
            tokens=pairs.batch(rows), weight=weight, reference_logprobs=reference[rows].T.flatten()
        )

    module = DPOModule(student, config, context.name)
    parts = micro_batches_per_step(optimization.batch_size, context.hardware)
    batches = micro_batches(plan, pairs.chosen.trained_tokens, parts, make)
    callbacks = policy_validation(context, student, tokenizer)
    train_s = fit(module, batches, context, optimization, callbacks)
    save_trained(module, tokenizer, context)
    return {
        "train_tokens": int(tokens[plan].sum()),
        "train_s": train_s,
        "pairs": len(pairs),
        DOCUMENT_TOKENS: length_table(pairs.lengths),
        "planned_rows": optimization.planned_rows,
        **best_metrics(module),
    }


@dataclass(frozen=True, slots=True)
class Pairs:
    """P pairs as tokens; document i of both tables is one pair."""

    chosen: TokenTable
    rejected: TokenTable

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def lengths(self) -> Int[np.ndarray, " P"]:
        """Tokens of the longer side."""
        lengths: np.ndarray = np.maximum(self.chosen.lengths, self.rejected.lengths)
        return lengths

    def select(self, indices: Int[np.ndarray, " K"]) -> "Pairs":
        """Some of the pairs."""
        return Pairs(self.chosen.select(indices), self.rejected.select(indices))

    def batch(self, indices: Int[np.ndarray, " B"]) -> TokenBatch:
        """`2 B` documents: every chosen, then every rejected."""
        return token_batch([side[row] for side in (self.chosen, self.rejected) for row in indices])


def fitting_pairs(
    preferences: Preferences,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int | str | None,
    context: StageContext,
    longest_tokens: int | None = None,
) -> Pairs:
    """The pairs of which no side is empty or too long; the ledger counts the others.

    A completion that was cut off before its first token has nothing to learn from. The model reads
    `longest_tokens` at most, None = any, which matters where `max_tokens` is `auto`.

    Raises:
        UserError: There is none, or none is left.
    """
    sides, ledger = (preferences.chosen(), preferences.rejected()), context.ledger
    pairs = Pairs(*(context.documents(side, tokenizer) for side in sides))
    if not len(pairs):
        raise UserError(
            f"stages.{context.name}: the preferences have no pair; sample more rollouts for them"
        )
    ledger.take("pairs", len(pairs))
    written = (pairs.chosen.trained_tokens > 0) & (pairs.rejected.trained_tokens > 0)
    empty = sides[0].select(np.flatnonzero(~written)).problems()
    origins = [problem.origin for problem in empty]
    ledger.drop("pairs", "empty", len(origins), origins=origins)
    chosen = sides[0].select(np.flatnonzero(written))
    pairs = pairs.select(np.flatnonzero(written))
    key = f"stages.{context.name}.max_tokens"
    limit = None
    if len(pairs):
        limit = token_limit(max_tokens, length_table(pairs.lengths), longest_tokens, key)
    fitting = drop_too_long(chosen, pairs.lengths, limit, "pairs", ledger, key)
    return pairs.select(fitting)


def stored_reference_logprobs(
    reference: PreTrainedModel,
    pairs: Pairs,
    folder: Path,
    batch_pairs: int,
    on_progress: Callable[[int], None] = lambda pairs: None,
) -> Tensor:
    """`reference_logprobs`, read again where a run goes on after a kill."""
    file = broadcast_from_rank0(lambda: find_checksummed(folder, "reference"))
    if file is not None:
        return load_file(file)["logprobs"]
    logprobs = reference_logprobs(reference, pairs, batch_pairs, on_progress)
    if rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / "reference.draft"
        save_file({"logprobs": logprobs}, draft)
        rename_with_checksum(draft, "reference")
    return logprobs


@torch.no_grad()
def reference_logprobs(
    reference: PreTrainedModel,
    pairs: Pairs,
    batch_pairs: int,
    on_progress: Callable[[int], None] = lambda pairs: None,
) -> Tensor:
    """`[pairs, 2]` float32: summed logprobs of chosen and rejected; ranks share one pass.

    Pairs are read sorted by length, `batch_pairs` at a time; `on_progress` is called with the
    number of pairs that all ranks have read since its last call.
    """
    order = np.argsort(pairs.lengths, kind="stable")
    logprobs = torch.zeros(len(pairs), 2)
    for start in rank_slice(range(0, len(pairs), batch_pairs)):
        rows = order[start : start + batch_pairs]
        tokens = pairs.batch(rows).to(reference.device)
        sums = tokens.sum_by_document(token_logprobs(reference, tokens))
        logprobs[rows] = torch.stack(sums.chunk(2), dim=1).float().cpu()
        on_progress(len(rows) * world_size())
    # Each pair is one rank's, and 0 on the others.
    return torch.stack(Peers().all_gather(logprobs)).sum(dim=0)
