"""One update from a step's rollouts: the same, however it is cut into micro-batches."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.data.tokens.batches import completion_batch
from reasoning_lab.kernels.batch import TokenBatch
from reasoning_lab.kernels.logprobs import token_entropies, token_logprobs
from reasoning_lab.losses.policy_gradient import GRPOLoss, KLTerm, grpo_loss, importance_weights
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.stages.rl.records import RewardedGroup, TrainingRow
from reasoning_lab.stages.rl.rollouts import training_rows
from reasoning_lab.stages.rl.stage import MICRO_BATCH_ROWS, RLStage
from reasoning_lab.system.ranks import Peers, rank_slice, world_size
from reasoning_lab.training.loop import PolicyModule
from reasoning_lab.training.micro_batches import MicroBatch
from reasoning_lab.training.strategies import backward, clipped_step
from reasoning_lab.types import Example, Rollout

# Read for the entropy of a step: a few percent of the work of its update.
_ENTROPY_ROLLOUTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutBatch(MicroBatch):
    """Some of an update's rollouts, a document each, of K trained tokens together.

    Attributes:
        rollout_logprobs: `[K]` float32, the engine's.
        advantages: `[K]` float32, of each token's rollout.
        weights: `[K]` float32, of each token in the update's loss.
    """

    rollout_logprobs: Tensor
    advantages: Tensor
    weights: Tensor

    def untrained(self) -> "RolloutBatch":
        """The same documents, of which no token is trained."""
        tokens = replace(self.tokens, loss_mask=torch.zeros_like(self.tokens.loss_mask))
        nothing = self.weights[:0]
        return RolloutBatch(
            tokens=tokens, rollout_logprobs=nothing, advantages=nothing, weights=nothing
        )


def rollout_batches(
    groups: Sequence[RewardedGroup],
    tokenizer: PreTrainedTokenizerBase,
    config: RLStage,
    rows: int | None,
    device: torch.device,
) -> list[RolloutBatch]:
    """The rollouts that train, sorted by length and cut up.

    Args:
        groups: All of the update's that train, with their advantages.
        tokenizer, config: The policy's and the stage's.
        rows: Rollouts a micro-batch; None = 32, so that little is padding. Fewer where some rank
            would have none.
        device: Where they go.
    """
    trained = sorted(training_rows(groups, tokenizer, config), key=lambda row: row.example.length)
    size = max(1, min(rows or MICRO_BATCH_ROWS, -(-len(trained) // world_size())))
    return [
        _rollout_batch(trained[start : start + size]).to(device)
        for start in range(0, len(trained), size)
    ]


def rank_batches(batches: Sequence[RolloutBatch]) -> list[RolloutBatch]:
    """This rank's micro-batches, as many as every other's: idle ones train nothing."""
    most = -(-len(batches) // world_size())
    of_rank = list(rank_slice(batches))
    return of_rank + [batches[0].untrained()] * (most - len(of_rank))


def _rollout_batch(rows: Sequence[TrainingRow]) -> RolloutBatch:
    logprobs = [value for row in rows for value in row.rollout.completion.logprobs]
    trained_tokens = torch.tensor([len(row.example.completion_ids) for row in rows])

    def of_tokens(of_rollouts: Sequence[float]) -> Tensor:
        return torch.tensor(of_rollouts).repeat_interleave(trained_tokens)

    return RolloutBatch(
        tokens=completion_batch([row.example for row in rows]),
        rollout_logprobs=torch.tensor(logprobs),
        advantages=of_tokens([row.advantage for row in rows]),
        weights=of_tokens([row.token_weight for row in rows]),
    )


def entropy(
    policy: PreTrainedModel,
    rollouts: Sequence[Rollout],
    tokenizer: PreTrainedTokenizerBase,
    rows: int | None,
    device: torch.device,
) -> float:
    """The policy's entropy at temperature 1, in nats a token, over some of a step's rollouts.

    Args:
        policy: Every rank computes the same.
        rollouts: All that the step drew, of which a few are read, evenly spread.
        tokenizer, device: The policy's.
        rows: Rollouts a forward pass; None = all that are read.
    """
    count = min(_ENTROPY_ROLLOUTS, len(rollouts))
    read = [rollouts[number * len(rollouts) // count] for number in range(count)]
    prompts = prompt_tokens(tokenizer, [rollout.problem.model_prompt for rollout in read])
    examples = [
        Example(prompt, rollout.completion.token_ids)
        for prompt, rollout in zip(prompts, read, strict=True)
    ]
    size = rows or count
    total = 0.0
    for start in range(0, count, size):
        tokens = completion_batch(examples[start : start + size]).to(device)
        total += float(token_entropies(policy, tokens).sum())
    return total / max(sum(len(rollout.completion.token_ids) for rollout in read), 1)


class Reference:
    """The policy as it came in, kept to tell how far the one that learns has gone."""

    def __init__(self, policy: PreTrainedModel) -> None:
        self._model = copy.deepcopy(policy).eval().requires_grad_(False)

    @torch.no_grad()
    def logprobs(self, tokens: TokenBatch, temperature: float) -> Tensor:
        """`[K]`, at the temperature that sampled."""
        self._model.to(tokens.input_ids.device)
        return token_logprobs(self._model, tokens, temperature)


class Tally:
    """Sums over the trained tokens of all ranks, and what is logged of them."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._tokens = 0
        self._sums: dict[str, Tensor] = {}
        self._mismatch_max = 0.0

    def add(self, result: GRPOLoss) -> None:
        self._tokens += len(result.clipped_low)
        self._sum("loss", result.loss.detach())
        self._sum("clip_low_frac", result.clipped_low.sum())
        self._sum("clip_high_frac", result.clipped_high.sum())
        if result.kl_to_reference is not None:
            self._sum("kl_to_reference", result.kl_to_reference.sum())

    def add_mismatch(self, batch: RolloutBatch, policy_logprobs: Tensor) -> None:
        """How far the trainer is from the engine, at the weights that sampled."""
        mismatch = (policy_logprobs - batch.rollout_logprobs).abs()
        self._sum("mismatch_mean", mismatch.sum())
        if len(mismatch):
            self._mismatch_max = max(self._mismatch_max, float(mismatch.max()))

    def values(self, epochs: int) -> dict[str, float]:
        """Means a token; `loss` is the mean over the epochs."""
        rank_sums = {key: float(value) for key, value in self._sums.items()}
        of_ranks = self._peers.all_gather((self._tokens, rank_sums, self._mismatch_max))
        tokens = sum(count for count, _, _ in of_ranks)
        sums = {key: sum(values[key] for _, values, _ in of_ranks) for key in rank_sums}
        a_token = {key: value / tokens for key, value in sums.items()}
        return a_token | {
            "loss": sums["loss"] / epochs,
            "mismatch_mean": a_token["mismatch_mean"] * epochs,
            "mismatch_max": max(largest for _, _, largest in of_ranks),
        }

    def _sum(self, key: str, value: Tensor) -> None:
        self._sums[key] = self._sums.get(key, torch.zeros((), device=value.device)) + value


def update(
    module: PolicyModule,
    batches: Sequence[RolloutBatch],
    config: RLStage,
    temperature: float,
    peers: Peers,
    reference: Reference | None,
) -> dict[str, float]:
    """`config.epochs` optimizer steps over the same rollouts; what is logged under `train/`.

    Args:
        module: Its policy learns; the weights are those that sampled.
        batches: This rank's share of the update's rollouts.
        temperature: The one that sampled divides the logits.
        peers: Gather what is logged.
        reference: For the divergence; None = it is not measured.
    """
    tally, first_logprobs = Tally(peers), list[Tensor]()
    kl_terms = [
        None
        if reference is None
        else KLTerm(
            reference.logprobs(batch.tokens, temperature), config.kl.estimator, config.kl.weight
        )
        for batch in batches
    ]
    optimizer = cast(LightningOptimizer, module.optimizers())
    norm = 0.0
    for epoch in range(config.epochs):
        optimizer.zero_grad()
        for number, batch in enumerate(batches):
            policy_logprobs = token_logprobs(module.policy, batch.tokens, temperature)
            if epoch == 0:
                first_logprobs.append(policy_logprobs.detach())
                tally.add_mismatch(batch, policy_logprobs.detach())
            behavior_logprobs, correction = batch.rollout_logprobs, None
            if config.importance_cap is not None:
                behavior_logprobs = first_logprobs[number]
                correction = importance_weights(
                    behavior_logprobs, batch.rollout_logprobs, config.importance_cap
                )
            result = grpo_loss(
                policy_logprobs,
                behavior_logprobs,
                batch.advantages,
                batch.weights,
                config.clip_low,
                config.clip_high,
                correction,
                kl_terms[number],
            )
            # The gradient becomes the mean over the ranks.
            backward(module, result.loss * world_size(), number == len(batches) - 1)
            tally.add(result)
            if module.device_use:
                module.device_use.add(batch.tokens.lengths)
        norm = clipped_step(module, optimizer, config.optimization.clip_norm)
    learning_rate = module.trainer.optimizers[0].param_groups[0]["lr"]
    rates = {"gradient_norm": norm, "learning_rate": float(learning_rate)}
    return {**tally.values(config.epochs), **rates}
