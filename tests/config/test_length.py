"""Lengths of a training: read, written, turned into steps, and known to `plan` as bounds."""

import numpy as np
import pytest

from reasoning_lab.commands.plan import PlannedNode, planned
from reasoning_lab.config.optimization import Length, OptimizationConfig
from reasoning_lab.models.bounds import Bounds
from reasoning_lab.training.step_plan import in_steps, step_plan
from reasoning_lab.types import UserError
from tests.support.composition import composed_recipe

ROWS, BATCH, ROW_TOKENS = 1000, 32, 50.0


@pytest.mark.parametrize(
    ("text", "written", "steps"),
    [
        ("500 steps", "500 steps", 500),
        ("1 step", "1 step", 1),
        ("1steps", "1 step", 1),
        # 3 × 1,000 rows are 93 full batches of 32, and 24 rows.
        ("3 epochs", "3 epochs", 93),
        ("1 Epoch", "1 epoch", 31),
        ("0.5 epochs", "0.5 epochs", 15),
        ("0.001 epochs", "0.001 epochs", 1),
        # A step reads 32 rows of 50 tokens: 1,600.
        ("2B tokens", "2B tokens", 1_250_000),
        ("1.5M tokens", "1500K tokens", 937),
        ("16K tokens", "16K tokens", 10),
        ("1601 tokens", "1601 tokens", 1),
        ("2k steps", "2000 steps", 2000),
    ],
)
def test_length_becomes_steps(text: str, written: str, steps: int) -> None:
    length = Length.parse(text, "length")
    assert str(length) == written
    assert Length.parse(written, "length") == length
    assert length.steps(ROWS, BATCH, ROW_TOKENS) == steps


@pytest.mark.parametrize(
    "text",
    ["3", "epochs", "3 days", "-1 steps", "0 epochs", "1.5 steps", "3 epochs!"],
)
def test_what_is_no_length_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(UserError, match=f"^stages.sft.length: '{text}' .*like 3 epochs, 500 steps"):
        Length.parse(text, "stages.sft.length")


def test_equal_lengths_are_one_identity() -> None:
    one, other = (
        composed_recipe(f"stages.sft.optimization.length={text}").nodes[-1]
        for text in ("2 epochs", "2.0 epoch")
    )
    assert one.fingerprint == other.fingerprint


def test_steps_are_logged_where_the_length_is_another(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    optimization = OptimizationConfig(length="3 epochs", batch_size=128)
    assert optimization.planned_steps is None
    with pytest.raises(ValueError, match="3 epochs"):
        _ = optimization.steps
    assert in_steps(optimization, "sft", 9088, 100.0, "pairs").steps == 213
    assert caplog.messages == ["stages.sft: 3 epochs = 213 steps of 128 pairs."]
    in_steps(OptimizationConfig(length="7 steps", batch_size=1), "sft", 1, 1.0)
    assert len(caplog.messages) == 1


def test_overfitting_takes_turns_with_the_first_batches() -> None:
    optimization = OptimizationConfig(length="5 steps", batch_size=2)
    plan = step_plan(np.ones(8), optimization, seed=0)
    assert len({tuple(batch) for batch in plan[:4].tolist()}) == 4
    overfit = OptimizationConfig(length="5 steps", batch_size=2, overfit_batches=2)
    assert step_plan(np.ones(8), overfit, seed=0).tolist() == plan[[0, 1, 0, 1, 0]].tolist()


def nodes(*overrides: str) -> dict[str, PlannedNode]:
    recipe = composed_recipe("experiment=smoke", *overrides)
    return {node.stage: node for node in planned([recipe])}


def test_plan_bounds_epochs_by_the_configs() -> None:
    """Of the smoke recipe: 120 problems × 2 rollouts, at most one pair a problem, 60 of SFT."""
    lengths = [
        f"stages.{stage}.optimization.length=2 epochs"
        for stage in ("pretrain", "midtrain", "sft", "dpo", "rl")
    ]
    nodes_ = nodes(*lengths)
    # 300 answers and as many documents of single steps, 8 a step.
    assert nodes_["pretrain"].steps == 2 * 600 // 8
    assert nodes_["midtrain"].steps == 2 * 240 // 2
    assert nodes_["sft"].steps == 2 * 60 // 8
    assert nodes_["dpo"].steps == 2 * 120 // 2
    assert nodes_["rl"].steps == 2 * 8 // 4
    assert all(nodes_[stage].at_most for stage in ("pretrain", "midtrain", "sft", "dpo", "rl"))
    assert not nodes_["distill"].at_most
    assert nodes_["midtrain"].price.train_tokens == Bounds(None, 480 * 512)


def test_plan_bounds_tokens_where_a_row_has_a_bound() -> None:
    length = "stages.{}.optimization.length=1M tokens"
    nodes_ = nodes(*(length.format(stage) for stage in ("midtrain", "sft", "rl")))
    assert nodes_["midtrain"].steps == 1_000_000 // (2 * 512)
    assert nodes_["rl"].steps == 1_000_000 // (4 * 8 * 32)
    # A row of SFT may have any length here.
    assert (nodes_["sft"].steps, nodes_["sft"].rows, nodes_["sft"].at_most) == (None, None, False)


def test_plan_knows_steps_exactly() -> None:
    assert (nodes()["sft"].steps, nodes()["sft"].at_most) == (4, False)
