"""The micro-batches of an update and their gradient, and a step's entropy."""

from typing import Any

import pytest
import torch
from torch import Tensor

from reasoning_lab.config.optimization import OptimizationConfig
from reasoning_lab.config.policy_loss import (
    CISPOConfig,
    ClipConfig,
    DPPOConfig,
    GSPOConfig,
    ReinforceConfig,
    SAPOConfig,
)
from reasoning_lab.data.tokens.batches import completion_batch
from reasoning_lab.kernels.batch import TokenBatch
from reasoning_lab.kernels.binding import bind_kernels
from reasoning_lab.kernels.logprobs import token_entropies, token_logprobs
from reasoning_lab.losses.policy_gradient import token_weights, weighted_loss
from reasoning_lab.losses.policy_losses import clip
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.stages.rl.graders import FrozenPolicy, Teacher
from reasoning_lab.stages.rl.options import EntropyConfig, ImportanceConfig, KLConfig
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.stages.rl.update import (
    Objective,
    entropy,
)
from reasoning_lab.system.ranks import Peers
from reasoning_lab.types import Example
from tests.support.rl import jittered, micro_batches, rewarded_group, word_tokenizer
from tests.support.tensors import gradient_of
from tests.support.tiny import tiny_model


def test_a_masked_rollout_is_in_no_gradient() -> None:
    config = RLStage(max_new_tokens=9)
    groups = [rewarded_group(1.0, 0.0, -1.0, masked=1)]
    (batch,) = micro_batches(groups, config)
    # The first, of 2 tokens, is gone, 3 + 4 tokens are left.
    assert batch.advantages.tolist() == [0.0] * 3 + [-1.0] * 4
    assert batch.weights.tolist() == pytest.approx([1 / 7] * 7)
    assert len(batch.rollout_logprobs) == batch.tokens.loss_mask.sum() == 7
    assert batch.rollout_logprobs.sum().item() == pytest.approx(-3.5)
    groups = [rewarded_group(1.0, 0.0, -1.0)]
    (batch,) = micro_batches(groups, config)
    assert batch.advantages.tolist() == [1.0] * 2 + [0.0] * 3 + [-1.0] * 4
    nothing = [rewarded_group(1.0, 0.0, masked=2)]
    assert micro_batches(nothing, config) == []


def test_gradient_padded_alone_and_joined_is_one() -> None:
    model = tiny_model("qwen3", 20, 0, 1, seed=4).double()
    examples = [
        Example([3, 4], [5, 6, 7, 1]),
        Example([8], [9, 1]),
        Example([3, 9, 9], [4] * 7),
    ]
    lengths = torch.tensor([len(example.completion_ids) for example in examples])
    advantages = torch.tensor([0.7, -1.2, 0.4], dtype=torch.double)
    weights = torch.tensor(
        token_weights("sequence", lengths.tolist(), [3, 3, 3], 1, 3, 9), dtype=torch.double
    )

    def gradient(batches: list[TokenBatch]) -> torch.Tensor:
        logprobs = torch.cat([token_logprobs(model, batch, 0.8) for batch in batches])
        advantages_of_tokens, weights_of_tokens = (
            values.repeat_interleave(lengths) for values in (advantages, weights)
        )
        behavior_logprobs = logprobs.detach() + 0.1
        tokens = clip(logprobs, behavior_logprobs, advantages_of_tokens, lengths)
        loss = weighted_loss(tokens.losses, weights_of_tokens)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])

    padded = gradient([completion_batch(examples)])
    alone = gradient([completion_batch([example]) for example in examples])
    bind_kernels(model)
    joined = gradient([completion_batch(examples)])
    assert padded.abs().max() > 1e-3
    torch.testing.assert_close(alone, padded, atol=1e-9, rtol=1e-7)
    torch.testing.assert_close(joined, padded, atol=1e-9, rtol=1e-7)


def test_an_idle_ranks_batch_has_a_gradient_of_zeros() -> None:
    config = RLStage(max_new_tokens=9)
    groups = [rewarded_group(1.0, 0.0)]
    (batch,) = micro_batches(groups, config)
    idle = batch.untrained()
    assert len(idle.rollout_logprobs) == idle.tokens.loss_mask.sum() == 0
    model = tiny_model("qwen3", 20, 0, 1, seed=4)
    for binds in (False, True):
        if binds:
            bind_kernels(model)
        model.zero_grad()
        logprobs = token_logprobs(model, idle.tokens)
        lengths = idle.tokens.trained_lengths
        tokens = clip(logprobs, idle.rollout_logprobs, idle.advantages, lengths)
        weighted_loss(tokens.losses, idle.weights).backward()
        slopes = [parameter.grad for parameter in model.parameters()]
        assert all(slope is not None and not slope.any() for slope in slopes)


OBJECTIVES: dict[str, dict[str, Any]] = {
    "clip": {"policy_loss": ClipConfig(clip_low=0.05, clip_high=0.05)},
    "gspo": {
        "policy_loss": GSPOConfig(clip_low=0.05, clip_high=0.05),
        "importance": ImportanceConfig("mask", "sequence", 0.2, 1.5),
    },
    "cispo": {
        "policy_loss": CISPOConfig(clip_high=0.05),
        "entropy": EntropyConfig(bonus=0.3, top_frac=0.4),
    },
    "dppo": {
        "policy_loss": DPPOConfig(clip_low=0.01, clip_high=0.01),
        "importance": ImportanceConfig("truncate", "token", 0.0, 1.1),
        "entropy": EntropyConfig(top_frac=0.2),
    },
    "sapo": {"policy_loss": SAPOConfig(), "entropy": EntropyConfig(bonus=0.3)},
    "reinforce": {"policy_loss": ReinforceConfig(), "kl": KLConfig(weight=0.1)},
    "teacher": {"policy_loss": CISPOConfig(clip_high=0.05)},
}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("aggregation", ["token", "sequence"])
def test_no_cut_into_micro_batches_and_no_kernel_changes_the_objective(
    name: str, aggregation: str
) -> None:
    options = {"importance": ImportanceConfig("none"), **OBJECTIVES[name]}
    of_step = OptimizationConfig(batch_size=2)
    config = RLStage(max_new_tokens=9, aggregation=aggregation, optimization=of_step, **options)
    groups = [rewarded_group(1.0, 0.0, -1.0), rewarded_group(-0.5, 0.7)]
    groups = [jittered(group, seed) for seed, group in enumerate(groups)]
    model = tiny_model("qwen3", 20, 0, 1, seed=4)
    policy_loss = config.policy_loss.build("policy_loss")

    def gradient_and_metrics(rows: int | None) -> tuple[Tensor, dict[str, float]]:
        batches = micro_batches(groups, config, rows)
        frozen = FrozenPolicy(tiny_model("qwen3", 20, 0, 1, seed=5))
        reference = frozen if config.kl.weight else None
        teacher = Teacher(frozen, reward_weight=0.5) if name == "teacher" else None
        objective = Objective(model, batches, config, policy_loss, 0.8, Peers(), reference, teacher)
        model.zero_grad()
        for number in range(len(batches)):
            objective.loss(number).backward()
        slopes = [gradient_of(parameter).flatten() for parameter in model.parameters()]
        return torch.cat(slopes), objective.tally.values(1)

    whole, metrics = gradient_and_metrics(None)
    assert whole.abs().max() > 1e-3
    assert metrics["mismatch/kl"] > 1e-3
    for rows, binds in [(1, False), (2, False), (None, True), (1, True), (3, True)]:
        if binds:
            bind_kernels(model)
        cut, cut_metrics = gradient_and_metrics(rows)
        torch.testing.assert_close(cut, whole, atol=1e-5, rtol=1e-5)
        assert cut_metrics == pytest.approx(metrics, abs=1e-5, rel=1e-4)


def test_only_tokens_of_high_entropy_train_and_the_bonus_is_their_mean_entropy() -> None:
    config = RLStage(
        max_new_tokens=9,
        policy_loss=ReinforceConfig(),
        importance=ImportanceConfig("none"),
        entropy=EntropyConfig(bonus=0.5, top_frac=0.4),
    )
    groups = [jittered(rewarded_group(1.0, 0.5, -1.0), 3)]
    model = tiny_model("qwen3", 20, 0, 1, seed=4)
    (batch,) = micro_batches(groups, config)
    policy_loss = config.policy_loss.build("policy_loss")
    objective = Objective(model, [batch], config, policy_loss, 0.8, Peers(), None)
    loss = objective.loss(0)
    entropies = token_entropies(model, batch.tokens, 0.8)
    logprobs = token_logprobs(model, batch.tokens, 0.8)
    # Four of nine, but the three rollouts' first tokens, the fourth to the sixth, are alike.
    highest = entropies.argsort(descending=True)[:6]
    assert float(entropies[highest[3:]].std()) < 1e-6 < float(entropies[highest[:4]].std())
    expected = -(batch.advantages * logprobs)[highest].sum() / 9 - 0.5 * entropies[highest].mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert objective.tally.values(1)["train/low_entropy_frac"] == pytest.approx(3 / 9)


@pytest.mark.parametrize("rows", [None, 1, 3])
def test_entropy_is_at_temperature_1_over_rollouts_of_all_groups(
    rows: int | None,
) -> None:
    tokenizer = word_tokenizer()
    model = tiny_model("qwen3", 20, 0, 1, seed=4)
    # Sixteen rollouts, of 2 and 3 tokens in turn; every second is read.
    rollouts = [record.rollout for _ in range(8) for record in rewarded_group(0.0, 0.0).rollouts]
    short = rollouts[0]
    prompt = prompt_tokens(tokenizer, [short.problem.prompt])[0]
    tokens = torch.tensor([[*prompt, *short.completion.token_ids]])
    logits = model(tokens, use_cache=False).logits[0, -3:-1]
    expected = torch.distributions.Categorical(logits=logits).entropy().mean().item()
    device, peers = torch.device("cpu"), Peers()
    assert entropy(model, rollouts, tokenizer, rows, device, peers) == pytest.approx(
        expected, rel=1e-4
    )
    # Where there are few, all are read: the longer one counts for its three tokens.
    alone = entropy(model, rollouts[1:2], tokenizer, rows, device, peers)
    both = entropy(model, rollouts[:2], tokenizer, rows, device, peers)
    assert both == pytest.approx((2 * expected + 3 * alone) / 5, rel=1e-4)
