"""Curves of the recipe graph: composing, linking, fingerprints, lineage, the plan of a sweep."""

import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import hydra

from reasoning_lab.commands.compose import Recipe, compose
from reasoning_lab.commands.plan import planned
from reasoning_lab.commands.print_plan import needs_table, price_table, summary
from reasoning_lab.commands.schemas import register_schemas
from reasoning_lab.commands.sweep import recipes
from reasoning_lab.config.folder import CONF
from reasoning_lab.graph.recipe import (
    Node,
    RunIdentity,
    ablated,
    link,
    ordered,
    with_evaluations,
)
from reasoning_lab.graph.record import Record
from reasoning_lab.graph.stage import Stage
from tests.support.toys import Choose, Grow, Measure, Model, Prefer

from .curve import Curve, doublings

_RUN = RunIdentity({"model": {"width": 128}, "data": {"path": None}})


def _rounds(stages: int) -> dict[str, Stage]:
    """Choices of the model itself, and a model that learns from them, over and over."""
    return {f"s{number}": Prefer() if number % 2 else Choose() for number in range(stages)}


def _linked(stages: Mapping[str, Stage]) -> list[Node]:
    nodes = link(ablated(ordered(stages), "none"), _RUN, True)
    return with_evaluations(nodes, {"held-out": Measure()}, _RUN, "base")


def linking(size: int, stack: ExitStack) -> Callable[[], object]:
    return partial(_linked, _rounds(size))


def following(size: int, stack: ExitStack) -> Callable[[], object]:
    names = ["first", *(f"s{number}" for number in range(size - 1))]
    stages: dict[str, Stage] = {"first": Grow()}
    stages |= {name: Grow(after=before) for before, name in pairwise(names)}
    return partial(ordered, stages)


def lineage(size: int, stack: ExitStack) -> Callable[[], object]:
    store = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    *_, last = link(_rounds(size), _RUN, True)
    for node in link(_rounds(size), _RUN, True):
        _write_record(node, store)
    return Model(store / last.stage.name / last.fingerprint).ancestors


def _composed(*overrides: str) -> list[Recipe]:
    register_schemas()
    return list(recipes(["tracker.mode=disabled", *overrides]))


def stages(size: int, stack: ExitStack) -> Callable[[], object]:
    """The shipped recipe, and rounds of preferences and DPO behind it, as a command composes it."""
    kinds = ("prefer", "dpo")
    more = [f"+stage@stages.s{number}={kinds[number % 2]}" for number in range(size)]
    return lambda: summary(planned(_composed(*more)))


def variants(size: int, stack: ExitStack) -> Callable[[], object]:
    seeds = ",".join(map(str, range(size // 2)))
    return lambda: summary(planned(_composed("ablate=none,dpo", f"seed={seeds}")))


def _seeds(count: int, runs: Path) -> list[Recipe]:
    """The shipped recipe under so many seeds."""
    register_schemas()
    overrides = ["tracker.mode=disabled", f"paths.runs={runs}"]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("config", overrides)
    results = []
    for seed in range(count):
        config.seed = seed
        results.append(replace(compose(config), variant=f"seed={seed}"))
    return results


def _write_record(node: Node, store: Path) -> None:
    """An artifact without files."""
    folder = store / node.stage.name / node.fingerprint
    folder.mkdir(parents=True, exist_ok=True)
    metrics: dict[str, Any] = {"planned_rows": 10, "wall_s": 1.0}
    Record(
        kind=node.produces.kind,
        identity=node.identity,
        inputs={kind: maker.fingerprint for kind, maker in node.inputs.items()},
        seed=0,
        metrics=metrics,
        path=folder,
        stage=node.stage.name,
        fingerprint=node.fingerprint,
        files={},
    ).write(folder)


def planning(size: int, stack: ExitStack) -> Callable[[], object]:
    runs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    results = _seeds(size, runs)
    for recipe in results:
        for node in recipe.nodes:
            _write_record(node, runs / "store")

    def work() -> None:
        nodes = planned(results)
        price_table(nodes)
        needs_table(nodes)
        summary(nodes)

    return work


CURVES = {
    "graph/stages": Curve(
        "stages",
        "ordered, linked, fingerprinted, with an evaluation a policy",
        doublings(32, 1024),
        1,
        linking,
    ),
    "graph/followers": Curve(
        "stages", "put in order, each after the one before", doublings(32, 1024), 1, following
    ),
    "graph/lineage": Curve(
        "stages", "what the last of rounds of DPO was trained on", doublings(32, 512), 1, lineage
    ),
    "recipe/stages": Curve(
        "further stages",
        "the shipped recipe and these composed by Hydra, planned",
        doublings(4, 64),
        1,
        stages,
    ),
    "recipe/variants": Curve(
        "variants", "the shipped recipe composed by Hydra, planned", doublings(2, 16), 1, variants
    ),
    "plan/variants": Curve(
        "variants",
        "seeds of the shipped recipe planned, all in the store",
        doublings(4, 64),
        1,
        planning,
    ),
}
