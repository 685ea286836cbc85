"""The `curate` stage: its steps in order, what it writes, what enters its identity."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.config.benchmark import BenchmarkConfig
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.data.corpus import RolloutFile, read_rollouts, write_rollouts
from reasoning_lab.data.curation.step import (
    CurationContext,
    DropReasons,
    Removal,
    Step,
    StepCount,
    build_steps,
    curate,
)
from reasoning_lab.data.sources.readers import read_prompts
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.stages.curate.stage import CurateStage
from reasoning_lab.training.context import StageContext
from reasoning_lab.types import Completion, Problem, Rollout, Split, UserError, Verdict
from reasoning_lab.verify import Verifier
from tests.conftest import SMOKE, Compose, lab_here
from tests.support.contexts import data_context
from tests.support.sources import file_source
from tests.support.stages import run_stage
from tests.support.trained import trained_ids

KEY = "stages.curate.steps"
FILTERS = "reasoning_lab.data.curation.filters"
PASS_RATE = {"_target_": f"{FILTERS}.PassRate", "least": 0.5, "most": 1.0}
DECONTAMINATE = {"_target_": "reasoning_lab.data.curation.decontamination.Decontaminate"}


def rollout(prompt: str, verdict: Verdict = Verdict.CORRECT, text: str = "") -> Rollout:
    return Rollout(Problem(prompt, "1", "math", "f"), Completion([7], text), "1", verdict, "t")


@dataclass
class Without(Step):
    """Removes a prompt; notes what it saw."""

    prompt: str

    def drop_reasons(self, rollouts: Collection[Rollout], context: CurationContext) -> DropReasons:
        self.saw = [rollout.problem.prompt for rollout in rollouts]
        return (f"is {self.prompt}" if name == self.prompt else None for name in self.saw)


def test_steps_see_what_those_before_them_left(tmp_path: Path) -> None:
    write_rollouts(tmp_path / "rows", [rollout(name) for name in "abcab"])
    first, second = Without("b"), Without("c")
    removals: list[Removal] = []
    curated, counts = curate(
        RolloutFile(tmp_path / "rows"),
        {"x": first, "y": second},
        CurationContext(0, float, {}),
        removals.append,
    )
    assert (first.saw, second.saw) == (list("abcab"), list("aca"))
    assert [row.problem.prompt for row in curated] == ["a", "a"]
    assert counts == [StepCount("x", 5, 3, 3, 2), StepCount("y", 3, 2, 2, 1)]
    assert [(gone.step, gone.rollout.problem.prompt, gone.reason) for gone in removals] == [
        ("x", "b", "is b"),
        ("x", "b", "is b"),
        ("y", "c", "is c"),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (3, "mine: there is no _target_; name a step"),
        ({"least": 1}, "mine: there is no _target_; name a step"),
        ({"_target_": "os.system"}, "mine._target_: 'os.system' may not be named"),
        ({"_target_": "reasoning_lab.types.Problem"}, "'reasoning_lab.types.Problem' is no step"),
        (
            {"_target_": f"{FILTERS}.Lenght"},
            "there is no 'reasoning_lab.data.curation.filters.Lenght'",
        ),
        (PASS_RATE | {"lest": 1}, "mine.lest: there is no such option; choose among least, most"),
        (PASS_RATE | {"least": "a"}, "mine.least: Value 'a'"),
        (PASS_RATE | {"least": 2.0}, "mine.least: 2.0 is too large; give 1.0 or less"),
        (PASS_RATE | {"most": 0.1}, "mine: least=0.5 is above most=0.1, so nothing remains"),
        ({"_target_": f"{FILTERS}.Length", "least": 9, "most": 8}, "least=9 is above most=8"),
        ({"_target_": f"{FILTERS}.Length", "unit": "lines"}, "unit: 'lines' is unknown; choose"),
        ({"_target_": f"{FILTERS}.Format", "closing": ""}, "closing: a thought that opens must"),
        ({"_target_": f"{FILTERS}.Language", "languages": []}, "languages: it is empty"),
        ({"_target_": f"{FILTERS}.Language", "languages": ["English"]}, "'English' is no ISO"),
        ({"_target_": f"{FILTERS}.HarderSubset", "count": 3}, "mine.levels: "),
        (DECONTAMINATE | {"ngram_words": 1}, "ngram_words: 1 is too small"),
    ],
)
def test_an_impossible_step_is_refused(options: Any, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        build_steps({"good": PASS_RATE, "mine": options}, KEY)
    assert message in str(refusal.value)
    assert str(refusal.value).startswith(f"{KEY}.mine")


def test_a_step_that_is_null_is_left_out() -> None:
    assert list(build_steps({"a": PASS_RATE, "b": None, "c": PASS_RATE}, KEY)) == ["a", "c"]
    with pytest.raises(UserError, match=r"stages\.curate\.steps: there is no step"):
        CurateStage(steps={"b": None}).check("stages.curate", HardwareConfig())


@pytest.mark.parametrize("column", ["prompt", "problem", "question"])
def test_benchmark_files_give_their_prompts(column: str, tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    path.write_text(f'{{"{column}": "one", "answer": 1}}\n\n{{"{column}": "two"}}\n')
    assert read_prompts(str(path), "k") == ["one", "two"]


@pytest.mark.parametrize("line", ["{", "3", '{"text": "x"}', '{"prompt": 3}', "[" * 10**5])
def test_a_malformed_benchmark_file_is_named_by_its_line(line: str, tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    path.write_text(f'{{"prompt": "one"}}\n{line}\n')
    with pytest.raises(UserError, match=r"b\.jsonl, line 2: "):
        read_prompts(str(path), "k")
    with pytest.raises(UserError, match=r"files: cannot read '.*none'"):
        CurateStage(steps={"a": PASS_RATE}, files=[str(tmp_path / "none")]).check(
            "stages.curate", HardwareConfig()
        )


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(workers=1, timeout_s=20, memory_mb=1024) as shared:
        yield shared


@pytest.fixture
def context(tmp_path: Path, verifier: Verifier) -> StageContext:
    """A corpus of training problems, of which one is a held-out problem in other letters."""
    path = tmp_path / "problems.jsonl"
    rows = [f"How many of the first {n} even numbers are larger than {n}?" for n in range(100, 200)]
    path.write_text("".join(json.dumps({"prompt": row, "gold": "1"}) + "\n" for row in rows))
    source = file_source(str(path), 0.2, 0.0, {"family": "even"})
    held_out = next(source.problems(Split.TEST, [1], 1, 5)).prompt
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    accepted = [rollout(f"Well: {held_out}"), *map(rollout, ["a", "b", "b", "hard"])]
    rejected = [rollout(name, Verdict.WRONG) for name in ("a", "hard", "hard", "never")]
    write_rollouts(corpus / "accepted.parquet", accepted)
    write_rollouts(corpus / "rejected.parquet", rejected)
    write_rollouts(corpus / "validation.parquet", [rollout("v")])
    benchmarks = {"held": BenchmarkConfig(levels=[1], count=1, seed=5, samples=1)}
    return data_context(
        tmp_path,
        "curate",
        source,
        verifier,
        seed=0,
        inputs={"corpus": Corpus(corpus)},
        benchmarks=benchmarks,
    )


def prompts(path: Path) -> list[str]:
    return [rollout.problem.prompt for rollout in read_rollouts(path)]


def test_stage_writes_what_is_left_and_why_the_rest_is_not(context: StageContext) -> None:
    config = CurateStage(steps={"hardness": PASS_RATE, "leaks": DECONTAMINATE})
    metrics = run_stage(config, context)
    out = context.out_dir
    assert prompts(out / "accepted.parquet") == ["a", "b", "b"]
    assert prompts(out / "rejected.parquet") == ["a"]
    assert prompts(out / "validation.parquet") == ["v"]
    assert trained_ids(out) == {rollout(name).problem.id for name in "ab"}
    context.ledger.write_rows(out)
    dropped = [json.loads(line) for line in (out / "dropped.jsonl").read_text().splitlines()]
    assert [(row["unit"], row["reason"], row["prompt"][:5]) for row in dropped] == [
        ("rollouts", "hardness", "hard"),
        ("rollouts", "leaks", "Well:"),
    ]
    assert dropped[0]["detail"] == "pass rate 0.333"
    assert "with held " in dropped[1]["detail"]
    # That pass rates select is no surprise; a fifth of the rollouts for a leak is.
    assert context.ledger.as_json() == {
        "rollouts": {
            "in": 5,
            "out": 3,
            "dropped": {"hardness": 1, "leaks": 1},
            "selected": ["hardness"],
        },
        "problems": {
            "in": 4,
            "out": 2,
            "dropped": {"hardness": 1, "leaks": 1},
            "selected": ["hardness"],
        },
        "rejected_rollouts": {
            "in": 4,
            "out": 1,
            "dropped": {"problem_dropped": 3},
            "selected": ["problem_dropped"],
        },
    }
    assert len(context.ledger.warnings()) == 2
    assert metrics == {
        "rollouts": 5,
        "accepted": 3,
        "hardness/in": 5,
        "hardness/out": 4,
        "leaks/in": 4,
        "leaks/out": 3,
    }
    card = (out / "README.md").read_text()
    assert "| leaks | 4 | 3 | 3 | 2 |" in card
    assert "| all |  |  | 2 | 3 |" in card
    assert "| rollouts | 5 | 3 | 1 hardness, 1 leaks |" in card


def test_stage_reads_benchmark_files(context: StageContext, tmp_path: Path) -> None:
    path = tmp_path / "more.jsonl"
    path.write_text('{"question": "B!"}\n')
    config = CurateStage(steps={"leaks": DECONTAMINATE}, files=[str(path)])
    run_stage(config, replace(context, benchmarks={}))
    assert [name[:5] for name in prompts(context.out_dir / "accepted.parquet")] == [
        "Well:",
        "a",
        "hard",
    ]


def test_same_inputs_give_the_same_files(context: StageContext, tmp_path: Path) -> None:
    config = CurateStage(steps={"hardness": PASS_RATE, "leaks": DECONTAMINATE})
    again = replace(context, out_dir=tmp_path / "again", ledger=Ledger())
    again.out_dir.mkdir()
    contents: list[Mapping[str, bytes]] = []
    for run_context in (context, again):
        run_stage(config, run_context)
        contents.append({path.name: path.read_bytes() for path in run_context.out_dir.iterdir()})
    assert len(contents[0]) == 5
    assert contents[0] == contents[1]


def test_a_step_that_leaves_nothing_is_named(context: StageContext) -> None:
    steps = {"hardness": PASS_RATE, "long": {"_target_": f"{FILTERS}.Length", "least": 5}}
    with pytest.raises(UserError, match=r"stages\.curate\.steps\.long: no rollout is left"):
        run_stage(CurateStage(steps=steps), context)


@pytest.mark.parametrize("added", ["+stage@stages.curate=curate", "recipe=tiny_curated"])
def test_it_comes_between_distillation_and_training(added: str, composed: Compose) -> None:
    nodes = {node.name: node for node in composed(added).nodes}
    readers = [name for name, node in nodes.items() if "corpus" in node.inputs]
    assert readers == ["curate", "midtrain", "sft"]
    assert nodes["curate"].inputs["corpus"] is nodes["distill"]
    assert nodes["midtrain"].inputs["corpus"] is nodes["curate"]
    plain = {node.name: node.fingerprint for node in composed().nodes}
    unchanged = {name for name in plain if plain[name] == nodes[name].fingerprint}
    assert unchanged == {"pretrain", "pretrain/heldout", "distill"}


def fingerprint(composed: Compose, *overrides: str) -> str:
    (node,) = (n for n in composed("recipe=tiny_curated", *overrides).nodes if n.name == "curate")
    return node.fingerprint


@pytest.mark.parametrize(
    ("override", "changes"),
    [
        ("~stages.curate.steps.length", True),
        ("stages.curate.steps.length.most=9", True),
        ("benchmarks.heldout.count=3", True),
        ("benchmark=[heldout,validation]", True),
        ("benchmarks.heldout.samples=3", False),
        ("benchmarks.heldout.sampling.temperature=0.1", False),
    ],
)
def test_which_problems_a_benchmark_has_is_identity(
    override: str, changes: bool, composed: Compose
) -> None:
    assert (fingerprint(composed, override) != fingerprint(composed)) is changes


def test_a_benchmark_file_counts_by_its_content(composed: Compose, tmp_path: Path) -> None:
    fingerprints = []
    for name, text in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / name).write_text(json.dumps({"prompt": text}))
        fingerprints.append(fingerprint(composed, f"stages.curate.files=[{tmp_path / name}]"))
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
    assert fingerprint(composed) not in fingerprints


def test_smoke_recipe_runs_with_it(tmp_path: Path) -> None:
    assert lab_here("recipe=tiny_curated", *SMOKE, "ablate=[sft,prefer,dpo,rl]", cwd=tmp_path) == 0
    (artifact,) = (tmp_path / "runs" / "store" / "curate").glob("[0-9a-f]*")
    metrics = json.loads((artifact / "artifact.json").read_text())["metrics"]
    assert metrics["decontaminate/out"] == metrics["accepted"] > 100
    (distilled,) = (tmp_path / "runs" / "store" / "distill").glob("[0-9a-f]*")
    for folder in (artifact, distilled):
        assert (folder / "README.md").read_text().startswith("---\nlicense: apache-2.0\n")
