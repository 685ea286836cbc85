"""Rollouts of other weights than the trainer's, with noise or in bfloat16, and what they change."""

from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest
import torch

from reasoning_lab.config.optimization import TrapezoidConfig
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.stages.rl.module import rollout_schedule
from reasoning_lab.stages.rl.options import ImportanceConfig, TemperatureConfig
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.stages.rl.weight_noise import WeightNoise
from reasoning_lab.training.context import StageContext
from tests.support.rl import TableTracker
from tests.support.stages import RL, optimization, trained, weights

STILL = optimization(learning_rate=0.0, schedule=TrapezoidConfig(decay_frac=0.5))


def logged(context: StageContext, folder: Path, config: RLStage) -> dict[str, list[float]]:
    """The values of each metric, step by step."""
    tracker = TableTracker()
    trained("rl", replace(context, tracker=tracker), folder, config)
    steps = [tracker.steps[step] for step in sorted(tracker.steps)]
    return {key: [step[key] for step in steps if key in step] for key in steps[0]}


def test_noise_is_relative_and_of_a_run_a_version_and_a_weight() -> None:
    weights = [("a", torch.full((400, 50), 2.0)), ("b", torch.full((400, 50), -0.01))]
    noise = WeightNoise(0.05, seed=3)
    noisy = dict(noise.on(weights, 7))
    drawn = {name: noisy[name] / weight - 1 for name, weight in weights}
    for relative in drawn.values():
        # Of 20,000 draws, the deviation errs by 0.5% and the mean by 0.00035.
        assert float(relative.std()) == pytest.approx(0.05, rel=0.02)
        assert abs(float(relative.mean())) < 0.0015
    assert abs(float((drawn["a"] * drawn["b"]).mean())) < 0.05**2 * 0.04
    again, later = dict(noise.on(weights, 7)), dict(noise.on(weights, 8))
    other_run = dict(WeightNoise(0.05, seed=4).on(weights, 7))
    assert torch.equal(again["a"], noisy["a"])
    assert not torch.isclose(later["a"], noisy["a"]).all()
    assert not torch.isclose(other_run["a"], noisy["a"]).all()


@pytest.mark.parametrize("dtype", ["float32", "mixed"])
def test_the_copy_that_samples_has_the_noise_and_the_policy_has_none(
    dtype: str, context: StageContext
) -> None:
    context = replace(context, model=replace(context.model, dtype=dtype))
    policy, _ = context.load_student(Policy(context.inputs["policy"].path))
    before = {name: weight.clone() for name, weight in policy.named_parameters()}
    schedule = rollout_schedule(policy, replace(RL, rollout_noise=0.1), "single", 5)
    schedule.update(2)
    expected = dict(WeightNoise(0.1, 5).on(before.items(), 2))
    for name, weight in schedule.sampling_policy.named_parameters():
        assert torch.equal(weight, expected[name].to(weight.dtype)), name
        assert torch.equal(before[name], policy.get_parameter(name)), name


def test_engine_and_trainer_are_apart_by_the_square_of_the_noise(
    context: StageContext, tmp_path: Path
) -> None:
    config = replace(RL, screen_group_size=0, optimization=STILL)
    none, small, large = (
        logged(context, tmp_path / str(noise), replace(config, rollout_noise=noise))
        for noise in (0.0, 0.02, 0.04)
    )
    assert max(none["mismatch/logprob_difference_max"]) < 1e-4
    kl = [mean(values["mismatch/kl"]) for values in (small, large)]
    assert kl[1] == pytest.approx(4 * kl[0], rel=0.5)
    assert kl[0] > 1e-5
    # Weights that wait for their steps have it too, and those under which rollouts go on.
    for number, partial in enumerate(("finish", "continue")):
        ahead = replace(config, rollout_noise=0.02, staleness=2, partial_rollouts=partial)
        assert min(logged(context, tmp_path / f"ahead{number}", ahead)["mismatch/kl"]) > 1e-6
    # Each version has noise of its own; weights that stay have one version.
    assert len(set(small["mismatch/kl"])) > 1


def test_rollouts_of_noisy_weights_are_weighted_by_default(
    context: StageContext, tmp_path: Path
) -> None:
    config = replace(RL, screen_group_size=0, rollout_noise=0.2, group_size=8)
    auto, truncated, none = (
        logged(context, tmp_path / mode, replace(config, importance=ImportanceConfig(mode)))
        for mode in ("auto", "truncate", "none")
    )
    assert auto["train/loss"] == truncated["train/loss"] != none["train/loss"]


def test_a_bfloat16_copy_samples_for_a_policy_in_float32(
    context: StageContext, tmp_path: Path
) -> None:
    config = replace(RL, screen_group_size=0, group_size=8, rollout_dtype="bfloat16")
    auto, truncated, none = (
        logged(context, tmp_path / mode, replace(config, importance=ImportanceConfig(mode)))
        for mode in ("auto", "truncate", "none")
    )
    assert auto["train/loss"] == truncated["train/loss"] != none["train/loss"]
    # bfloat16 resolves 1/256 of a value, float32 far less than the bound of the noiseless test.
    assert all(1e-4 < value < 0.1 for value in auto["mismatch/logprob_difference_max"])
    assert {value.dtype for value in weights(tmp_path / "auto" / "out").values()} == {torch.float32}
    # Weights that wait for their steps are in bfloat16 too, and those under which rollouts go on.
    for number, partial in enumerate(("finish", "continue")):
        ahead = replace(config, staleness=2, partial_rollouts=partial, optimization=STILL)
        # A rollout that goes on may train at another temperature than it was sampled at.
        ahead = replace(ahead, temperature=TemperatureConfig(1.0, 1.0))
        values = logged(context, tmp_path / f"ahead{number}", ahead)
        assert all(1e-4 < value < 0.1 for value in values["mismatch/logprob_difference_max"])
