"""What a run of reinforcement learning samples, trains on and logs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.config.optimization import TrapezoidConfig
from reasoning_lab.config.problems import ProblemsConfig
from reasoning_lab.config.validation import ValidationConfig
from reasoning_lab.stages.rl.stage import (
    FilterConfig,
    KLConfig,
    RLStage,
    TemperatureConfig,
)
from reasoning_lab.types import UserError, Verdict
from tests.support.rl import TableTracker
from tests.support.stages import optimization, run_stage

BATCH, STEPS = 4, 6


@pytest.fixture
def run(context: Any, tmp_path: Path) -> Any:
    """Trains the coin tosser and gives its metrics, each step's values and the tables."""

    def trained(**changes: Any) -> tuple[dict[str, Any], list[dict[str, float]], TableTracker]:
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
        steps = tracker.lightning_logger.steps
        return metrics, [steps[step] for step in sorted(steps)], tracker

    return trained


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
    assert max(values(steps, "train/mismatch_max")) < 1e-3
    far = values(steps, "train/kl_to_reference")
    assert abs(far[0]) < 1e-6
    assert far[-1] > 1e-4
    # At the weights that sampled nothing is clipped.
    assert values(steps, "train/clip_high_frac") == [0.0] * len(far)


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
    assert max(values(steps, "train/mismatch_max")) < 1e-3


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
    assert ahead[1]["train/mismatch_max"] > 1e-2 > awake[1]["train/mismatch_max"]
    # Without an update in between, ahead is the same as in turn.
    _, both, _ = run(group_size=8, optimization=still, staleness=1)
    assert [sampled_metrics(both, number) for number in range(STEPS)] == [
        sampled_metrics(asleep, number) for number in range(STEPS)
    ]


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
