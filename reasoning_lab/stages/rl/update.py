"""One update from a step's rollouts: the same, however it is cut into micro-batches."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.data.tokens.batches import completion_batch
from reasoning_lab.kernels.logprobs import (
    token_entropies,
    token_logprobs,
    token_logprobs_and_entropies,
)
from reasoning_lab.losses.distillation import teacher_advantages
from reasoning_lab.losses.importance import (
    Band,
    importance_weights,
    mismatch_metrics,
    mismatch_sums,
)
from reasoning_lab.losses.policy_gradient import (
    entropy_bonus,
    kl_to_reference,
    top_entropy_threshold,
    weighted_loss,
)
from reasoning_lab.losses.policy_losses import PolicyLoss, TokenLosses
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.sampling.remote import drawing_rank, is_here
from reasoning_lab.stages.rl.balancing import micro_batches_of_rank
from reasoning_lab.stages.rl.graders import FrozenPolicy, Teacher
from reasoning_lab.stages.rl.records import TrainingRow
from reasoning_lab.stages.rl.stage import MICRO_BATCH_ROWS, RLStage
from reasoning_lab.system.ranks import Peers, world_size
from reasoning_lab.training.loop import PolicyModule
from reasoning_lab.training.micro_batches import MicroBatch
from reasoning_lab.training.strategies import backward, clipped_step
from reasoning_lab.types import Example, Rollout

# Why a token's policy loss does not train; the ledger counts them.
OUTSIDE_BAND, LOW_ENTROPY = "outside_band", "low_entropy"
TOKEN_REASONS = (OUTSIDE_BAND, LOW_ENTROPY)
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
    rows: Sequence[TrainingRow], most: int | None, device: torch.device, peers: Peers
) -> list[RolloutBatch]:
    """This rank's micro-batches, as many as every other's: idle ones train nothing.

    Args:
        rows: All of the update's, in one order on every rank.
        most: Rows of a micro-batch, at most; None = 32, so that little is padding.
        device: Where they go.
        peers: Every rank calls this.
    """
    return [
        (_rollout_batch(part) if part else _idle_batch(rows[0].example.prompt_ids)).to(device)
        for part in micro_batches_of_rank(rows, most or MICRO_BATCH_ROWS, peers)
    ]


def _idle_batch(prompt_ids: Sequence[int]) -> RolloutBatch:
    """A short document, of which no token is trained."""
    nothing = torch.zeros(1)
    batch = RolloutBatch(
        tokens=completion_batch([Example(prompt_ids, [0])]),
        rollout_logprobs=nothing,
        advantages=nothing,
        weights=nothing,
    )
    return batch.untrained()


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
    peers: Peers,
) -> float:
    """The policy's entropy at temperature 1, in nats a token, over some of a step's rollouts.

    Args:
        policy: Each rank computes it for what it drew.
        rollouts: All that the step drew, of which a few are read, evenly spread.
        tokenizer, device: The policy's.
        rows: Rollouts a forward pass; None = all that are read.
        peers: Every rank calls this.
    """
    count = min(_ENTROPY_ROLLOUTS, len(rollouts))
    read = [rollouts[number * len(rollouts) // count] for number in range(count)]
    prompts = prompt_tokens(tokenizer, [rollout.problem.model_prompt for rollout in read])
    examples = [
        Example(prompt, rollout.completion.token_ids)
        for prompt, rollout in zip(prompts, read, strict=True)
        if is_here(rollout)
    ]
    size = rows or count
    total = 0.0
    # Sharded ranks make equally many forward passes.
    for start in range(0, max(Counter(map(drawing_rank, read)).values()), size):
        part = examples[start : start + size]
        tokens = completion_batch(part) if part else _idle_batch(prompts[0]).tokens
        total += float(token_entropies(policy, tokens.to(device)).sum())
    trained_tokens = sum(len(rollout.completion.token_ids) for rollout in read)
    return sum(peers.all_gather(total)) / max(trained_tokens, 1)


class Tally:
    """Sums over the trained tokens of all ranks, and what is logged of them."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._tokens = 0
        self._sums: dict[str, Tensor] = {}
        self._mismatch_sums: dict[str, Tensor] = {}
        self._mismatch_max = 0.0

    def add(
        self,
        loss: Tensor,
        tokens: TokenLosses,
        divergences: Tensor | None,
        entropies: Tensor | None,
    ) -> None:
        self._tokens += len(tokens.losses)
        self._sum("loss", loss.detach())
        if tokens.clipped_low is not None:
            self._sum("clip_low_frac", tokens.clipped_low.sum())
        if tokens.clipped_high is not None:
            self._sum("clip_high_frac", tokens.clipped_high.sum())
        if divergences is not None:
            self._sum("kl_to_reference", divergences.detach().sum())
        if entropies is not None:
            self._sum("entropy", entropies.detach().sum())

    def add_grades(self, teacher_advantages: Tensor, advantages: Tensor) -> None:
        """What the teacher says of tokens that `add` gets, and what trains them, both `[K]`."""
        self._sum("kl_to_teacher", -teacher_advantages.sum())
        self._sum("positive_advantage_frac", (advantages > 0).sum())

    def leave_out(self, reason: str, tokens: Tensor) -> None:
        """Count tokens whose policy loss does not train, `[K]` bool, of those that `add` gets."""
        self._sum(f"{reason}_frac", tokens.sum())

    def add_mismatch(self, batch: RolloutBatch, policy_logprobs: Tensor, band: Band) -> None:
        """How far the trainer is from the engine, at the weights before the update."""
        lengths = batch.tokens.trained_lengths
        sums = mismatch_sums(policy_logprobs, batch.rollout_logprobs, lengths, band)
        for key, value in sums.items():
            self._mismatch_sums[key] = self._mismatch_sums.get(key, torch.zeros_like(value)) + value
        if len(policy_logprobs):
            difference = (policy_logprobs - batch.rollout_logprobs).abs().max()
            self._mismatch_max = max(self._mismatch_max, float(difference))

    def values(self, epochs: int) -> dict[str, float]:
        """Means a token under `train/`, of which `loss` is the mean over the epochs; `mismatch/`.

        Every rank calls it.
        """
        of_ranks = self._peers.all_gather(
            (self._tokens, _floats(self._sums), _floats(self._mismatch_sums), self._mismatch_max)
        )
        tokens = sum(count for count, _, _, _ in of_ranks)
        sums = _total([sums for _, sums, _, _ in of_ranks])
        train = {key: value / tokens for key, value in sums.items()}
        train["loss"] = sums["loss"] / epochs
        mismatch = mismatch_metrics(_total([sums for _, _, sums, _ in of_ranks]))
        mismatch["logprob_difference_max"] = max(largest for _, _, _, largest in of_ranks)
        return {
            **{f"train/{key}": value for key, value in train.items()},
            **{f"mismatch/{key}": value for key, value in mismatch.items()},
        }

    def _sum(self, key: str, value: Tensor) -> None:
        self._sums[key] = self._sums.get(key, torch.zeros((), device=value.device)) + value


def _floats(sums: Mapping[str, Tensor]) -> dict[str, float]:
    return {key: float(value) for key, value in sums.items()}


def _total(of_ranks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: sum(sums[key] for sums in of_ranks) for key in of_ranks[0]}


@torch.no_grad()
def top_entropy_masks(
    policy: PreTrainedModel,
    batches: Sequence[RolloutBatch],
    temperature: float,
    top_frac: float,
    peers: Peers,
) -> list[Tensor]:
    """Which tokens of each micro-batch, `[K]` bool, have the highest entropy in the whole update.

    By the weights before the update, also for later epochs. So the same tokens train, however the
    update is cut into micro-batches and ranks; every rank calls it.
    """
    entropies = [token_entropies(policy, batch.tokens, temperature) for batch in batches]
    of_ranks = peers.all_gather(torch.cat(entropies).cpu())
    threshold = top_entropy_threshold(torch.cat(of_ranks), top_frac)
    return [values.double() >= threshold for values in entropies]


class Objective:
    """The loss of an update's micro-batches, which is one sum however the update is cut.

    Args:
        policy: It learns; its weights are those before the update.
        batches: This rank's share of the update's rollouts; see `rollout_batches`.
        config: The stage's, with a mode of `importance` other than auto.
        policy_loss: What `config.policy_loss` builds.
        temperature: The one that sampled divides the logits.
        peers: Exchange what concerns the whole update; every rank makes the objective.
        reference: For the divergence; None = it is not measured.
        teacher: Grades each token; None = rewards alone do.

    Attributes:
        batches, config: As given.
        tally: What is logged of the update.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        batches: Sequence[RolloutBatch],
        config: RLStage,
        policy_loss: PolicyLoss,
        temperature: float,
        peers: Peers,
        reference: FrozenPolicy | None,
        teacher: Teacher | None = None,
    ) -> None:
        self._policy, self.batches, self.config = policy, batches, config
        self._policy_loss, self._temperature = policy_loss, temperature
        importance = config.importance
        self._band = Band(importance.level, importance.low, importance.high)
        self._reference_logprobs = None
        if reference is not None:
            self._reference_logprobs = [
                reference.logprobs(batch.tokens, temperature) for batch in batches
            ]
        self._teacher, self._teacher_logprobs = teacher, list[Tensor]()
        if teacher is not None:
            self._teacher_logprobs = [
                teacher.policy.logprobs(batch.tokens, temperature) for batch in batches
            ]
        self._top_masks = None
        if config.entropy.top_frac < 1:
            self._top_masks = top_entropy_masks(
                policy, batches, temperature, config.entropy.top_frac, peers
            )
        trained = self._top_masks or [torch.ones_like(batch.weights) for batch in batches]
        self._trained_tokens = sum(peers.all_gather(sum(int(mask.sum()) for mask in trained)))
        self._first_logprobs: list[Tensor] = []
        self.tally = Tally(peers)

    def loss(self, number: int) -> Tensor:
        """Of micro-batch `number`, with gradient; the first epoch calls it for each in order."""
        config, batch = self.config, self.batches[number]
        entropies = None
        if config.entropy.bonus:
            logprobs, entropies = token_logprobs_and_entropies(
                self._policy, batch.tokens, self._temperature
            )
        else:
            logprobs = token_logprobs(self._policy, batch.tokens, self._temperature)
        lengths = batch.tokens.trained_lengths
        if len(self._first_logprobs) == number:
            self._first_logprobs.append(logprobs.detach())
            self.tally.add_mismatch(batch, logprobs.detach(), self._band)
        behavior_logprobs, factors = batch.rollout_logprobs, None
        if config.importance.mode != "none":
            behavior_logprobs = self._first_logprobs[number]
            factors = importance_weights(
                behavior_logprobs,
                batch.rollout_logprobs,
                lengths,
                config.importance.mode,
                self._band,
            )
            if config.importance.mode == "mask":
                self.tally.leave_out(OUTSIDE_BAND, factors == 0)
        mask = None if self._top_masks is None else self._top_masks[number]
        if mask is not None:
            self.tally.leave_out(LOW_ENTROPY, ~mask if factors is None else ~mask & (factors != 0))
            factors = mask.to(logprobs) if factors is None else factors * mask
        advantages = self._advantages(number)
        tokens = self._policy_loss(logprobs, behavior_logprobs, advantages, lengths)
        divergences = None
        if self._reference_logprobs is not None:
            reference_logprobs = self._reference_logprobs[number]
            divergences = kl_to_reference(config.kl.estimator, logprobs, reference_logprobs)
        loss = weighted_loss(tokens.losses, batch.weights, factors, divergences, config.kl.weight)
        if entropies is not None:
            bonus = entropy_bonus(entropies, self._trained_tokens, mask)
            loss = loss - config.entropy.bonus * bonus
        self.tally.add(loss, tokens, divergences, entropies)
        return loss

    def _advantages(self, number: int) -> Tensor:
        """`[K]`, of each token; a teacher's are by the weights before the update in all epochs."""
        batch = self.batches[number]
        if self._teacher is None:
            return batch.advantages
        grades = teacher_advantages(self._first_logprobs[number], self._teacher_logprobs[number])
        advantages = grades + self._teacher.reward_weight * batch.advantages
        self.tally.add_grades(grades, advantages)
        return advantages


def update(module: PolicyModule, objective: Objective) -> dict[str, float]:
    """`config.epochs` optimizer steps over the same rollouts; what is logged of them.

    Args:
        module: Its policy is the objective's.
        objective: Of the step's rollouts.
    """
    config, batches = objective.config, objective.batches
    optimizer = cast(LightningOptimizer, module.optimizers())
    norm = 0.0
    for _ in range(config.epochs):
        optimizer.zero_grad()
        for number, batch in enumerate(batches):
            # The gradient becomes the mean over the ranks.
            loss = objective.loss(number) * world_size()
            backward(module, loss, number == len(batches) - 1)
            if module.device_use:
                module.device_use.add(batch.tokens.lengths)
        norm = clipped_step(module, optimizer, config.optimization.clip_norm)
    learning_rate = module.trainer.optimizers[0].param_groups[0]["lr"]
    rates = {"train/gradient_norm": norm, "train/learning_rate": float(learning_rate)}
    return {**objective.tally.values(config.epochs), **rates}
