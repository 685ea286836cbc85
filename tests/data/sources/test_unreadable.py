"""Golds that the verifier cannot read: refused, or dropped, counted and bounded."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.config.components import SourceConfig
from reasoning_lab.config.problems import ProblemsConfig
from reasoning_lab.data.corpus import read_rollouts
from reasoning_lab.data.sources.config import FileConfig, MixtureConfig
from reasoning_lab.data.sources.problem_source import ProblemSource
from reasoning_lab.data.sources.row_mapping import RowMapping
from reasoning_lab.data.sources.unreadable import (
    ReadableGoldFilter,
    UnreadablePolicy,
)
from reasoning_lab.data.teachers.config import RecordedTeacherConfig
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.store import Store
from reasoning_lab.stages.distill.produce import run
from reasoning_lab.stages.distill.stage import DistillStage
from reasoning_lab.types import Problem, Split, UserError
from reasoning_lab.verify import Verifier
from tests.conftest import Compose, lab_here
from tests.support.contexts import data_context
from tests.support.openai_server import Server, chat_reply, serving
from tests.support.sources import file_source
from tests.support.trained import trained_ids

GOLDS = ["1", "2", "none", "4", "many", "6"]


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(workers=1, timeout_s=20, memory_mb=1024) as shared:
        yield shared


def numbers(golds: list[str]) -> list[Problem]:
    """Problems with the checker `number`, which reads no words."""
    rows = enumerate(golds)
    return [Problem(f"p{n}", gold, "number", "f", metadata={"row": f"row {n}"}) for n, gold in rows]


def write(path: Path, golds: list[str]) -> Path:
    rows = [{"prompt": f"{path.stem} {n}", "gold": gold} for n, gold in enumerate(golds)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def policy_of(source: ProblemSource, problem: Problem) -> UnreadablePolicy:
    policy = source.unreadable(problem)
    assert policy is not None
    return policy


def test_unreadable_golds_are_dropped_and_counted(verifier: Verifier) -> None:
    ledger = Ledger()
    golds = ReadableGoldFilter(verifier, ledger, lambda _: UnreadablePolicy("drop", 0.4, "data"))
    problems = numbers(GOLDS)
    readable = [problem for problem in problems if problem.gold.isdecimal()]
    assert list(golds.filter(problems)) == readable
    assert list(golds.without_dropped(problems)) == readable
    flow = ledger.flows["problems"]
    assert (flow.taken, flow.passed, flow.dropped) == (6, 4, {"unreadable_gold": 2})
    assert "[row 2, row 4]" in ledger.lines()[0]


def test_too_many_unreadable_golds_are_refused(verifier: Verifier) -> None:
    policy = UnreadablePolicy("drop", 0.3, "benchmarks.b")
    golds = ReadableGoldFilter(verifier, Ledger(), lambda _: policy)
    with pytest.raises(UserError, match=r"max_unreadable_frac=0\.3: 2 of 6 golds.*row 2: 'none'"):
        list(golds.filter(numbers(GOLDS)))


def test_refused_golds_are_named_with_the_key(verifier: Verifier) -> None:
    golds = ReadableGoldFilter(
        verifier, Ledger(), lambda _: UnreadablePolicy("refuse", 1.0, "data")
    )
    with pytest.raises(UserError, match=r"row 2; row 4: 'number'.*'none'.*data\.unreadable=drop"):
        list(golds.filter(numbers(GOLDS)))


def test_each_source_of_a_mixture_decides_for_its_own_problems(
    tmp_path: Path, verifier: Verifier
) -> None:
    def mixture(theirs: list[str], mine: list[str]) -> ProblemSource:
        sources: dict[str, SourceConfig] = {
            name: FileConfig(
                path=str(write(tmp_path / f"{name}.jsonl", golds)),
                rows=RowMapping(checker="number"),
                unreadable=unreadable,
            )
            for name, golds, unreadable in (("theirs", theirs, "drop"), ("mine", mine, "refuse"))
        }
        return MixtureConfig(sources, {"theirs": 1, "mine": 1}, 0.0, 0.0).build()

    def read(source: ProblemSource) -> set[str]:
        golds = ReadableGoldFilter(verifier, Ledger(), lambda p: policy_of(source, p))
        return {p.gold for p in golds.filter(source.problems(Split.TRAIN, [1], 12, 0))}

    assert read(mixture(GOLDS, list("345678"))) == set("12345678")
    with pytest.raises(UserError, match=r"mine\.jsonl, line 3;.*data\.sources\.mine\.unreadable="):
        read(mixture(list("345678"), GOLDS))


def test_distillation_goes_on_without_them(tmp_path: Path, verifier: Verifier) -> None:
    rows = [
        {"prompt": f"{n}?", "gold": gold, "s": f"\\boxed{{{gold}}}"}
        for n, gold in enumerate([*map(str, range(8)), "none"])
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    mapping = {"solutions": "s", "checker": "number"}
    source = file_source(str(path), 0.0, 0.0, mapping, unreadable="drop")
    config = DistillStage(
        teacher=RecordedTeacherConfig("(x)"),
        problems=ProblemsConfig(levels=[1], count=9),
        validation=0,
        rollouts=1,
        shard_problems=4,
    )
    context = data_context(tmp_path, "distill", source, verifier)
    run(config, context)
    accepted = read_rollouts(context.out_dir / "accepted.parquet")
    assert {rollout.problem.gold for rollout in accepted} == set("01234567")
    assert trained_ids(context.out_dir) == {rollout.problem.id for rollout in accepted}


def test_a_benchmark_runs_on_the_others_and_says_how_many(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of six rows one has no gold, one an unreadable one, and two of four answers are right."""
    golds = ["2", "2", "", "several", "3", "4"]
    rows = [{"question": f"{n}?", "answer": gold} for n, gold in enumerate(golds)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["evaluate", "model=some-model", "engine=openai", "tracker.mode=disabled"]
    words += ["benchmark=[minerva]", f"benchmarks.minerva.data.path={path}"]
    words += ["benchmarks.minerva.data.rows.checker=number", "benchmarks.minerva.count=6"]
    words += ["benchmarks.minerva.samples=1"]
    with serving(Server(lambda body, number: chat_reply("It is \\boxed{2}."))) as server:
        words.append(f"hardware.sampling.url={server.url}")
        assert lab_here(*words, "benchmarks.minerva.unreadable=refuse", cwd=tmp_path) == 2
        refusal = capsys.readouterr().err
        assert "rows.jsonl, line 4: 'number'" in refusal
        assert "benchmarks.minerva.unreadable=drop" in refusal
        assert lab_here(*words, cwd=tmp_path) == 0
    assert "pass@1 50.0% of 4 problems (1 with unreadable golds dropped)" in " ".join(
        capsys.readouterr().out.split()
    )
    (artifact,) = Store(tmp_path / "runs" / "store").artifacts()
    metrics = artifact.metrics
    assert (metrics["n"], metrics["unreadable_golds"], metrics["pass@1"]) == (4, 1, 0.5)


def test_minervas_corrections_are_golds_that_are_read(
    composed: Compose, verifier: Verifier
) -> None:
    data: Any = composed("benchmark=[minerva]").root.benchmarks["minerva"].data
    corrections = data.corrections
    assert len(corrections) == 5
    before = [Problem(key, item["gold"], "math", "f") for key, item in corrections.items()]
    after = [Problem(key, item["corrected"], "math", "f") for key, item in corrections.items()]
    assert all(one.gold != other.gold for one, other in zip(before, after, strict=True))
    readable = [p.gold for p in after if p not in verifier.unreadable_golds(after)]
    assert {"-\\frac{1}{3}", "-\\frac{3}{2}", "\\arcsin(\\frac{10}{13})"} <= set(readable)
