"""`plan` estimates from stored work that differs from a node in its budget alone."""

from pathlib import Path

import pytest

from reasoning_lab.commands.plan import PlannedNode, planned
from reasoning_lab.graph.record import Metadata
from reasoning_lab.graph.store import Store
from tests.support.composition import composed_recipe


def midtrain(runs: Path, *overrides: str) -> PlannedNode:
    recipe = composed_recipe("experiment=smoke", f"paths.runs={runs}", *overrides)
    (node,) = (node for node in planned([recipe]) if node.stage == "midtrain")
    return node


def store_measured(runs: Path, wall_s: float, train_tokens: int, *overrides: str) -> None:
    """What a run of the smoke recipe's mid-training, 4 steps of 2 rows, would have left."""
    recipe = composed_recipe("experiment=smoke", f"paths.runs={runs}", *overrides)
    (node,) = (node for node in recipe.nodes if node.name == "midtrain")
    metrics = {"planned_rows": 8, "wall_s": wall_s, "train_tokens": train_tokens}
    Store(runs / "store").obtain(
        node.stage.name,
        node.fingerprint,
        lambda out, work: Metadata(
            kind="policy", identity=node.identity, inputs={}, seed=0, metrics=metrics, versions={}
        ),
    )


@pytest.mark.parametrize(
    ("overrides", "wall_s"),
    [
        (["seed=1"], 6),
        (["seed=1", "stages.midtrain.optimization.length=40 steps"], 60),
        # More than ten times the rows that were measured: start-up is most of so short a run.
        (["seed=1", "stages.midtrain.optimization.length=44 steps"], None),
        # Rows of another length cost something else.
        (["seed=1", "stages.midtrain.row_tokens=4096"], None),
        (["seed=1", "model.architecture.hidden_size=32"], None),
    ],
)
def test_only_like_work_is_scaled(
    overrides: list[str], wall_s: float | None, tmp_path: Path
) -> None:
    store_measured(tmp_path, wall_s=6.0, train_tokens=1000)
    assert midtrain(tmp_path, *overrides).wall_s == wall_s


def test_run_that_trained_on_nothing_says_nothing_of_tokens(tmp_path: Path) -> None:
    store_measured(tmp_path, wall_s=6.0, train_tokens=0)
    assert midtrain(tmp_path, "seed=1").train_tokens is None
