"""Prompts that earlier stages trained on, as a report says it."""

from pathlib import Path

from reasoning_lab.data.trained_prompts import TrainedPrompts
from reasoning_lab.graph.record import Record
from reasoning_lab.report.evidence import Evidence, GraphNode
from reasoning_lab.report.overlap import PromptOverlap, prompt_overlap
from reasoning_lab.types import Problem

SUM = "State the final answer to the following arithmetic problem: {} ="


def artifact(
    store: Path, stage: str, kind: str, prompts: list[str], inputs: dict[str, str]
) -> Record:
    """An artifact of the store that trained on these prompts; its fingerprint is its name."""
    folder = store / stage / f"{stage}-fingerprint"
    folder.mkdir(parents=True)
    if prompts:
        TrainedPrompts.of(Problem(one, "1", "math", "f") for one in prompts).write(folder)
    record = Record(
        path=folder,
        stage=stage,
        fingerprint=folder.name,
        kind=kind,
        identity={},
        inputs={name: f"{maker}-fingerprint" for name, maker in inputs.items()},
        seed=0,
        files={},
    )
    record.write(folder)
    return record


def test_prompts_and_twins_of_all_ancestors_are_counted(tmp_path: Path) -> None:
    distilled = ["a", "b", SUM.format("3 + 4")]
    corpus = artifact(tmp_path, "distill", "corpus", distilled, {})
    sft = artifact(tmp_path, "sft", "policy", [], {"corpus": "distill"})
    artifact(tmp_path, "prefer", "preferences", ["a", "c"], {"policy": "sft"})
    artifact(tmp_path, "dpo", "policy", [], {"policy": "sft", "preferences": "prefer"})
    prompts = ["a", "c", "d", "e", SUM.format("4 + 3")]
    rl = artifact(tmp_path, "rl", "policy", prompts, {"policy": "dpo"})
    overlap = prompt_overlap(rl)
    assert overlap is not None
    assert (overlap.prompts, overlap.seen) == (5, 3)
    assert dict(overlap.by_stage) == {"distill": 2, "prefer": 2}
    # What drew no prompts, and what comes first, has nothing to say.
    assert prompt_overlap(sft) is None
    assert prompt_overlap(corpus) is None


def test_a_line_of_the_report_says_it() -> None:
    overlap = PromptOverlap(1200, 310, {"distill": 310})
    nodes = {
        "x": GraphNode("rl (seed 0)", "x", [], 1.0, {}, overlap),
        "y": GraphNode("prefer (seed 0)", "y", [], 1.0, {}, PromptOverlap(900, 0, {})),
        "z": GraphNode("sft (seed 0)", "z", [], 1.0),
    }
    evidence = Evidence(nodes=nodes)
    assert evidence.overlap_sentences() == [
        "Of 1,200 prompts of rl (seed 0), 310 were trained on before: 310 by distill.",
        "Of 900 prompts of prefer (seed 0), 0 were trained on before.",
    ]
    assert [one["seen"] for one in evidence.overlaps()] == [310, 0]
