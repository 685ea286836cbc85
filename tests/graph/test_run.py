"""Running and planning a graph of toy stages."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.graph.recipe import Node, RunIdentity, link
from reasoning_lab.graph.record import Record
from reasoning_lab.graph.run import Outcome, Work, plan, run
from reasoning_lab.graph.stage import Stage
from reasoning_lab.graph.store import Store
from tests.support.toys import (
    RECIPE,
    Choose,
    Grow,
    Learn,
    Log,
    Model,
    Prefer,
    Text,
    Write,
    execute,
    never,
    nodes_of,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_each_node_is_made_once_from_its_inputs(store: Store) -> None:
    nodes, log = nodes_of(), Log()
    records = run(nodes, store, execute, log)
    names = [name for event, name, *_ in log.events if event == "made"]
    assert names == ["base", "base/test", "teach", "clean", "tune", "tune/test"]
    by_name = {node.name: records[node.fingerprint] for node in nodes}
    assert (by_name["tune"].path / "inputs").read_text() == "clean grow"
    assert by_name["tune"].inputs == {
        "model": by_name["base"].fingerprint,
        "text": by_name["clean"].fingerprint,
    }
    assert by_name["tune"].kind == Model.kind
    assert by_name["tune"].metrics["score"] == 2
    assert by_name["tune"].metrics["wall_s"] >= 0
    assert by_name["tune"].versions == {"x": "1"}

    again = Log()
    run(nodes, store, never, again)
    assert {event for event, *_ in again.events} == {"reused"}


def test_a_run_goes_on_where_it_failed(store: Store) -> None:
    def fails(work: Work) -> Outcome:
        if work.node.name == "tune":
            (work.work_dir / "state").write_text("step 3")
            raise RuntimeError("out of memory")
        return execute(work)

    log = Log()
    with pytest.raises(RuntimeError, match="out of memory"):
        run(nodes_of(), store, fails, log)
    assert log.events[-1] == ("started", "tune")

    def resumes(work: Work) -> Outcome:
        if work.node.name == "tune":
            assert (work.work_dir / "state").read_text() == "step 3"
        return execute(work)

    again = Log()
    run(nodes_of(), store, resumes, again)
    assert [name for event, name, *_ in again.events if event == "made"] == ["tune", "tune/test"]


def test_a_plan_says_what_is_cached_repeated_or_to_run(store: Store) -> None:
    nodes = nodes_of({"base": Grow(), "teach": Write(), "tune": Learn()})
    run(nodes[:2], store, execute, Log())
    known: dict[str, Record | None] = {}

    def states(planned: list[Node]) -> dict[str, tuple[bool, bool]]:
        steps = plan(planned, store, known)
        return {one.node.name: (one.record is not None, one.repeated) for one in steps}

    assert states(nodes) == {
        "base": (True, False),
        "base/test": (True, False),
        "teach": (False, False),
        "tune": (False, False),
        "tune/test": (False, False),
    }
    other = nodes_of({"base": Grow(), "teach": Write(), "tune": Learn(size=2)})
    assert [name for name, (_, repeated) in states(other).items() if repeated] == [
        "base",
        "base/test",
        "teach",
    ]


def lineage(store: Store, stages: dict[str, Stage]) -> Callable[[str], list[str]]:
    """Names of the stages whose artifacts are ancestors of a node of the recipe."""
    nodes = link(stages, RunIdentity({"model": {}, "data": {}}), False)
    records = run(nodes, store, execute, Log())
    names = {node.fingerprint: node.name for node in nodes}

    def of(name: str) -> list[str]:
        (node,) = (node for node in nodes if node.name == name)
        artifact = node.produces(records[node.fingerprint].path)
        return sorted(names[one.fingerprint] for one in artifact.ancestors())

    return of


def test_what_a_text_was_cleaned_of_reached_nobody(store: Store) -> None:
    of = lineage(store, {**RECIPE, "pair": Choose(), "prefer": Prefer()})
    assert of("clean") == ["clean"]
    assert of("tune") == ["base", "clean", "tune"]
    assert of("prefer") == ["base", "clean", "pair", "prefer", "tune"]


def test_of_many_rounds_every_ancestor_comes_once(store: Store) -> None:
    """Each round's model reaches the next by two ways: 2 ** 60 in all."""
    rounds: dict[str, Stage] = {"base": Grow()}
    for number in range(60):
        rounds |= {f"pair{number}": Choose(), f"prefer{number}": Prefer()}
    assert lineage(store, rounds)("prefer59") == sorted(rounds)


def test_a_folder_without_a_record_has_no_ancestors(tmp_path: Path) -> None:
    assert Text(tmp_path).ancestors() == []


def test_a_stage_without_run_says_so() -> None:
    stage: Any = Write()
    with pytest.raises(NotImplementedError, match="'write'"):
        stage.run(None)
