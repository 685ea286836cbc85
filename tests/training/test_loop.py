"""Stages through their own API: resumption to the bit, accumulation, schedules, what they write."""

import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.optimization import ConstantConfig, OptimizerConfig
from reasoning_lab.data.artifacts import Preferences
from reasoning_lab.data.corpus import read_rollouts, write_rollouts
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.models.policy import load_policy, save_policy
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.models.tokenizer import tokenize_rollouts
from reasoning_lab.tracking.curves import read_history
from reasoning_lab.training import loop as base
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.micro_batches import PlannedBatches
from reasoning_lab.training.stage import LabStage
from reasoning_lab.types import Completion, UserError
from tests.support.stages import (
    STAGES,
    STEPS,
    StepTracker,
    assert_same,
    optimization,
    saved_states,
    trained,
    weights,
)


@pytest.mark.parametrize("name", [name for name in STAGES if not name.endswith("_best")])
def test_resumed_stage_is_the_uninterrupted_one_to_the_bit(
    name: str, context: StageContext, tmp_path: Path
) -> None:
    expected, states = saved_states(name, context, tmp_path)
    assert len(states) == STEPS
    before, after = weights(context.inputs["policy"].path), weights(tmp_path / "out")
    assert any(not torch.equal(before[key], after[key]) for key in before)
    for number, folder in enumerate(states, start=1):
        tracker = StepTracker()
        resumed = trained(name, replace(context, tracker=tracker), folder)
        if name != "rl_options":  # Two optimizer steps a batch, and none where nothing trains.
            assert list(tracker.seconds) == list(range(number, STEPS))
        assert_same(tmp_path, folder)
        assert {**resumed, "train_s": 0} == {**expected, "train_s": 0}
        whole, part = read_history(tmp_path / "out"), read_history(folder / "out")
        assert {"train/loss", "train/learning_rate"} <= whole.keys()
        assert part == whole


def test_every_third_step_is_told_with_its_own_values(
    context: StageContext, tmp_path: Path
) -> None:
    config = STAGES["sft"]
    trained("sft", context, tmp_path / "all")
    sparse = replace(config, optimization=optimization(log_every_steps=3))
    trained("sft", context, tmp_path / "some", sparse)
    every, third = (read_history(tmp_path / which / "out") for which in ("all", "some"))
    assert STEPS == 6
    assert set(third["train/loss"]) == {2, 5}
    for key in ("train/loss", "train/learning_rate"):
        assert third[key] == {step: every[key][step] for step in (2, 5)}


def test_a_step_is_timed_from_the_first_of_its_micro_batches(
    context: StageContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that moves on with every pass through the model."""
    passes = 0

    def count(module: torch.nn.Module, _: Any) -> None:
        nonlocal passes
        passes += isinstance(module, torch.nn.Embedding)

    monkeypatch.setattr(base, "time", SimpleNamespace(monotonic=lambda: passes))
    tracker = StepTracker()
    divided = replace(context, hardware=HardwareConfig(micro_batch_size=1), tracker=tracker)
    with torch.nn.modules.module.register_module_forward_pre_hook(count):
        trained("sft", divided, tmp_path)
    assert tracker.seconds == dict.fromkeys(range(STEPS), optimization().batch_size)


def test_damaged_state_is_named_and_the_one_before_it_used(
    context: StageContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained("sft", context, tmp_path)
    older, newest = sorted((tmp_path / "work").rglob("step-*"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    shutil.move(tmp_path / "out", tmp_path / "whole" / "out")
    tracker = StepTracker()
    trained("sft", replace(context, tracker=tracker), tmp_path)
    assert list(tracker.seconds) == [STEPS - 1]
    assert f"{newest} is damaged" in caplog.text
    assert older.exists()
    assert_same(tmp_path / "whole", tmp_path)


def test_state_of_other_micro_batches_is_not_gone_on_from(
    context: StageContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    divided = replace(context, hardware=HardwareConfig(micro_batch_size=1))
    _, states = saved_states("sft", divided, tmp_path / "divided")
    trained("sft", context, tmp_path / "expected")
    assert "starts anew" not in caplog.text
    trained("sft", context, states[0])
    assert "(single-1x" in caplog.text
    assert "the stage starts anew; with the former options it goes on" in caplog.text
    assert_same(tmp_path / "expected", states[0])


def test_dropout_resumes_to_the_bit(context: StageContext, tmp_path: Path) -> None:
    """Torch's random state is part of what is saved."""
    policy, tokenizer = load_policy(context.inputs["policy"].path, "float32")
    policy.config.attention_dropout = policy.config.resid_pdrop = 0.3
    save_policy(policy, tokenizer, tmp_path / "policy")
    dropping = replace(context, inputs={**context.inputs, "policy": Policy(tmp_path / "policy")})
    _, states = saved_states("sft", dropping, tmp_path / "whole")
    trained("sft", context, tmp_path / "plain")
    one, other = weights(tmp_path / "whole" / "out"), weights(tmp_path / "plain" / "out")
    assert any(not torch.equal(one[key], other[key]) for key in one)
    trained("sft", dropping, states[2])
    assert_same(tmp_path / "whole", states[2])


@pytest.mark.parametrize("name", ["sft", "rl"])
def test_same_seed_same_weights_other_seed_others(
    name: str, context: StageContext, tmp_path: Path
) -> None:
    for folder, seed in (("a", 3), ("b", 3), ("c", 4)):
        trained(name, replace(context, seed=seed), tmp_path / folder)
    assert_same(tmp_path / "a", tmp_path / "b")
    one, other = weights(tmp_path / "a" / "out"), weights(tmp_path / "c" / "out")
    assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", ["sft", "midtrain", "dpo", "rl", "rl_options"])
def test_micro_batches_leave_the_result_as_it_is(
    name: str, context: StageContext, tmp_path: Path
) -> None:
    # SGD: AdamW's first steps blow rounding up to the size of the learning rate.
    config = STAGES[name]
    plain = OptimizerConfig("torch.optim.SGD")
    config = replace(
        config,
        optimization=replace(config.optimization, optimizer=plain, length="2 steps"),
    )
    trained(name, context, tmp_path / "whole", config)
    micro = replace(context, hardware=HardwareConfig(micro_batch_size=1))
    trained(name, micro, tmp_path / "micro", config)
    before = weights(context.inputs["policy"].path)
    one, other = weights(tmp_path / "whole" / "out"), weights(tmp_path / "micro" / "out")
    moved = max(float((one[key] - before[key]).abs().max()) for key in one)
    apart = max(float((one[key] - other[key]).abs().max()) for key in one)
    assert moved > 0
    assert apart < 1e-3 * moved


def test_rl_learns_only_from_groups_with_a_signal(context: StageContext, tmp_path: Path) -> None:
    metrics = trained("rl", context, tmp_path)
    assert metrics["problems"] == 40
    # Two tosses of a fair coin differ for about half of the prompts.
    assert 5 < metrics["pool"] < 35
    assert metrics["train_tokens"] > 0


def test_rl_without_a_prompt_in_reach_says_so(context: StageContext, tmp_path: Path) -> None:
    config = STAGES["rl"]
    hopeless = replace(config, max_new_tokens=1)  # type: ignore[call-arg]
    with pytest.raises(UserError, match=r"stages\.stage: no prompt of 40 passes"):
        trained("rl", context, tmp_path, hopeless)


def stopping_early(rate: float, decay_on_stop: int) -> LabStage:
    """Midtraining whose steps are so large that they only do harm."""
    return replace(
        STAGES["midtrain"],
        patience=2,  # type: ignore[call-arg]
        decay_on_stop=decay_on_stop,
        validate_every_steps=1,
        optimization=optimization(
            batch_size=2,
            length="30 steps",
            learning_rate=rate,
            schedule=ConstantConfig(),
            optimizer=OptimizerConfig("torch.optim.SGD"),
            clip_norm=100.0,
        ),
    )


# The last falls for the steps that are left.
@pytest.mark.parametrize("decay_on_stop", [0, 3, 100])
def test_midtrain_stops_when_validation_no_longer_improves(
    decay_on_stop: int, context: StageContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    wild = stopping_early(30.0, decay_on_stop)
    metrics, states = saved_states("midtrain", context, tmp_path, wild)
    losses = list(read_history(tmp_path / "out")["val/loss"].values())
    decided_at = 2 + next(n for n in range(1, 30) if min(losses[n : n + 2]) >= min(losses[:n]))
    decay_steps = min(decay_on_stop, 30 - decided_at)
    assert metrics["steps"] == decided_at + decay_steps
    rates = list(read_history(tmp_path / "out")["train/learning_rate"].values())
    decay = [30.0 * (1 - step / decay_steps) for step in range(decay_steps)]
    assert rates == pytest.approx([30.0] * decided_at + decay)
    assert (
        "the validation loss has not fallen for 2 validations at step "
        f"{decided_at}; training ends after {decay_steps} steps more."
    ) in caplog.text
    # A kill after the decision does not undo it.
    for state in states[decided_at - 1 :][:6]:
        resumed = trained("midtrain", context, state, wild)
        assert {**resumed, "train_s": 0} == {**metrics, "train_s": 0}
        assert_same(tmp_path, state)


def test_midtrain_says_that_its_validation_loss_is_no_number(
    context: StageContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    trained("midtrain", context, tmp_path, stopping_early(1e38, 0))
    assert "the validation loss is not finite at step" in caplog.text


@pytest.mark.parametrize(("name", "counted"), [("sft", "examples"), ("dpo", "pairs")])
def test_what_is_longer_than_max_tokens_is_left_out(
    name: str, counted: str, context: StageContext, tmp_path: Path
) -> None:
    """The prompts are `coin 0` to `coin 99`: a token for the word, one or two for the number."""
    config = STAGES[name]
    everything = trained(name, context, tmp_path / "all")
    examples = tokenize_rollouts(
        load_policy(context.inputs["policy"].path, "float32")[1],
        read_rollouts(context.inputs["corpus"].path / "accepted.parquet"),
    )
    lengths = sorted({example.length for example in examples})
    assert len(lengths) > 1
    limit = replace(config, max_tokens=lengths[0])  # type: ignore[call-arg]
    fewer = trained(name, context, tmp_path / "short", limit)
    assert 0 < fewer[counted] < everything[counted]
    with pytest.raises(
        UserError, match=r"stages\.stage\.max_tokens=2: nothing is left; .* raise it"
    ):
        trained(name, context, tmp_path / "none", replace(config, max_tokens=2))  # type: ignore[call-arg]


def test_a_pair_whose_side_has_no_token_is_left_out_and_counted(
    context: StageContext, tmp_path: Path
) -> None:
    """As of an engine whose context a prompt fills: nothing was written before the cut."""
    preferences = tmp_path / "preferences"
    preferences.mkdir()
    sides = {
        side: read_rollouts(context.inputs["preferences"].path / f"{side}.parquet")[:12]
        for side in ("chosen", "rejected")
    }
    empty = replace(sides["rejected"][0], completion=Completion([], "", truncated=True))
    write_rollouts(preferences / "chosen.parquet", sides["chosen"])
    write_rollouts(preferences / "rejected.parquet", [empty, *sides["rejected"][1:]])
    inputs = {**context.inputs, "preferences": Preferences(preferences)}
    ledger = Ledger()
    metrics = trained("dpo", replace(context, inputs=inputs), tmp_path, ledger=ledger)
    assert metrics["pairs"] == 11
    assert ledger.as_json()["pairs"]["dropped"] == {"empty": 1}


def test_a_limit_that_is_not_set_is_no_identity() -> None:
    for name in ("sft", "dpo"):
        config = STAGES[name]
        assert "max_tokens" not in config.identity()
        limited = replace(config, max_tokens=99)  # type: ignore[call-arg]
        assert limited.identity()["max_tokens"] == 99


def test_sft_of_levels_that_were_not_distilled(context: StageContext, tmp_path: Path) -> None:
    config = STAGES["sft"]
    with pytest.raises(UserError, match=r"stages\.stage\.levels.*\[9\]"):
        trained("sft", context, tmp_path, replace(config, levels=[9]))  # type: ignore[call-arg]


def total(numbers: list[int]) -> torch.Tensor:
    return torch.tensor(sum(numbers))


@pytest.mark.parametrize("ahead", [0, 1, 2, 5])
def test_steps_go_on_where_their_state_says(ahead: int) -> None:
    plan = [[0], [1, 2], [3]]
    steps = PlannedBatches(plan, total, ahead)
    reading = iter(steps)
    assert [next(reading), next(reading)] == [0, 3]
    resumed = PlannedBatches(plan, total, ahead)
    resumed.load_state_dict(steps.state_dict())
    assert list(resumed) == [3]
    assert list(resumed) == [0, 3, 3]
    assert len(resumed) == 3


def test_steps_begin_anew_after_a_reader_that_stopped_short() -> None:
    steps = PlannedBatches([[0], [1, 2]], total)
    assert list(islice(steps, 2)) == [0, 3]
    assert list(steps) == [0, 3]
