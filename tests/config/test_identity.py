"""The shipped recipes as linked graphs, and what does and does not change their fingerprints."""

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from reasoning_lab.config.fields import check_values
from reasoning_lab.config.identity import identity_of
from reasoning_lab.stages.rl.options import FilterConfig
from reasoning_lab.types import UserError
from tests.conftest import Compose
from tests.support.composition import composed_recipe


@pytest.mark.parametrize(
    ("removed", "reader", "kind", "maker"),
    [
        ("distill", "midtrain", "corpus", "'distill'"),
        ("prefer", "dpo", "preferences", "'prefer' or 'prefer_mixed' or 'prefer_teacher'"),
        ("pretrain", "midtrain", "policy", "'pretrain'"),
    ],
)
def test_impossible_removal_names_the_maker(
    removed: str, reader: str, kind: str, maker: str, composed: Compose
) -> None:
    with pytest.raises(UserError) as refusal:
        composed(f"ablate={removed}")
    sentence = str(refusal.value)
    assert sentence.startswith(f"stages.{reader}: it needs a {kind}")
    assert maker.split(" or ")[0] in sentence
    assert maker.split(" or ")[-1] in sentence
    assert ("model.path" in sentence) == (kind == "policy")


def test_ablation_and_hydras_removal_are_the_same_run(composed: Compose) -> None:
    mine = composed("ablate=[prefer,dpo]")
    hydras = composed("~stages.prefer", "~stages.dpo")
    assert [n.fingerprint for n in mine.nodes] == [n.fingerprint for n in hydras.nodes]
    assert mine.variant == "prefer+dpo"


def test_removal_keeps_what_came_before(composed: Compose) -> None:
    whole = {node.name: node.fingerprint for node in composed().nodes}
    without = {node.name: node.fingerprint for node in composed("ablate=sft").nodes}
    unchanged = {name for name in without if whole[name] == without[name]}
    assert unchanged == {
        "pretrain",
        "pretrain/heldout",
        "distill",
        "midtrain",
        "midtrain/heldout",
    }


def test_stage_may_appear_twice_in_the_shipped_recipe(composed: Compose) -> None:
    nodes = composed("+stage@stages.sft_again=sft").nodes
    policy = {node.name: node.inputs["policy"].name for node in nodes if "policy" in node.inputs}
    assert policy["sft_again"] == "rl"


def test_every_policy_is_evaluated_right_after_it(composed: Compose) -> None:
    names = [node.name for node in composed("benchmark=[heldout,validation]").nodes]
    policies = ["pretrain", "midtrain", "sft", "dpo", "rl"]
    for policy in policies:
        at = names.index(policy)
        assert names[at + 1 : at + 3] == [f"{policy}/heldout", f"{policy}/validation"]
    assert len(names) == 3 * len(policies) + 2


def test_benchmark_is_identity_of_its_evaluations_only(composed: Compose) -> None:
    before = {node.name: node.fingerprint for node in composed().nodes}
    after = {node.name: node.fingerprint for node in composed("benchmarks.heldout.seed=9").nodes}
    assert {n for n in before if before[n] != after[n]} == {n for n in before if "/" in n}


def changed_value(value: Any) -> Any:
    """Another value of the same type."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value}_other"
        case None:
            return "other"
        case Mapping():
            return {**value, "another": 1}
        case Sequence():
            return [*value, 77]
    raise TypeError(value)


def fields_of(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Path of every leaf below a dataclass, and whether it or what holds it is placement."""
    for item in dataclasses.fields(value):
        placed = bool(item.metadata.get("placement", False))
        content = getattr(value, item.name)
        if dataclasses.is_dataclass(content) and not placed:
            yield from fields_of(content, (*path, item.name))
        else:
            yield (*path, item.name), placed


def with_change(value: Any, path: Sequence[str]) -> Any:
    altered = copy.deepcopy(value)
    holder = altered
    for name in path[:-1]:
        holder = getattr(holder, name)
    setattr(holder, path[-1], changed_value(getattr(holder, path[-1])))
    return altered


PLACED = {
    ("after",),
    ("kl", "log_every_steps"),
    ("optimization", "checkpoint_every_minutes"),
    ("optimization", "checkpoint_every_steps"),
    ("optimization", "keep_checkpoints"),
    ("optimization", "keep_state"),
    ("optimization", "log_every_steps"),
    ("packing",),
    ("second_verifier", "count"),
    ("second_verifier", "every_steps"),
    ("shard_problems",),
    ("table_every_steps",),
    ("validation", "table_rollouts"),
    ("validation_batch_rows",),
}


@pytest.mark.parametrize("name", ["pretrain", "distill", "midtrain", "sft", "prefer", "dpo", "rl"])
def test_every_field_is_identity_or_placement(name: str) -> None:
    config = composed_recipe().root.stages[name]
    before = identity_of(config)
    for path, placed in fields_of(config):
        assert placed == (path in PLACED), path
        assert (identity_of(with_change(config, path)) == before) == placed, path


def test_hardware_tracker_and_paths_are_no_identity(composed: Compose) -> None:
    root = composed().root
    for placement in (root.hardware, root.tracker, root.paths):
        assert identity_of(placement) == {}
    for identity in (root.model, root.benchmarks["heldout"]):
        assert all(not placed for _, placed in fields_of(identity))


@pytest.mark.parametrize(
    "override",
    ["hardware.threads=1", "hardware.micro_batch_size=4", "paths.runs=x", "tracker.mode=offline"],
)
def test_placement_changes_no_fingerprint(override: str, composed: Compose) -> None:
    assert [n.fingerprint for n in composed(override).nodes] == [
        n.fingerprint for n in composed().nodes
    ]


def test_schemas_declare_choices_and_bounds() -> None:
    with pytest.raises(UserError, match="'most' is unknown; choose all or equal"):
        check_values(FilterConfig(balance="most"), "stages.rl.filter")
