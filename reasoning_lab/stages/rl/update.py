"""One update from a step's rollouts: the same, however it is cut into micro-batches."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.data.tokens.batches import padded_batch
from reasoning_lab.kernels.logprobs import TokenBatch, token_entropies, token_logprobs
from reasoning_lab.losses.policy_gradient import (
    GRPOLoss,
    KLTerm,
    grpo_loss,
    importance_weights,
)
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.stages.rl.records import RewardedGroup, TrainingRow
from reasoning_lab.stages.rl.rollouts import training_rows
from reasoning_lab.stages.rl.stage import MICRO_BATCH_ROWS, RLStage
from reasoning_lab.system.ranks import Peers, rank_slice, world_size
from reasoning_lab.types import Example, Rollout

# Read for the entropy of a step: a few percent of the work of its update.
_ENTROPY_ROLLOUTS = 8


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Some of an update's rollouts.

    Attributes:
        tokens: `B` rows.
        rollout_logprobs: `[B, T]` float32, the engine's; 0 where no token is trained.
        advantages: `[B]` float32.
        weights: `[B]` float32, of each token in the update's loss.
        read_tokens: Prompts and completions, without padding.
    """

    tokens: TokenBatch
    rollout_logprobs: Tensor
    advantages: Tensor
    weights: Tensor
    read_tokens: int

    @property
    def trained_tokens(self) -> int:
        return int(self.tokens.completion_mask.sum())


def micro_batches(
    groups: Sequence[RewardedGroup],
    tokenizer: PreTrainedTokenizerBase,
    config: RLStage,
    rows: int | None,
    device: torch.device,
) -> list[MicroBatch]:
    """The rollouts that train, sorted by length and cut up.

    Args:
        groups: All of the update's that train, with their advantages.
        tokenizer: The policy's.
        config: The stage's.
        rows: Rollouts a micro-batch; None = 32, so that little is padding. Fewer where some rank
            would have none.
        device: Where they go.
    """
    rows_by_length = sorted(
        training_rows(groups, tokenizer, config), key=lambda row: row.example.length
    )
    size = max(1, min(rows or MICRO_BATCH_ROWS, -(-len(rows_by_length) // world_size())))
    return [
        _micro_batch(rows_by_length[start : start + size], tokenizer.pad_token_id, device)
        for start in range(0, len(rows_by_length), size)
    ]


def own_share(micros: Sequence[MicroBatch]) -> list[MicroBatch]:
    """This rank's micro-batches, as many as every other's: idle ones train nothing."""
    most = -(-len(micros) // world_size())
    idle = replace(
        micros[0],
        tokens=replace(
            micros[0].tokens,
            completion_mask=torch.zeros_like(micros[0].tokens.completion_mask),
        ),
        rollout_logprobs=torch.zeros_like(micros[0].rollout_logprobs),
    )
    own = list(rank_slice(micros))
    return own + [idle] * (most - len(own))


def _micro_batch(rows: Sequence[TrainingRow], pad_id: int, device: torch.device) -> MicroBatch:
    tokens = padded_batch([row.example for row in rows], pad_id).to(device)
    logprobs = [value for row in rows for value in row.rollout.completion.logprobs]
    return MicroBatch(
        tokens,
        torch.zeros(tokens.input_ids.shape, device=device).masked_scatter(
            tokens.completion_mask, torch.tensor(logprobs, device=device)
        ),
        torch.tensor([row.advantage for row in rows], device=device),
        torch.tensor([row.token_weight for row in rows], device=device),
        sum(row.example.length for row in rows),
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
        tokenizer: The policy's.
        rows: Rollouts a forward pass; None = all that are read.
        device: Where they go.
    """
    count = min(_ENTROPY_ROLLOUTS, len(rollouts))
    read = [rollouts[number * len(rollouts) // count] for number in range(count)]
    prompts = prompt_tokens(tokenizer, [rollout.problem.prompt for rollout in read])
    examples = [
        Example(prompt, rollout.completion.token_ids)
        for prompt, rollout in zip(prompts, read, strict=True)
    ]
    size = rows or count
    total = 0.0
    for start in range(0, count, size):
        tokens = padded_batch(examples[start : start + size], tokenizer.pad_token_id).to(device)
        total += float(token_entropies(policy, tokens).sum())
    return total / max(sum(len(rollout.completion.token_ids) for rollout in read), 1)


class Reference:
    """The policy as it came in, kept to tell how far the one that learns has gone."""

    def __init__(self, policy: PreTrainedModel) -> None:
        self._model = copy.deepcopy(policy).eval().requires_grad_(False)

    @torch.no_grad()
    def logprobs(self, tokens: TokenBatch, temperature: float) -> Tensor:
        """`[B, T]`, at the temperature that sampled."""
        self._model.to(tokens.input_ids.device)
        return token_logprobs(self._model, tokens, temperature)


class Tally:
    """Sums over the trained tokens of all ranks, and what is logged of them."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._tokens = 0
        self._sums: dict[str, Tensor] = {}
        self._mismatch_max = 0.0

    def add(self, micro: MicroBatch, result: GRPOLoss) -> None:
        mask = micro.tokens.completion_mask
        self._tokens += micro.trained_tokens
        self._sum("loss", result.loss.detach())
        self._sum("clip_low_frac", result.clipped_low.sum())
        self._sum("clip_high_frac", result.clipped_high.sum())
        if result.kl_to_reference is not None:
            self._sum("kl_to_reference", (result.kl_to_reference * mask).sum())

    def mismatch(self, micro: MicroBatch, policy_logprobs: Tensor) -> None:
        """How far the trainer is from the engine, at the weights that sampled."""
        apart = (policy_logprobs - micro.rollout_logprobs).abs() * micro.tokens.completion_mask
        self._sum("mismatch_mean", apart.sum())
        self._mismatch_max = max(self._mismatch_max, float(apart.max()))

    def values(self, epochs: int) -> dict[str, float]:
        """Means a token; `loss` is the mean over the epochs."""
        own = {key: float(value) for key, value in self._sums.items()}
        of_rank = self._peers.all_gather((self._tokens, own, self._mismatch_max))
        tokens = sum(count for count, _, _ in of_rank)
        sums = {key: sum(each[key] for _, each, _ in of_rank) for key in own}
        a_token = {key: value / tokens for key, value in sums.items()}
        return a_token | {
            "loss": sums["loss"] / epochs,
            "mismatch_mean": a_token["mismatch_mean"] * epochs,
            "mismatch_max": max(largest for _, _, largest in of_rank),
        }

    def _sum(self, key: str, value: Tensor) -> None:
        self._sums[key] = self._sums.get(key, torch.zeros((), device=value.device)) + value


def update(
    policy: PreTrainedModel,
    micros: Sequence[MicroBatch],
    config: RLStage,
    temperature: float,
    optimizer: Optimizer | LightningOptimizer,
    backward: Callable[[Tensor, bool], None],
    step: Callable[[], float],
    peers: Peers,
    reference: Reference | None,
) -> dict[str, float]:
    """`config.epochs` optimizer steps over the same rollouts.

    Args:
        policy: Learns; its weights are those that sampled.
        micros: This rank's share of the update's rollouts.
        config: The stage's.
        temperature: The one that sampled divides the logits.
        optimizer: Forgets the gradient of the update before.
        backward: Adds a micro-batch's gradient, which becomes the mean over the ranks; its second
            argument tells the last of an epoch.
        step: Clips the gradient and steps the optimizer, once an epoch; gives the norm.
        peers: Gather what is logged.
        reference: For the divergence; None = it is not looked at.

    Returns:
        What is logged under `train/`.
    """
    tally, own = Tally(peers), []
    afar = [reference.logprobs(micro.tokens, temperature) for micro in micros] if reference else []
    norm = 0.0
    for epoch in range(config.epochs):
        optimizer.zero_grad()
        for number, micro in enumerate(micros):
            logprobs = token_logprobs(policy, micro.tokens, temperature)
            if epoch == 0:
                own.append(logprobs.detach())
                tally.mismatch(micro, own[-1])
            old, correction = micro.rollout_logprobs, None
            if config.importance_cap is not None:
                old = own[number]
                correction = importance_weights(old, micro.rollout_logprobs, config.importance_cap)
            result = grpo_loss(
                logprobs,
                old,
                micro.advantages,
                micro.weights,
                micro.tokens.completion_mask,
                config.clip_low,
                config.clip_high,
                correction,
                KLTerm(afar[number], config.kl.estimator, config.kl.weight) if afar else None,
            )
            backward(result.loss * world_size(), number == len(micros) - 1)
            tally.add(micro, result)
        norm = step()
    return {"gradient_norm": norm, **tally.values(config.epochs)}
