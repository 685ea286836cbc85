"""Preference losses against TRL's own code, arithmetic by hand, and a naive second writing."""

import math
from pathlib import Path

import pytest
import torch

from reasoning_lab.data.tokens.documents import document_of
from reasoning_lab.data.tokens.table import TokenTable
from reasoning_lab.losses.dpo import SideLogprobs, dpo_loss
from reasoning_lab.stages.dpo.module import (
    Pairs,
    beta_at,
    preference_metrics,
    reference_logprobs,
    stored_reference_logprobs,
)
from reasoning_lab.stages.dpo.stage import DPOStage
from reasoning_lab.types import Example
from tests.support.tensors import gradient_of
from tests.support.tiny import tiny_model
from tests.support.trl_losses import trl_dpo

KINDS = DPOStage.__dataclass_fields__["loss"].metadata["choices"]


def pairs_of(
    chosen: list[float], rejected: list[float], reference: tuple[list[float], list[float]]
) -> tuple[SideLogprobs, SideLogprobs]:
    """Float64, the policy's part with gradient; 10 tokens chosen, 5 rejected."""

    def tensor(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.double)

    return (
        SideLogprobs(
            tensor(chosen).requires_grad_(), tensor(reference[0]), torch.full((len(chosen),), 10)
        ),
        SideLogprobs(
            tensor(rejected).requires_grad_(), tensor(reference[1]), torch.full((len(chosen),), 5)
        ),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_loss_gradient_and_metrics_are_trls(kind: str) -> None:
    generator = torch.Generator().manual_seed(5)
    mask = torch.zeros(8, 12, dtype=torch.bool)
    for row, length in enumerate([3, 9, 1, 7, 6, 2, 8, 11]):
        mask[row, 1 : 1 + length] = True
    logprobs = -2 * torch.rand(8, 11, generator=generator) * mask[:, 1:]
    reference = logprobs.sum(1) + 3 * torch.randn(8, generator=generator)
    ours, theirs = (logprobs.clone().requires_grad_() for _ in range(2))
    beta = 0.3

    expected, trl = trl_dpo(kind, theirs, reference, mask, beta)
    chosen, rejected = map(
        SideLogprobs, ours.sum(1).chunk(2), reference.chunk(2), mask.sum(1).chunk(2)
    )
    result = dpo_loss(kind, chosen, rejected, beta)

    torch.testing.assert_close(result.losses.mean(), expected, atol=1e-5, rtol=1e-5)
    expected.backward()
    result.losses.mean().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-5)
    metrics = preference_metrics(chosen, rejected, result)
    for name, other in {
        "margin": "rewards/margins",
        "accuracy": "rewards/accuracies",
        "chosen_reward": "rewards/chosen",
        "rejected_reward": "rewards/rejected",
        "chosen_logprobs": "logps/chosen",
        "rejected_logprobs": "logps/rejected",
    }.items():
        assert float(metrics[name]) == pytest.approx(trl[other], abs=1e-5), name


def test_sigmoid_by_hand() -> None:
    pairs = pairs_of([-1.0, -6.0], [-4.0, -2.0], ([-2.0, -3.0], [-3.0, -3.0]))
    result = dpo_loss("sigmoid", *pairs, 0.5)
    # First pair: 0.5 * ((-1 + 2) - (-4 + 3)) = 1; second: 0.5 * ((-6 + 3) - (-2 + 3)) = -2.
    assert (result.chosen_rewards - result.rejected_rewards).tolist() == [1.0, -2.0]
    assert not result.chosen_rewards.requires_grad
    expected = [math.log(1 + math.exp(-1)), math.log(1 + math.exp(2))]
    assert result.losses.tolist() == pytest.approx(expected)
    result.losses.sum().backward()
    # d/dm of log(1 + exp(-m)) = -1 / (1 + exp(m)), and dm/d(chosen) = beta.
    steepness = [0.5 / (1 + math.e), 0.5 / (1 + math.exp(-2))]
    assert gradient_of(pairs[0].policy).tolist() == pytest.approx([-slope for slope in steepness])
    assert gradient_of(pairs[1].policy).tolist() == pytest.approx(steepness)


def test_each_loss_of_one_pair_by_hand() -> None:
    # Log ratios 2 and -4: 0.2 and -0.8 a token. With beta 0.25, rewards 0.5 and -1, margin 1.5.
    def sigma(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    expected = {
        "sigmoid": -math.log(sigma(1.5)),
        "sigmoid_norm": -math.log(sigma(0.25 * (0.2 + 0.8))),
        "ipo": (0.2 + 0.8 - 2) ** 2,
        "hinge": 0.0,
        "apo_zero": 1 - sigma(0.5) + sigma(-1),
        "apo_down": sigma(0.5) + 1 - sigma(1.5),
    }
    assert set(expected) == set(KINDS)
    pairs = pairs_of([-3.0], [-9.0], ([-5.0], [-5.0]))
    for kind, loss in expected.items():
        assert dpo_loss(kind, *pairs, 0.25).losses.item() == pytest.approx(loss), kind


@pytest.mark.parametrize("kind", KINDS)
def test_smoothed_labels_are_the_expectation_over_swapped_ones(kind: str) -> None:
    one, other = pairs_of([-3.0, -1.0], [-9.0, -8.0], ([-5.0, -4.0], [-5.0, -6.0]))
    smoothed = dpo_loss(kind, one, other, 0.4, label_smoothing=0.2)
    right, wrong = dpo_loss(kind, one, other, 0.4), dpo_loss(kind, other, one, 0.4)
    torch.testing.assert_close(smoothed.losses, 0.8 * right.losses + 0.2 * wrong.losses)
    torch.testing.assert_close(smoothed.chosen_rewards, right.chosen_rewards)


def test_the_reference_itself_costs_log_2() -> None:
    pairs = pairs_of([-7.0], [-90.0], ([-7.0], [-90.0]))
    result = dpo_loss("sigmoid", *pairs, 0.1)
    assert result.losses.item() == pytest.approx(math.log(2))
    assert result.chosen_rewards.item() == result.rejected_rewards.item() == 0.0


def test_sigmoid_stays_finite_far_from_the_reference() -> None:
    pairs = pairs_of([-5000.0], [0.0], ([0.0], [0.0]))
    loss = dpo_loss("sigmoid", *pairs, 1.0).losses.sum()
    loss.backward()
    assert loss.item() == pytest.approx(5000)
    assert gradient_of(pairs[0].policy).tolist() == [-1.0]


def test_metrics_by_hand() -> None:
    # Ratios (1, -1), (2, 0), (3, 1); margins at beta 1: 2 each, but for the last pair.
    chosen, rejected = pairs_of(
        [-1.0, -1.0, -1.0], [-3.0, -3.0, -3.0], ([-2.0, -3.0, -4.0], [-2.0, -3.0, -8.0])
    )
    pairs = (
        chosen._replace(tokens=torch.tensor([10, 12, 9])),
        rejected._replace(tokens=torch.tensor([5, 7, 9])),
    )
    metrics = preference_metrics(*pairs, dpo_loss("sigmoid", *pairs, 1.0))
    # Sum of all six ratios over all 52 tokens.
    assert metrics["kl_to_reference"].item() == pytest.approx((1 - 1 + 2 + 0 + 3 + 5) / 52)
    assert metrics["chosen_longer_tokens"].item() == pytest.approx(10 / 3)
    # Margins 2, 2, -2 against lengths 5, 5, 0: they lie on a line.
    assert metrics["length_bias"].item() == pytest.approx(1.0)
    assert metrics["accuracy"].item() == pytest.approx(2 / 3)


def _as_tokens(pairs: list[tuple[Example, Example]]) -> Pairs:
    sides = zip(*pairs, strict=True)
    return Pairs(*(TokenTable.of_documents([document_of(one) for one in side]) for side in sides))


@pytest.mark.parametrize("batch_pairs", [1, 2, 3, 8])
def test_the_references_logprobs_are_each_pairs_own(batch_pairs: int) -> None:
    model = tiny_model("qwen3", 20, 0, 1, seed=1)
    sizes = [(9, 3), (1, 2), (4, 12), (2, 2), (1, 1)]
    pairs = [
        (Example([3, 5], [4] * chosen + [1]), Example([3, 5], [6] * rejected + [1]))
        for chosen, rejected in sizes
    ]
    reference = reference_logprobs(model, _as_tokens(pairs), batch_pairs)
    assert reference.shape == (5, 2)
    for row, pair in zip(reference, pairs, strict=True):
        for logprob, side in zip(row, pair, strict=True):
            ids = torch.tensor([[*side.prompt_ids, *side.completion_ids]])
            logprobs = model(ids).logits[0, 1:-1].log_softmax(-1)
            expected = logprobs.gather(1, ids[0, 2:, None]).sum()
            torch.testing.assert_close(logprob, expected.detach(), rtol=1e-5, atol=1e-5)


def test_length_bias_of_equal_lengths_is_0() -> None:
    pairs = pairs_of([-1.0, -2.0], [-3.0, -1.0], ([-2.0, -3.0], [-2.0, -3.0]))
    assert preference_metrics(*pairs, dpo_loss("sigmoid", *pairs, 1.0))["length_bias"].item() == 0.0


def test_beta_goes_to_its_end_with_the_last_step() -> None:
    assert [beta_at(step, 5, 0.1, 0.5) for step in range(5)] == pytest.approx(
        [0.1, 0.2, 0.3, 0.4, 0.5]
    )
    assert beta_at(3, 5, 0.1, None) == 0.1
    assert beta_at(0, 1, 0.1, 0.5) == 0.1


def test_the_references_logprobs_are_computed_once_and_damage_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = (tiny_model("qwen3", 20, 0, 1, seed=seed) for seed in (1, 2))
    pairs = _as_tokens([(Example([3], [4, 5, 1]), Example([3], [6, 1]))])
    first = stored_reference_logprobs(one, pairs, tmp_path, 8)
    assert torch.equal(stored_reference_logprobs(other, pairs, tmp_path, 8), first)
    (cache_file,) = tmp_path.iterdir()
    cache_file.write_bytes(cache_file.read_bytes()[:-1])
    again = stored_reference_logprobs(other, pairs, tmp_path, 8)
    assert f"{cache_file} is damaged" in caplog.text
    assert not torch.allclose(again, first)
