"""Importance weights and measures of the mismatch, by hand and by enumeration."""

import math

import pytest
import torch
from torch import Tensor

from reasoning_lab.losses.importance import (
    Band,
    importance_weights,
    mismatch_metrics,
    mismatch_sums,
)

LENGTHS = torch.tensor([2, 0, 1])
# Weights of tokens 2, 0.5 and 9; of rollouts 1 and 9.
BEHAVIOR = torch.log(torch.tensor([0.5, 0.1, 0.9]))
ROLLOUT = torch.log(torch.tensor([0.25, 0.2, 0.1]))


@pytest.mark.parametrize(
    ("level", "mode", "low", "high", "expected"),
    [
        ("token", "truncate", 0.0, 2.5, [2.0, 0.5, 2.5]),
        ("token", "truncate", 0.8, 2.5, [2.0, 0.8, 2.5]),
        ("token", "mask", 0.5, 5.0, [2.0, 0.5, 0.0]),
        ("token", "mask", 0.6, 9.5, [2.0, 0.0, 9.0]),
        ("sequence", "truncate", 0.0, 2.5, [1.0, 1.0, 2.5]),
        ("sequence", "truncate", 0.0, 10.0, [1.0, 1.0, 9.0]),
        ("sequence", "mask", 0.5, 5.0, [1.0, 1.0, 0.0]),
    ],
)
def test_importance_weights_by_hand(
    level: str, mode: str, low: float, high: float, expected: list[float]
) -> None:
    old = BEHAVIOR.clone().requires_grad_()
    weights = importance_weights(old, ROLLOUT, LENGTHS, mode, Band(level, low, high))
    assert weights.tolist() == pytest.approx(expected)
    assert not weights.requires_grad


def test_a_weight_that_is_no_number_is_cut_or_left_out() -> None:
    """A completion of a thousand tokens may be e^200 times likelier."""
    old, rollout = torch.full((1000,), -0.1), torch.full((1000,), -0.3)
    for mode, expected in (("truncate", 2.0), ("mask", 0.0)):
        band = Band("sequence", 0.5, 2.0)
        weights = importance_weights(old, rollout, torch.tensor([1000]), mode, band)
        assert weights.unique().tolist() == [expected]
    sums = mismatch_sums(old, rollout, torch.tensor([1000]), Band("sequence", 0.5, 2.0))
    metrics = mismatch_metrics({key: float(value) for key, value in sums.items()})
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["outside_frac"] == 1.0


def test_unknown_words_are_refused() -> None:
    with pytest.raises(ValueError, match="mode 'x'"):
        importance_weights(BEHAVIOR, ROLLOUT, LENGTHS, "x", Band("token", 0.0, 2.0))
    with pytest.raises(ValueError, match="level 'x'"):
        importance_weights(BEHAVIOR, ROLLOUT, LENGTHS, "mask", Band("x", 0.0, 2.0))


def _metrics(behavior: Tensor, rollout: Tensor, lengths: Tensor, band: Band) -> dict[str, float]:
    sums = mismatch_sums(behavior, rollout, lengths, band)
    return mismatch_metrics({key: float(value) for key, value in sums.items()})


def test_mismatch_by_hand() -> None:
    weights = [2.0, 0.5, 9.0]
    metrics = _metrics(BEHAVIOR, ROLLOUT, LENGTHS, Band("token", 0.6, 5.0))
    kl = sum(weight - 1 - math.log(weight) for weight in weights) / 3
    assert metrics["kl"] == pytest.approx(kl)
    assert metrics["chi_square"] == pytest.approx((1 + 0.25 + 64) / 3)
    assert metrics["effective_sample_frac"] == pytest.approx(11.5**2 / (3 * (4 + 0.25 + 81)))
    assert metrics["outside_frac"] == pytest.approx(2 / 3)
    difference = (math.log(2) + math.log(2) + math.log(9)) / 3
    assert metrics["logprob_difference_mean"] == pytest.approx(difference)
    # Of the two rollouts with tokens; the divergence stays a token's.
    rollouts = _metrics(BEHAVIOR, ROLLOUT, LENGTHS, Band("sequence", 0.6, 5.0))
    assert rollouts["kl"] == pytest.approx(kl)
    assert rollouts["chi_square"] == pytest.approx(64 / 2)
    assert rollouts["effective_sample_frac"] == pytest.approx(10**2 / (2 * (1 + 81)))
    assert rollouts["outside_frac"] == pytest.approx(1 / 2)


def test_estimates_are_the_divergences_in_expectation() -> None:
    """Over all tokens that an engine may draw, each as often as it does: eighths."""
    engine = torch.tensor([4, 2, 1, 1])
    trainer = torch.tensor([0.4, 0.3, 0.1, 0.2], dtype=torch.double)
    drawn = torch.arange(4).repeat_interleave(engine)
    probabilities = engine.double() / 8
    band = Band("token", 0.0, 2.0)
    metrics = _metrics(trainer.log()[drawn], probabilities.log()[drawn], torch.tensor([8]), band)
    kl = (probabilities * (probabilities / trainer).log()).sum()
    chi_square = ((trainer - probabilities) ** 2 / probabilities).sum()
    assert metrics["kl"] == pytest.approx(float(kl))
    assert metrics["chi_square"] == pytest.approx(float(chi_square))
    # Kish's share is 1 / (1 + chi-square) where the weights' mean is 1.
    assert metrics["effective_sample_frac"] == pytest.approx(1 / (1 + float(chi_square)))


def test_sums_add_up_over_micro_batches_and_hide_no_small_difference() -> None:
    generator = torch.Generator().manual_seed(0)
    rollout = -torch.rand(6000, generator=generator)
    policy = rollout + 1e-4 * torch.randn(6000, generator=generator)
    lengths = torch.tensor([1000, 2000, 3000])
    band = Band("token", 0.0, 2.0)
    whole = _metrics(policy, rollout, lengths, band)
    parts = [
        mismatch_sums(policy[start:end], rollout[start:end], torch.tensor([end - start]), band)
        for start, end in ((0, 1000), (1000, 3000), (3000, 6000))
    ]
    total = {key: sum(float(part[key]) for part in parts) for key in parts[0]}
    assert mismatch_metrics(total) == pytest.approx(whole, rel=1e-5)
    assert whole["kl"] == pytest.approx(1e-8 / 2, rel=0.1)
    assert whole["chi_square"] == pytest.approx(1e-8, rel=0.1)
