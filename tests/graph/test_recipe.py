"""Linking, removal, and what does and does not change a fingerprint."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning_lab.graph.recipe import (
    Node,
    RunIdentity,
    ablated,
    link,
    ordered,
    variant_label,
    with_evaluations,
)
from reasoning_lab.graph.stage import Stage
from reasoning_lab.types import UserError
from tests.support.toys import (
    KNOWN,
    Choose,
    Follow,
    Grow,
    Learn,
    Measure,
    Prefer,
    Write,
)

GROUPS = {"model": {"path": None, "width": 8}, "data": {"path": "abc"}}
RECIPE: dict[str, Stage] = {
    "base": Grow(),
    "teach": Write(),
    "mid": Learn(),
    "tune": Learn(),
    "pair": Choose(),
    "prefer": Prefer(),
}


def linked(
    stages: Mapping[str, Stage] = RECIPE,
    groups: Mapping[str, Any] = GROUPS,
    seed: int = 0,
    has_base: bool = False,
) -> dict[str, Node]:
    nodes = link(stages, RunIdentity(groups, seed), has_base, KNOWN)
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
        "mid": {"model": "base", "text": "teach"},
        "tune": {"model": "mid", "text": "teach"},
        "pair": {"model": "tune"},
        "prefer": {"model": "tune", "choices": "pair"},
    }


def test_chain_closes_over_a_removed_stage() -> None:
    nodes = linked(ablated(RECIPE, ["mid"]))
    assert "mid" not in nodes
    assert inputs(nodes)["tune"] == {"model": "base", "text": "teach"}


def test_data_that_nobody_reads_is_not_made() -> None:
    assert list(linked(ablated(RECIPE, "prefer"))) == ["base", "teach", "mid", "tune", "pair"]
    longer = {**ablated(RECIPE, "prefer"), "more": Learn()}
    assert list(linked(longer)) == ["base", "teach", "mid", "tune", "more"]


def test_a_stage_follows_the_one_that_it_names() -> None:
    """Two that follow the same stage keep their order; one may follow one that moves itself."""
    moved = {
        "y": Grow(after="x"),
        **RECIPE,
        "x": Grow(after="teach"),
        "z": Grow(after="teach"),
        "w": Grow(after="teach"),
    }
    names = ["base", "teach", "x", "y", "z", "w", "mid", "tune", "pair", "prefer"]
    assert list(ordered(moved)) == names
    assert ordered(RECIPE) == RECIPE
    assert list(ordered(RECIPE)) == list(RECIPE)


@pytest.mark.parametrize(("one", "other"), [("nobody", "base"), ("y", "x"), ("x", "base")])
def test_a_stage_that_can_follow_none_is_refused(one: str, other: str) -> None:
    stages = {**RECIPE, "x": Grow(after=one), "y": Grow(after=other)}
    with pytest.raises(UserError, match=rf"stages\.x\.after: '{one}' is no stage.*null or among"):
        ordered(stages)


def test_data_stage_that_is_last_is_made() -> None:
    assert list(linked({"teach": RECIPE["teach"]})) == ["teach"]


def test_repeated_stage_starts_from_its_first_pass() -> None:
    nodes = linked({**RECIPE, "again": RECIPE["tune"]})
    assert inputs(nodes)["again"] == {"model": "prefer", "text": "teach"}
    assert nodes["again"].fingerprint != nodes["tune"].fingerprint
    assert nodes["again"].stage.name == nodes["tune"].stage.name == "learn"


def test_a_name_changes_no_fingerprint() -> None:
    renamed = {f"my_{name}": stage for name, stage in RECIPE.items()}
    fingerprints_of_renamed = [node.fingerprint for node in linked(renamed).values()]
    assert fingerprints_of_renamed == [node.fingerprint for node in linked().values()]


@pytest.mark.parametrize(("start", "policy"), [("base", "base"), ("mid", "mid")])
def test_init_from_names_an_earlier_stage(start: str, policy: str) -> None:
    tune = replace(RECIPE["tune"], init_from=start)
    stages = {"root": Grow(), **RECIPE, "tune": tune}
    if start == "base":
        with_checkpoint = inputs(linked(stages, has_base=True))
        assert with_checkpoint["tune"] == {"text": "teach"}
    else:
        assert inputs(linked(stages))["tune"]["model"] == policy


def test_init_from_a_later_or_unknown_stage_is_refused() -> None:
    for start in ("prefer", "nobody"):
        tune = replace(RECIPE["tune"], init_from=start)
        with pytest.raises(UserError, match=rf"stages\.tune\.init_from.*'{start}'.*base, teach"):
            linked({**RECIPE, "tune": tune})


def test_a_named_input_is_what_that_stage_makes() -> None:
    nodes = linked({**RECIPE, "follow": Follow(guide="mid"), "again": Follow(guide="follow")})
    assert inputs(nodes)["follow"] == {"model": "prefer", "guide": "mid"}
    assert inputs(nodes)["again"] == {"model": "follow", "guide": "follow"}
    other = linked({**RECIPE, "follow": Follow(guide="tune")})["follow"]
    assert other.fingerprint != nodes["follow"].fingerprint


@pytest.mark.parametrize("guide", ["nobody", "later", "teach"])
def test_a_named_input_that_no_earlier_stage_makes_is_refused(guide: str) -> None:
    stages = {**ablated(RECIPE, "prefer"), "follow": Follow(guide=guide), "later": Grow()}
    with pytest.raises(UserError) as refusal:
        linked(stages)
    assert str(refusal.value) == (
        f"stages.follow.guide: there is no earlier stage '{guide}'; choose among base, mid, tune"
    )


def test_checkpoint_replaces_the_first_policy() -> None:
    nodes = linked(ablated(RECIPE, "base"), has_base=True)
    assert inputs(nodes)["mid"] == {"text": "teach"}


def test_ablation_of_an_unknown_stage_lists_the_stages() -> None:
    with pytest.raises(UserError, match=r"'dop'.*base, teach, mid, tune, pair, prefer"):
        ablated(RECIPE, "dop")


def test_none_ablates_nothing() -> None:
    assert ablated(RECIPE, "none") == RECIPE


def fingerprints(stages: Mapping[str, Stage], **options: Any) -> dict[str, str]:
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
    stage: Any = RECIPE[changed]
    after = fingerprints({**RECIPE, changed: replace(stage, size=2)})
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


def test_evaluations_follow_the_policies_that_they_are_of() -> None:
    nodes = linked()
    run = RunIdentity(GROUPS)
    evaluations = with_evaluations(list(nodes.values()), {"held": Measure()}, run, None)
    assert [n.name for n in evaluations][-1] == "prefer/held"
    evaluations = with_evaluations([], {"held": Measure()}, run, "base")
    assert [(n.name, dict(n.inputs)) for n in evaluations] == [("base/held", {})]


def test_a_missing_input_names_the_stages_that_make_one() -> None:
    with pytest.raises(UserError) as refusal:
        linked({"tune": Learn()})
    assert str(refusal.value) == (
        "stages.tune: it needs a model and no earlier stage makes one; put 'grow' or 'learn' or "
        "'prefer' before it, or name a model to start from"
    )
    with pytest.raises(UserError, match=r"needs a text .*; put 'clean' or 'write' before it$"):
        linked({"base": Grow(), "tune": Learn()})


def test_the_name_and_the_version_of_a_stage_are_identity() -> None:
    @dataclass
    class Renamed(Write):
        name = "renamed"

    @dataclass
    class Revised(Write):
        version = 2

    stages: tuple[Stage, ...] = (Write(), Renamed(), Revised())
    identities = [RunIdentity(GROUPS).of(stage, {}) for stage in stages]
    assert [one["stage"] for one in identities] == ["write", "renamed", "write"]
    assert [one["version"] for one in identities] == [1, 1, 2]


def test_a_stages_own_code_is_identity() -> None:
    """Whoever links says what the user's own code is; the classes of a stage are asked for."""
    hashed: list[Any] = []

    def code_of(value: Any) -> dict[str, str]:
        hashed.append(value)
        return {"mine": "1234"} if "Learn" in str(value) else {}

    run = RunIdentity(GROUPS, code_of=code_of)
    assert "code" not in run.of(Write(), {})
    assert run.of(Learn(), {})["code"] == {"mine": "1234"}
    assert f"{Learn.__module__}.Learn" in hashed[-1][1]


@pytest.mark.parametrize(
    ("variant", "label"),
    [
        ("none", "the full recipe"),
        ("sft+dpo", "without sft+dpo"),
        ("seed=3, without dpo", "seed=3, without dpo"),
        ("experiment=011_how_far_ahead/ahead_4, without dpo", "011/ahead_4, without dpo"),
        ("model=tiny, experiment=008_less_is_not_more/few", "model=tiny, 008/few"),
        # What has no number, or no arm, is named in whole.
        ("experiment=002_stage_ablation", "002_stage_ablation"),
        ("experiment=mine/first", "mine/first"),
        ("stages.sft.experiment=011_a/b", "stages.sft.experiment=011_a/b"),
    ],
)
def test_a_label_names_an_arm_by_the_number_of_its_experiment(variant: str, label: str) -> None:
    assert variant_label(variant) == label
