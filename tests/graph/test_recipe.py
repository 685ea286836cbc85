"""Linking, removal, and what does and does not change a fingerprint."""

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning_lab.commands.compose import makers, register_schemas
from reasoning_lab.config.fields import check_values
from reasoning_lab.config.plain import identity_of
from reasoning_lab.config.schema import StageConfig
from reasoning_lab.graph.recipe import Node, ablated, link, ordered, with_evaluations
from reasoning_lab.types import UserError
from tests.conftest import Compose, composed_recipe

GROUPS = {"model": {"path": None, "width": 8}, "data": {"path": "abc"}}


def stage(produces: str, *consumes: str, **changes: Any) -> StageConfig:
    reads = ["data"] if produces != "policy" else ["model"]
    config = StageConfig(
        run=f"reasoning_lab.stages.{produces}.module.run",
        consumes=list(consumes),
        produces=produces,
        reads=reads,
    )
    return dataclasses.replace(config, **changes)


RECIPE = {
    "base": stage("policy"),
    "teach": stage("corpus"),
    "mid": stage("policy", "policy", "corpus"),
    "tune": stage("policy", "policy", "corpus"),
    "pair": stage("preferences", "policy"),
    "prefer": stage("policy", "policy", "preferences"),
}


def linked(
    stages: Mapping[str, StageConfig] = RECIPE,
    groups: Mapping[str, Any] = GROUPS,
    seed: int = 0,
    has_base: bool = False,
) -> dict[str, Node]:
    nodes = link(stages, groups, seed, has_base, makers)
    return {node.name: node for node in nodes}


def inputs(nodes: Mapping[str, Node]) -> dict[str, dict[str, str]]:
    return {
        name: {kind: maker.name for kind, maker in node.inputs.items()}
        for name, node in nodes.items()
    }


def test_each_kind_comes_from_its_latest_maker() -> None:
    assert inputs(linked()) == {
        "base": {},
        "teach": {},
        "mid": {"policy": "base", "corpus": "teach"},
        "tune": {"policy": "mid", "corpus": "teach"},
        "pair": {"policy": "tune"},
        "prefer": {"policy": "tune", "preferences": "pair"},
    }


def test_chain_closes_over_a_removed_stage() -> None:
    nodes = linked(ablated(RECIPE, ["mid"]))
    assert "mid" not in nodes
    assert inputs(nodes)["tune"] == {"policy": "base", "corpus": "teach"}


def test_data_that_nobody_reads_is_not_made() -> None:
    assert list(linked(ablated(RECIPE, "prefer"))) == ["base", "teach", "mid", "tune", "pair"]
    longer = {**ablated(RECIPE, "prefer"), "more": stage("policy", "policy", "corpus")}
    assert list(linked(longer)) == ["base", "teach", "mid", "tune", "more"]


def test_a_stage_follows_the_one_that_it_names() -> None:
    """Two that follow the same stage keep their order; one may follow one that moves itself."""
    moved = {
        "y": stage("policy", after="x"),
        **RECIPE,
        "x": stage("policy", after="teach"),
        "z": stage("policy", after="teach"),
        "w": stage("policy", after="teach"),
    }
    names = ["base", "teach", "x", "y", "z", "w", "mid", "tune", "pair", "prefer"]
    assert list(ordered(moved)) == names
    assert ordered(RECIPE) == RECIPE
    assert list(ordered(RECIPE)) == list(RECIPE)


@pytest.mark.parametrize(("one", "other"), [("nobody", "base"), ("y", "x"), ("x", "base")])
def test_a_stage_that_can_follow_none_is_refused(one: str, other: str) -> None:
    stages = {**RECIPE, "x": stage("policy", after=one), "y": stage("policy", after=other)}
    with pytest.raises(UserError, match=rf"stages\.x\.after: '{one}' is no stage.*null or among"):
        ordered(stages)


def test_what_a_corpus_was_cleaned_of_was_not_trained_on() -> None:
    clean = stage("corpus", "corpus", after="teach")
    nodes = linked(ordered({**RECIPE, "clean": clean}))

    def origins(name: str) -> list[str]:
        return sorted(node.name for node in nodes[name].trained_on())

    assert nodes["clean"].inputs["corpus"].name == "teach"
    assert origins("clean") == []
    assert origins("mid") == ["base", "clean"]
    assert origins("tune") == ["base", "clean", "mid"]
    assert origins("prefer") == ["base", "clean", "mid", "pair", "tune"]


def test_data_stage_that_is_last_is_made() -> None:
    assert list(linked({"teach": RECIPE["teach"]})) == ["teach"]


def test_repeated_stage_starts_from_its_first_pass() -> None:
    nodes = linked({**RECIPE, "again": RECIPE["tune"]})
    assert inputs(nodes)["again"] == {"policy": "prefer", "corpus": "teach"}
    assert nodes["again"].fingerprint != nodes["tune"].fingerprint
    assert nodes["again"].folder == nodes["tune"].folder


def test_a_name_changes_no_fingerprint() -> None:
    renamed = {f"my_{name}": config for name, config in RECIPE.items()}
    found = [node.fingerprint for node in linked(renamed).values()]
    assert found == [node.fingerprint for node in linked().values()]


@pytest.mark.parametrize(("start", "policy"), [("base", "base"), ("mid", "mid")])
def test_init_from_names_an_earlier_stage(start: str, policy: str) -> None:
    tune = dataclasses.replace(RECIPE["tune"], init_from=start)
    stages = {"root": stage("policy"), **RECIPE, "tune": tune}
    if start == "base":
        with_checkpoint = inputs(linked(stages, has_base=True))
        assert with_checkpoint["tune"] == {"corpus": "teach"}
    else:
        assert inputs(linked(stages))["tune"]["policy"] == policy


def test_init_from_a_later_or_unknown_stage_is_refused() -> None:
    for start in ("prefer", "nobody"):
        tune = dataclasses.replace(RECIPE["tune"], init_from=start)
        with pytest.raises(UserError, match=rf"stages\.tune\.init_from.*'{start}'.*base, teach"):
            linked({**RECIPE, "tune": tune})


def test_checkpoint_replaces_the_first_policy() -> None:
    nodes = linked(ablated(RECIPE, "base"), has_base=True)
    assert inputs(nodes)["mid"] == {"corpus": "teach"}


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


def test_ablation_of_an_unknown_stage_lists_the_stages() -> None:
    with pytest.raises(UserError, match=r"'dop'.*base, teach, mid, tune, pair, prefer"):
        ablated(RECIPE, "dop")


def test_none_ablates_nothing() -> None:
    assert ablated(RECIPE, "none") == RECIPE


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


def fingerprints(stages: Mapping[str, StageConfig], **options: Any) -> dict[str, str]:
    return {name: node.fingerprint for name, node in linked(stages, **options).items()}


@pytest.mark.parametrize(
    ("changed", "downstream"),
    [
        ("base", {"base", "mid", "tune", "pair", "prefer"}),
        ("teach", {"teach", "mid", "tune", "pair", "prefer"}),
        ("tune", {"tune", "pair", "prefer"}),
        ("prefer", {"prefer"}),
    ],
)
def test_change_propagates_downstream_only(changed: str, downstream: set[str]) -> None:
    before = fingerprints(RECIPE)
    after = fingerprints({**RECIPE, changed: dataclasses.replace(RECIPE[changed], version=2)})
    assert {name for name in before if before[name] != after[name]} == downstream


@given(st.integers(), st.integers())
def test_seed_is_identity_of_every_node(seed: int, other: int) -> None:
    one, two = fingerprints(RECIPE, seed=seed), fingerprints(RECIPE, seed=other)
    assert all((one[name] == two[name]) == (seed == other) for name in one)


def test_root_group_touches_only_its_readers_and_what_follows() -> None:
    before = fingerprints(RECIPE)
    data = fingerprints(RECIPE, groups={**GROUPS, "data": {"path": "other"}})
    assert {n for n in before if before[n] != data[n]} == set(before) - {"base"}
    model = fingerprints(RECIPE, groups={**GROUPS, "model": {"path": None, "width": 9}})
    assert {n for n in before if before[n] != model[n]} == set(before) - {"teach"}


def test_benchmark_is_identity_of_its_evaluations_only(composed: Compose) -> None:
    before = {node.name: node.fingerprint for node in composed().nodes}
    after = {node.name: node.fingerprint for node in composed("benchmarks.heldout.seed=9").nodes}
    assert {n for n in before if before[n] != after[n]} == {n for n in before if "/" in n}


def test_a_policy_of_many_rounds_has_every_ancestor_once() -> None:
    """Each round's policy reaches the next by two ways: 2 ** 1000 in all."""
    rounds = {
        f"{name}{number}": RECIPE[name] for number in range(1000) for name in ("pair", "prefer")
    }
    nodes = linked({"base": RECIPE["base"], **rounds})
    *earlier, last = nodes.values()
    assert [node.name for node in nodes.values()] == ["base", *rounds]
    origins = [node.name for node in last.trained_on()]
    assert sorted(origins) == sorted(node.name for node in earlier)


def test_evaluations_follow_the_policies_that_they_are_of() -> None:
    nodes = linked()
    evaluations = with_evaluations(list(nodes.values()), {"held": stage("x")}, GROUPS, 0, None)
    assert [n.name for n in evaluations][-1] == "prefer/held"
    held = with_evaluations([], {"held": stage("x")}, GROUPS, 0, "base")
    assert [(n.name, dict(n.inputs)) for n in held] == [("base/held", {})]


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
    ("optimization", "log_every_steps"),
    ("packing",),
    ("shard_problems",),
    ("table_every_steps",),
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
    for group in (root.hardware, root.tracker, root.paths):
        assert identity_of(group) == {}
    for group in (root.model, root.benchmarks["heldout"]):
        assert all(not placed for _, placed in fields_of(group))


@pytest.mark.parametrize(
    "override",
    ["hardware.threads=1", "hardware.micro_batch_size=4", "paths.runs=x", "tracker.mode=offline"],
)
def test_placement_changes_no_fingerprint(override: str, composed: Compose) -> None:
    assert [n.fingerprint for n in composed(override).nodes] == [
        n.fingerprint for n in composed().nodes
    ]


def test_schemas_declare_choices_and_bounds() -> None:
    register_schemas()
    from reasoning_lab.stages.rl.config import FilterConfig

    with pytest.raises(UserError, match="'most' is unknown; choose all or equal"):
        check_values(FilterConfig(balance="most"), "stages.rl.filter")
