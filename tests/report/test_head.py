"""The head of a report, against values by hand."""

from reasoning_lab.report.evidence import Evidence, GraphNode
from reasoning_lab.report.head import head_facts, head_sentences


def node(name: str, wall_s: float | None, minute: int, commit: str | None) -> GraphNode:
    finished_at = f"2026-11-30T09:{minute:02d}:59+00:00"
    versions = {"torch": "2.13.0"}
    return GraphNode(
        name,
        name,
        [],
        wall_s,
        finished_at=finished_at,
        hardware="a CPU",
        commit=commit,
        versions=versions,
    )


def test_facts_of_steps_by_different_code() -> None:
    nodes = [node("sft", 61.0, 7, "abc"), node("rl", 3600.4, 5, "def"), node("dpo", None, 6, "abc")]
    evidence = Evidence(nodes={one.name: one for one in nodes}, commands=["reasoning-lab seed=1"])
    assert head_facts(evidence) == {
        "command": ["reasoning-lab seed=1"],
        "finished": ["2026-11-30 09:05 to 2026-11-30 09:07 UTC"],
        "took": ["1:01:01 for 2 steps, one after the other"],
        "hardware": ["a CPU"],
        "commit": ["abc (2 steps)", "def (1 step)"],
        "versions": ["torch 2.13.0"],
    }
    assert head_sentences(evidence)[0] == "**command**: `reasoning-lab seed=1`"


def test_what_was_not_recorded_is_left_out() -> None:
    assert head_facts(Evidence(nodes={"a": GraphNode("a", "a", [], None)})) == {}


def test_a_sweep_of_many_names_a_few() -> None:
    evidence = Evidence(commands=[f"reasoning-lab seed={seed}" for seed in range(10)])
    (_, _, _, fourth, rest) = head_facts(evidence)["command"]
    assert (fourth, rest) == ("reasoning-lab seed=3", "and 6 more")
