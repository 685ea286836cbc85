"""What a run of reinforcement learning samples, trains on and logs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import scipy.stats

from reasoning_lab.config.optimization import TrapezoidConfig
from reasoning_lab.config.policy_loss import (
    CISPOConfig,
    ClipConfig,
    DPPOConfig,
    GSPOConfig,
    PolicyLossConfig,
    ReinforceConfig,
    SAPOConfig,
)
from reasoning_lab.config.problems import ProblemsConfig
from reasoning_lab.config.validation import ValidationConfig
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.stages.rl.options import (
    EntropyConfig,
    FilterConfig,
    ImportanceConfig,
    KLConfig,
    SecondVerifierConfig,
    TemperatureConfig,
)
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.types import UserError, Verdict
from tests.support.rl import TableTracker
from tests.support.stages import RL, optimization, run_stage, trained

BATCH, STEPS = 4, 6


@pytest.fixture
def run(context: Any, tmp_path: Path) -> Any:
    """Trains the coin tosser and gives its metrics, each step's values and the tables."""

    def train(**changes: Any) -> tuple[dict[str, Any], list[dict[str, float]], TableTracker]:
        tracker = TableTracker()
        config = RLStage(
            problems=ProblemsConfig([1], 40),
            group_size=2,
            max_new_tokens=12,
            optimization=optimization(learning_rate=1e-4, batch_size=BATCH),
        )
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        (folder / "out").mkdir(parents=True)
        metrics = run_stage(
            replace(config, **changes),
            replace(context, out_dir=folder / "out", work_dir=folder / "work", tracker=tracker),
        )
        steps = tracker.steps
        return metrics, [steps[step] for step in sorted(steps)], tracker

    return train


def values(steps: list[dict[str, float]], key: str) -> list[float]:
    return [step[key] for step in steps if key in step]


def test_dynamic_sampling_goes_on_until_every_group_trains(run: Any) -> None:
    # Two tosses of a coin differ for half of the prompts.
    plain, steps, _ = run()
    assert min(values(steps, "rollout/groups_trained")) < BATCH
    assert plain["rollouts"] == 2 * BATCH * STEPS
    filled, steps, _ = run(dynamic_sampling_rounds=8)
    assert values(steps, "rollout/groups_trained") == [BATCH] * STEPS
    drawn = values(steps, "rollout/rollouts")
    silent = values(steps, "rollout/groups_without_signal")
    assert drawn == [2 * (BATCH + dropped) for dropped in silent]
    assert filled["rollouts"] == sum(drawn) > plain["rollouts"]


def test_hard_prompts_get_more_rollouts(run: Any) -> None:
    _, steps, _ = run(filter=FilterConfig(hard_pass_rate=0.0, hard_rollouts=5))
    hard = values(steps, "rollout/hard_prompts")
    assert max(hard) > 0
    assert values(steps, "rollout/rollouts") == [2 * BATCH + 5 * count for count in hard]


def test_each_dropped_prompt_has_its_reason(run: Any) -> None:
    _, steps, _ = run(group_size=4, filter=FilterConfig(max_pass_rate=0.4))
    names = ("without_signal", "too_easy", "uneven", "trained")
    counts = [[step[f"rollout/groups_{name}"] for name in names] for step in steps]
    assert all(sum(row) == BATCH for row in counts)
    assert sum(row[1] for row in counts) > 0
    _, steps, _ = run(group_size=4, filter=FilterConfig(max_length_variation=0.0))
    assert sum(values(steps, "rollout/groups_uneven")) > 0


def test_engine_and_trainer_agree_and_the_first_step_stands_on_the_reference(run: Any) -> None:
    _, steps, _ = run(
        group_size=8,
        kl=KLConfig(log_every_steps=1),
        optimization=optimization(learning_rate=3e-3, batch_size=BATCH),
    )
    assert max(values(steps, "mismatch/logprob_difference_max")) < 1e-3
    far = values(steps, "train/kl_to_reference")
    assert abs(far[0]) < 1e-6
    assert far[-1] > 1e-4
    # At the weights that sampled nothing is clipped.
    assert values(steps, "train/clip_high_frac") == [0.0] * len(far)


POLICY_LOSSES: dict[str, PolicyLossConfig] = {
    "clip": ClipConfig(),
    "gspo": GSPOConfig(),
    "cispo": CISPOConfig(),
    "dppo": DPPOConfig(),
    "sapo": SAPOConfig(),
    "reinforce": ReinforceConfig(),
}


@pytest.mark.long
@pytest.mark.parametrize("name", POLICY_LOSSES)
def test_each_policy_loss_learns_to_be_brief_over_several_epochs(run: Any, name: str) -> None:
    _, steps, _ = run(
        group_size=8,
        epochs=3,
        policy_loss=POLICY_LOSSES[name],
        signal="reward",
        rewards={"short": {"_target_": "reasoning_lab.rewards.linear_length"}},
        optimization=optimization(learning_rate=3e-3, batch_size=BATCH, length="10 steps"),
    )
    tokens = values(steps, "rollout/completion_tokens_mean")
    assert tokens[-1] < 0.4 * tokens[0]
    fractions = [values(steps, f"train/clip_{bound}_frac") for bound in ("low", "high")]
    if name in ("sapo", "reinforce"):
        assert fractions == [[], []]
    else:
        assert [max(values) > 0 for values in fractions] == [name != "cispo", True]


def test_later_epochs_are_clipped_by_sequences_and_entropy_is_rewarded(run: Any) -> None:
    config = {
        "group_size": 8,
        "epochs": 3,
        "policy_loss": GSPOConfig(),
        "importance": ImportanceConfig("mask", "sequence", 0.5, 5.0),
        "optimization": optimization(learning_rate=1e-2, batch_size=BATCH),
    }
    _, plain, _ = run(**config)
    assert max(values(plain, "train/clip_high_frac")) > 0
    assert not values(plain, "train/entropy")
    _, rewarded, _ = run(**config, entropy=EntropyConfig(bonus=3.0, top_frac=0.5))
    last = [steps[-1]["rollout/entropy"] for steps in (plain, rewarded)]
    assert last[1] > 1.1 * last[0]
    assert all(value > 0 for value in values(rewarded, "train/entropy"))


def test_tokens_that_do_not_train_are_counted_by_reason(context: Any, tmp_path: Path) -> None:
    config = replace(
        RL,
        staleness=1,
        importance=ImportanceConfig("mask", "token", 0.95, 1.05),
        entropy=EntropyConfig(top_frac=0.5),
        optimization=optimization(learning_rate=3e-3),
    )
    ledger, tracker = Ledger(), TableTracker()
    trained("rl", replace(context, tracker=tracker), tmp_path, config, ledger)
    flow = ledger.flows["completion_tokens"]
    steps = tracker.steps.values()
    outside, low = (
        values(list(steps), f"train/{reason}_frac") for reason in ("outside_band", "low_entropy")
    )
    # The first steps' rollouts are of the weights that they train.
    assert outside[0] == 0 < max(outside)
    assert flow.dropped["outside_band"] / flow.taken == pytest.approx(
        sum(outside) / len(outside), rel=0.3
    )
    assert 0.3 < low[0] < 0.7
    assert flow.passed > 0
    # What has little entropy is left out by choice; of the band the user is warned.
    assert flow.unplanned == flow.dropped["outside_band"]


@pytest.mark.parametrize("steps", [30, pytest.param(200, marks=pytest.mark.long)])
def test_without_learning_the_mismatch_stays_where_it_was(run: Any, steps: int) -> None:
    still = optimization(learning_rate=0.0, batch_size=2, length=f"{steps} steps")
    _, logged, _ = run(group_size=4, optimization=still, advantage="reinforce_pp", signal="reward")
    measured = values(logged, "mismatch/logprob_difference_mean")
    assert len(measured) > 0.8 * steps
    # Student's t of the slope, of which 4 would be a trend.
    slope = scipy.stats.linregress(range(len(measured)), measured)
    assert abs(slope.slope) < 4 * slope.stderr
    assert max(values(logged, "mismatch/kl")) < 1e-9
    assert min(values(logged, "mismatch/effective_sample_frac")) > 1 - 1e-9
    assert max(values(logged, "mismatch/outside_frac")) == 0.0


def test_after_large_updates_the_engine_samples_from_the_new_weights(run: Any) -> None:
    large = optimization(learning_rate=1e-2, batch_size=BATCH, length="10 steps")
    _, steps, _ = run(group_size=8, optimization=large)
    assert max(values(steps, "mismatch/logprob_difference_max")) < 1e-4


def test_only_what_was_measured_is_logged(run: Any) -> None:
    _, steps, _ = run(group_size=8, kl=KLConfig(log_every_steps=4))
    assert ["train/kl_to_reference" in step for step in steps] == [
        number % 4 == 0 for number in range(STEPS)
    ]
    for step in steps:
        parts = step["time/generate_s"] + step["time/train_s"]
        assert parts <= step["time/step_s"] < parts + 1


def test_later_epochs_leave_the_policy_that_sampled(run: Any) -> None:
    _, steps, _ = run(
        group_size=8, epochs=4, optimization=optimization(learning_rate=1e-2, batch_size=BATCH)
    )
    assert max(values(steps, "train/clip_high_frac")) > 0
    assert max(values(steps, "mismatch/logprob_difference_max")) < 1e-3


@pytest.mark.parametrize("balance", ["all", "equal"])
def test_what_is_logged_of_rollouts(run: Any, balance: str) -> None:
    _, steps, tracker = run(group_size=8, filter=FilterConfig(balance=balance))
    for step in steps:
        verdicts = sum(step[f"rollout/{verdict}_frac"] for verdict in Verdict)
        assert verdicts == pytest.approx(1.0)
        correct = step["rollout/correct_frac"]
        assert step["rollout/reward_mean"] == pytest.approx(2 * correct - 1)
        assert step["rollout/reward/correctness_mean"] == step["rollout/reward_mean"]
        assert 0 < step["rollout/entropy"] < 6
        assert 0 < step["time/generate_frac"] < 1
    rollouts, columns = tracker.tables[0]
    assert len(rollouts) == len(columns["reward"]) == len(columns["advantage"]) > 0
    for rollout, reward, advantage in zip(
        rollouts, columns["reward"], columns["advantage"], strict=True
    ):
        assert reward == (1.0 if rollout.correct else -1.0)
        assert (advantage > 0) is rollout.correct


def test_rollouts_ahead_are_those_of_the_weights_before_the_last_update(run: Any) -> None:
    drawn = [f"rollout/{name}" for name in ("reward_mean", "completion_tokens_mean", "wrong_frac")]

    def sampled_metrics(steps: list[dict[str, float]], number: int) -> list[float]:
        return [steps[number][key] for key in drawn]

    steady = TrapezoidConfig(decay_frac=0.5)
    fast = optimization(learning_rate=1e-2, batch_size=BATCH, schedule=steady)
    still = replace(fast, learning_rate=0.0)
    _, asleep, _ = run(group_size=8, optimization=still)
    _, awake, _ = run(group_size=8, optimization=fast)
    _, ahead, _ = run(group_size=8, optimization=fast, staleness=1)
    assert values(awake, "rollout/staleness") == [0.0] * STEPS
    assert values(ahead, "rollout/staleness") == [0.0] + [1.0] * (STEPS - 1)
    # Steps 0 and 1 were drawn before any update, step 2 after the first.
    assert sampled_metrics(ahead, 0) == sampled_metrics(asleep, 0)
    assert sampled_metrics(ahead, 1) == sampled_metrics(asleep, 1) != sampled_metrics(awake, 1)
    assert sampled_metrics(ahead, 2) != sampled_metrics(asleep, 2)
    assert (
        ahead[1]["mismatch/logprob_difference_max"]
        > 1e-2
        > awake[1]["mismatch/logprob_difference_max"]
    )
    # Without an update in between, ahead is the same as in turn.
    _, both, _ = run(group_size=8, optimization=still, staleness=1)
    assert [sampled_metrics(both, number) for number in range(STEPS)] == [
        sampled_metrics(asleep, number) for number in range(STEPS)
    ]


def test_partial_rollouts_have_the_logprobs_of_the_versions_that_sampled_them(run: Any) -> None:
    steady = TrapezoidConfig(decay_frac=0.5)
    options: dict[str, Any] = {
        "group_size": 4,
        "max_new_tokens": 24,
        "signal": "reward",
        "rewards": {"short": {"_target_": "reasoning_lab.rewards.linear_length"}},
        "temperature": TemperatureConfig(start=1.5, end=1.5),
        "staleness": 4,
        "partial_rollouts": "continue",
    }
    still = optimization(learning_rate=0.0, batch_size=BATCH, length="10 steps", schedule=steady)
    _, asleep, _ = run(**options, optimization=still)
    _, awake, _ = run(**options, optimization=replace(still, learning_rate=1e-2))
    for steps in (asleep, awake):
        assert max(values(steps, "rollout/interrupted_frac")) > 0.1
        assert max(values(steps, "rollout/age_max")) <= 4
        assert values(steps, "rollout/age_mean")[0] == 0 < values(steps, "rollout/age_mean")[-1]
        assert values(steps, "rollout/rollouts") == [4 * BATCH] * 10
        assert max(values(steps, "rollout/groups_stale")) == 0
    # Weights that stay give each token the logprob that it was sampled with, also after a stop.
    assert max(values(asleep, "mismatch/logprob_difference_max")) < 1e-4
    assert max(values(awake, "mismatch/logprob_difference_max")) > 1e-2


def test_validation_watches_and_changes_nothing(run: Any) -> None:
    fast = optimization(learning_rate=1e-2, batch_size=BATCH)
    validation = ValidationConfig(count=5, every_steps=4, samples=4, temperature=1.0)
    plain, unwatched, _ = run(optimization=fast)
    validated, watched, _ = run(optimization=fast, validation=validation)
    assert not values(unwatched, "val/pass@1")
    assert ["val/pass@1" in step for step in watched] == [n % 4 == 0 for n in range(STEPS)]
    assert all(0 < accuracy < 1 for accuracy in values(watched, "val/pass@1"))
    assert values(watched, "train/loss") == values(unwatched, "train/loss")
    assert validated["rollouts"] == plain["rollouts"]
    # Drawn one step ahead, it meets the weights from before the last update.
    often = replace(validation, every_steps=1)
    _, ahead, _ = run(optimization=fast, validation=often, staleness=1)
    _, now, _ = run(optimization=fast, validation=often)
    assert ahead[0]["val/pass@1"] == now[0]["val/pass@1"]


def test_a_global_baseline_screens_nothing_and_loses_no_group(run: Any) -> None:
    metrics, steps, _ = run(screen_group_size=2, advantage="reinforce_pp")
    assert metrics["pool"] == metrics["problems"]
    assert values(steps, "rollout/groups_trained") == [BATCH] * STEPS
    screened, _, _ = run(screen_group_size=2)
    assert screened["pool"] < screened["problems"]


def test_a_pool_smaller_than_the_batch_has_a_group_for_each_place(run: Any) -> None:
    _, steps, tracker = run(
        problems=ProblemsConfig([1], 2), group_size=8, advantage="reinforce_pp", table_every_steps=1
    )
    assert values(steps, "rollout/groups_trained") == [BATCH] * STEPS
    differing = 0
    for rollouts, _ in tracker.tables:
        places = [rollouts[start : start + 4] for start in range(0, 16, 4)]
        texts: dict[str, list[list[str]]] = {}
        for place in places:
            texts.setdefault(place[0].problem.id, []).append([r.completion.text for r in place])
        assert len(texts) == 2
        differing += sum(first != second for first, second in texts.values())
    # Four tosses are alike once in sixteen times, and of the same draws always.
    assert differing > STEPS


def test_what_a_reward_cannot_judge_does_not_train(run: Any) -> None:
    """What is right is not judged, so no group differs in correctness: nothing trains at all."""
    rewards = {
        "c": {
            "_target_": "reasoning_lab.rewards.correctness",
            "wrong": 0.5,
            "unparseable": 0.5,
            "correct": None,
        }
    }
    drawn = BATCH * STEPS
    with pytest.raises(UserError, match=rf"nothing is left; 0 of {drawn} groups .*signal=reward"):
        run(rewards=rewards)


def test_annealing_is_no_collapse(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A policy that does not learn keeps its entropy, whatever temperature draws its rollouts."""
    still = optimization(learning_rate=0.0, batch_size=BATCH, length="24 steps")
    changes = {"group_size": 4, "optimization": still}
    cold = TemperatureConfig(start=1.0, end=0.05, anneal_frac=0.5)
    _, steps, _ = run(temperature=cold, **changes)
    entropies = values(steps, "rollout/entropy")
    assert sum(entropies[-10:]) > 0.5 * sum(entropies[:10])
    assert "entropy collapses" not in caplog.text


def test_a_second_verifier_reads_at_the_steps_that_are_asked_for(run: Any) -> None:
    _, steps, _ = run(second_verifier=SecondVerifierConfig(count=4, every_steps=3))
    assert [at for at, step in enumerate(steps) if "rollout/second_verifier_read" in step] == [0, 3]
    _, steps, _ = run(second_verifier=SecondVerifierConfig(count=0, every_steps=1))
    assert not values(steps, "rollout/second_verifier_read")
