"""Any model on any benchmark: what is asked, what is measured, and verdicts given once more."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from reasoning_lab.commands.evaluate import as_recipe
from reasoning_lab.commands.rescore import rescore
from reasoning_lab.config.benchmark import BenchmarkConfig, ProtocolConfig, SamplingConfig
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.data.corpus import read_rollouts, write_rollouts
from reasoning_lab.data.sources.row_mapping import RowMapping
from reasoning_lab.evaluate.benchmark import digest, measured, tracked_metrics
from reasoning_lab.evaluate.completions import COMPLETIONS
from reasoning_lab.evaluate.statistics import majority
from reasoning_lab.graph.record import Metadata, Record
from reasoning_lab.graph.store import Store
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.types import (
    Completion,
    Problem,
    Rollout,
    RolloutGroup,
    Split,
    UserError,
    Verdict,
)
from reasoning_lab.verify import Verifier
from tests.conftest import SMOKE, Compose, lab_here

MODELS = ["checkpoint", "tiny"]


def lineage(folder: Path) -> list[Path]:
    return [record.path for record in Policy(folder).ancestors()]


def rollouts(name: str, *verdicts: tuple[str | None, Verdict], tokens: int = 3) -> RolloutGroup:
    problem = Problem(name, "1", "math", "family")
    return RolloutGroup(
        problem,
        [
            Rollout(problem, Completion([7] * tokens, f"\\boxed{{{answer}}}"), answer, verdict, "a")
            for answer, verdict in verdicts
        ],
    )


RIGHT, WRONG = Verdict.CORRECT, Verdict.WRONG
UNREAD = (None, Verdict.UNPARSEABLE)


@pytest.mark.parametrize(
    ("answers", "right", "won"),
    [
        (["1", "2", "1"], [1, 0, 1], 1.0),
        (["1", "2", "2"], [1, 0, 0], 0.0),
        # Two spellings of the right answer vote together, and a tie is shared.
        (["1/2", "0.5", "2", "2"], [1, 1, 0, 0], 1 / 2),
        (["1", "2", "3"], [1, 0, 0], 1 / 3),
        # What cannot be read does not vote; where nothing votes for it, the right answer loses.
        (["1", None, None], [1, 0, 0], 1.0),
        ([None, None, None], [0, 0, 0], 0.0),
        (["2 ", "2", "1", "1", "1"], [0, 0, 1, 1, 1], 1.0),
    ],
)
def test_majority_by_hand(answers: list[str | None], right: list[int], won: float) -> None:
    assert majority([answers] * 3, [right] * 3).mean == pytest.approx(won)


def test_what_is_measured_by_hand() -> None:
    groups = [
        rollouts("p", ("1", RIGHT), ("2", WRONG), ("1", RIGHT), ("2", WRONG)),
        rollouts("q", ("5", WRONG), ("5", WRONG), ("1", RIGHT), UNREAD, tokens=9),
    ]
    metrics = measured(groups)
    assert metrics["pass@1"] == pytest.approx(3 / 8)
    assert metrics["by_sample"] == [0.5, 0.0, 1.0, 0.0]
    # Two problems, one trial each: Clopper-Pearson's ends, of 0 of 2 by hand: 1 - 0.025^(1/2).
    assert metrics["by_sample_ci95"][1] == pytest.approx([0.0, 1 - 0.025**0.5])
    assert metrics["by_sample_ci95"][0] == pytest.approx(list(binomtest(1, 2).proportion_ci()))
    # 1 - C(2, 2) / C(4, 2) and 1 - C(3, 2) / C(4, 2); every problem has a right answer among four.
    assert metrics["pass@2"][0] == pytest.approx((5 / 6 + 3 / 6) / 2)
    assert metrics["pass@4"][0] == 1.0
    assert metrics["maj@2"][0] == pytest.approx((1 / 2 + 0) / 2)
    assert metrics["maj@4"][0] == pytest.approx((1 / 2 + 0) / 2)
    assert metrics["unparseable_frac"] == 1 / 8
    assert metrics["correct_tokens"] == pytest.approx((3 + 3 + 9) / 3)
    assert metrics["wrong_tokens"] == pytest.approx((3 + 3 + 9 + 9 + 9) / 5)
    silent = measured([rollouts("p", ("1", RIGHT), tokens=0)])
    assert silent["completion_tokens"] is silent["correct_tokens"] is silent["wrong_tokens"] is None
    assert not [key for key in silent if key.startswith("maj@")]


def test_pass_at_1_of_each_domain_by_hand() -> None:
    groups = [rollouts(name, ("1", RIGHT), ("2", WRONG)) for name in "abc"]
    groups += [rollouts("d", ("1", RIGHT), ("1", RIGHT))]
    logic = replace(groups[0].problem, domain="logic")
    metrics = measured([RolloutGroup(logic, groups[0].rollouts), *groups[1:]])
    domains = metrics["domains"]
    assert {name: value["n"] for name, value in domains.items()} == {"logic": 1, "mathematics": 3}
    assert domains["logic"]["pass@1"] == 0.5
    assert domains["mathematics"]["pass@1"] == pytest.approx(2 / 3)
    low, high = domains["mathematics"]["ci95"]
    assert 0 < low < 2 / 3 < high < 1
    tracked = tracked_metrics("held", metrics, {"metric/lines": [2.5, 2.0, 3.0], "metric/x": None})
    assert tracked["eval/held/logic/pass@1"] == 0.5
    assert tracked["eval/held/mathematics/pass@1"] == pytest.approx(2 / 3)
    assert (tracked["eval/held/pass@1"], tracked["eval/held/metric/lines"]) == (0.625, 2.5)
    assert not {"eval/held/domains", "eval/held/metric/x"} & tracked.keys()
    alone = tracked_metrics("held", measured(groups), {})
    assert "eval/held/mathematics/pass@1" not in alone


def test_digest_tells_what_was_asked() -> None:
    problems = [Problem(name, "1", "math", "f") for name in "ab"]
    assert digest(problems) == digest(problems[::-1])
    assert digest(problems) != digest([problems[0], replace(problems[1], gold="2")])


def test_protocol_takes_the_place_of_what_it_names() -> None:
    benchmark = BenchmarkConfig(
        levels=[1], count=5, samples=4, sampling=SamplingConfig(0.6, 0.95, 100)
    )
    greedy = ProtocolConfig(samples=1, temperature=0.0).applied(benchmark)
    assert (greedy.samples, greedy.sampling) == (1, SamplingConfig(0.0, 0.95, 100))
    assert ProtocolConfig().applied(benchmark) == benchmark


def test_choices_are_put_in_an_order_that_the_question_decides() -> None:
    columns: dict[str, Any] = {
        "prompt": "q",
        "gold": "right",
        "shuffled": ["w1", "w2", "w3"],
        "level": 1,
    }
    mapping = RowMapping(**{**columns, "checker": "choice"})
    golds = []
    for number in range(40):
        row = {"q": f"question {number}", "right": "yes", "w1": "no", "w2": "maybe", "w3": "never"}
        problem = mapping.problem(row, "row 1")
        assert problem == mapping.problem(dict(reversed(row.items())), "row 1")
        assert problem is not None
        assert sorted(problem.metadata["choices"]) == ["maybe", "never", "no", "yes"]
        assert f"\n{problem.gold}) yes" in problem.prompt
        golds.append(problem.gold)
    assert set(golds) == set("ABCD")
    with pytest.raises(UserError, match="no column 'w3'; the columns are q, right, w1, w2"):
        mapping.problem({"q": "q", "right": "yes", "w1": "no", "w2": "maybe"}, "row 1")


def fingerprints(composed: Compose, *overrides: str) -> dict[str, str]:
    return {node.name: node.fingerprint for node in composed(*overrides).nodes}


def test_own_problems_are_identity_by_content_alone(composed: Compose, tmp_path: Path) -> None:
    def copy(name: str, gold: str) -> str:
        path = tmp_path / name
        path.write_text(json.dumps({"question": "q", "answer": f"#### {gold}"}) + "\n")
        return f"benchmarks.gsm8k.data.path={path}"

    overrides = ["benchmark=[gsm8k,heldout]", "benchmarks.gsm8k.count=1"]
    first = fingerprints(composed, *overrides, copy("a.jsonl", "1"))
    moved = fingerprints(composed, *overrides, copy("b.jsonl", "1"))
    other = fingerprints(composed, *overrides, copy("c.jsonl", "2"))
    assert first == moved
    changed = {name for name in first if first[name] != other[name]}
    assert changed == {name for name in first if name.endswith("/gsm8k")}
    # What the recipe trains on is no part of what a foreign checkpoint answers.
    here = ["recipe=evaluate", "model=checkpoint", "model.path=some/model", *overrides]
    source = copy("a.jsonl", "1")
    tiny, gym = (fingerprints(composed, *here, source, f"data={n}") for n in ("tiny", "gym_math"))
    assert tiny["model/gsm8k"] == gym["model/gsm8k"]
    assert tiny["model/heldout"] != gym["model/heldout"]


def test_engine_is_identity_and_its_model_is_the_policy(composed: Compose) -> None:
    here = ["recipe=evaluate", "model=checkpoint", "model.path=some/model"]
    plain = fingerprints(composed, *here)
    server = ["engine=openai", "hardware.sampling.url=http://127.0.0.1:1/v1"]
    served = fingerprints(composed, *here, *server)
    assert plain != served == fingerprints(composed, *here, *server, "engine.model=another")


def test_a_server_has_no_policy_of_a_stage(composed: Compose) -> None:
    with pytest.raises(UserError, match=r"engine: a server does not have the policies"):
        composed("engine=openai", "hardware.sampling.url=http://127.0.0.1:1/v1")


def test_nothing_to_evaluate_is_told(composed: Compose) -> None:
    with pytest.raises(UserError, match=r"no stage and no checkpoint.*model\.path"):
        composed("recipe=evaluate")


def test_model_is_found_by_whatever_names_it(tmp_path: Path) -> None:
    for name in ("abcdef0123456789", "abcdff0123456789"):
        folder = tmp_path / "store" / "sft" / name
        folder.mkdir(parents=True)
        (folder / "config.json").touch()
    runs = f"paths.runs={tmp_path}"

    def path(model: str, *rest: str) -> str:
        first, second, third, *others = as_recipe([f"model={model}", *rest], MODELS)
        assert (first, second) == ("recipe=evaluate", "model=checkpoint")
        assert others == list(rest)
        return third

    policy = tmp_path / "store" / "sft" / "abcdef0123456789"
    assert path("abcdef", runs) == f'model.path="{policy}"'
    assert path(str(policy)) == f'model.path="{policy}"'
    assert path("Qwen/Qwen2.5-0.5B") == 'model.path="Qwen/Qwen2.5-0.5B"'
    assert path("a/b,c/d") == 'model.path="a/b","c/d"'
    assert path("gpt", "engine=openai") == 'model.path="gpt"'
    assert as_recipe(["model=tiny", "x=1"], MODELS) == ["recipe=evaluate", "model=tiny", "x=1"]
    for model, refusal in [
        ("abcd", "no folder"),
        ("nowhere", "no folder.*checkpoint, tiny"),
        ("abcdee", r"no policy in '.*' has a fingerprint that begins with 'abcdee'$"),
    ]:
        with pytest.raises(UserError, match=refusal):
            as_recipe([f"model={model}", runs], MODELS)
    damaged = policy.with_name(f"{policy.name}.corrupt-1")
    damaged.mkdir()
    (damaged / "config.json").touch()
    assert path("abcdef", runs) == f'model.path="{policy}"'
    (policy.parent / "abcdef9999999999").mkdir()
    (policy.parent / "abcdef9999999999" / "config.json").touch()
    with pytest.raises(
        UserError, match=r"several policies .* begins with 'abcdef'; give more of it$"
    ):
        as_recipe(["model=abcdef", runs], MODELS)
    with pytest.raises(UserError, match="name what to evaluate"):
        as_recipe([runs], MODELS)


def test_policy_of_the_store_answers_as_in_its_recipe(
    smoke_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(smoke_run / "runs" / "store", tmp_path / "runs" / "store")
    store = Store(tmp_path / "runs" / "store")
    policy = next(a for a in store.artifacts() if a.stage == "sft")
    in_recipe = next(
        artifact
        for artifact in store.artifacts()
        if artifact.kind == "evaluation" and artifact.inputs["policy"] == policy.fingerprint
    )
    before = {artifact.fingerprint for artifact in store.artifacts()}
    given = in_recipe.identity["config"]["benchmark"]
    overrides = [
        f"benchmarks.heldout.samples={given['samples']}",
        f"benchmarks.heldout.sampling.max_new_tokens={given['sampling']['max_new_tokens']}",
        f"benchmarks.heldout.levels={given['levels']}",
        *(word for word in SMOKE if not word.startswith("experiment=")),
    ]
    assert lab_here("evaluate", f"model={policy.fingerprint}", *overrides, cwd=tmp_path) == 0
    (alone,) = [a for a in store.artifacts() if a.fingerprint not in before]
    assert alone.inputs == {}
    one, other = (read_rollouts(a.path / COMPLETIONS) for a in (in_recipe, alone))
    assert [r.completion.text for r in one] == [r.completion.text for r in other]
    assert alone.metrics["pass@1"] == in_recipe.metrics["pass@1"]
    assert f"sft-{policy.fingerprint[:8]}" in capsys.readouterr().out


def test_problems_of_a_policys_past_are_found_in_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")

    def store_record(stage: str, kind: str, **inputs: str) -> str:
        name = f"{len(list((tmp_path / 'store').glob('*/*'))):016x}"
        meta = Metadata(kind=kind, identity={"name": name}, inputs=inputs, seed=0)

        def build(out_dir: Path, work_dir: Path) -> Any:
            (out_dir / "file").write_text(name)
            return meta

        store.obtain(stage, name, build)
        return name

    raw = store_record("distill", "corpus")
    clean = store_record("curate", "corpus", corpus=raw)
    base = store_record("pretrain", "policy")
    tuned = store_record("sft", "policy", policy=base, corpus=clean)
    ancestors = lineage(tmp_path / "store" / "sft" / tuned)
    # The corpus before curation holds what was taken out, so it is not among them.
    assert sorted(path.name for path in ancestors) == sorted([tuned, clean, base])
    made_before = {tuned, clean, base}
    # Each round's policy reaches the next by two ways: 2 ** 40 in all.
    for _ in range(40):
        pairs = store_record("prefer", "preferences", policy=tuned)
        tuned = store_record("dpo", "policy", policy=tuned, preferences=pairs)
        made_before |= {pairs, tuned}
    ancestors = lineage(tmp_path / "store" / "dpo" / tuned)
    assert sorted(path.name for path in ancestors) == sorted(made_before)
    assert lineage(tmp_path) == []


def test_verdicts_given_once_more(tmp_path: Path) -> None:
    def stored_rollout(name: str, text: str, verdict: Verdict) -> Rollout:
        problem = Problem(name, "10", "math", "f")
        return Rollout(problem, Completion([1], text), None, verdict, "a")

    old = [
        stored_rollout("p", "\\boxed{10}", RIGHT),
        stored_rollout("p", "\\boxed{11}", RIGHT),
        stored_rollout("q", "\\boxed{10 apples}", WRONG),
        stored_rollout("q", "nothing", Verdict.UNPARSEABLE),
    ]
    folder = tmp_path / "evaluation"
    folder.mkdir()
    write_rollouts(folder / COMPLETIONS, old)
    result, path, _ = rescore(folder, "number", HardwareConfig(), tmp_path / "new")
    verdicts = [rollout.verdict for rollout in read_rollouts(path)]
    assert verdicts == [RIGHT, WRONG, RIGHT, Verdict.UNPARSEABLE]
    assert {r.problem.checker for r in read_rollouts(path)} == {"number"}
    assert (result.before.mean, result.after.mean, result.difference.mean) == (0.5, 0.5, 0.0)
    assert result.changed == {"correct -> wrong": 1, "wrong -> correct": 1}
    metrics = json.loads((path.parent / "metrics.json").read_text())
    assert metrics["pass@1"] == 0.5
    assert "math-verify" in metrics["verifier"]
    assert read_rollouts(folder / COMPLETIONS) == old
    with pytest.raises(UserError, match=r"the folder has no completions\.parquet"):
        rescore(tmp_path, None, HardwareConfig(), tmp_path / "none")


@pytest.mark.parametrize(
    ("thought_prefix", "verdict"), [("<think>\n", Verdict.UNPARSEABLE), ("", RIGHT)]
)
def test_a_draft_in_a_thought_that_the_template_opened_stays_without_credit(
    thought_prefix: str, verdict: Verdict, tmp_path: Path
) -> None:
    problem = Problem("p", "10", "number", "f")
    draft = Completion([1], "first \\boxed{10}, but", truncated=True)
    rollout = Rollout(problem, draft, None, Verdict.UNPARSEABLE, "a")
    folder = tmp_path / "evaluate" / f"{0:016x}"
    folder.mkdir(parents=True)
    write_rollouts(folder / COMPLETIONS, [rollout])
    metadata: dict[str, Any] = {"kind": "evaluation", "identity": {}, "inputs": {}, "seed": 0}
    names: dict[str, Any] = {"stage": "evaluate", "fingerprint": folder.name, "files": {}}
    metrics = {"thought_prefix": thought_prefix}
    Record(path=folder, metrics=metrics, **names, **metadata).write(folder)
    _, path, _ = rescore(folder, None, HardwareConfig(), tmp_path / "new")
    assert [one.verdict for one in read_rollouts(path)] == [verdict]


SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.parametrize(
    ("name", "file", "rows", "count"),
    [
        ("math500", "math500_test.json", {}, 500),
        ("aime24", "aime24_qwen.jsonl", {"prompt": "problem", "gold": "answer"}, 30),
        ("gsm8k", "gsm8k_test.jsonl", {}, 1319),
        ("aqua_rat", "aqua_dev.jsonl", {}, 254),
    ],
)
def test_real_problems_are_all_asked_and_their_golds_read(
    name: str, file: str, rows: dict[str, str], count: int, composed: Compose
) -> None:
    if not (SHARED / file).exists():
        pytest.skip("the shared data is not here")
    recipe = composed(
        f"benchmark=[{name}]",
        f"benchmarks.{name}.data.path={SHARED / file}",
        *(f"benchmarks.{name}.data.rows.{key}={column}" for key, column in rows.items()),
    )
    benchmark = recipe.root.benchmarks[name]
    assert benchmark.count == count
    source = recipe.benchmark_sources[name]
    problems = list(
        source.problems(Split(benchmark.split), benchmark.levels, benchmark.count, benchmark.seed)
    )
    assert len({problem.id for problem in problems}) == count
    with Verifier(workers=1, timeout_s=20, memory_mb=1024) as verifier:
        assert verifier.unreadable_golds(problems) == []
        # Each gold answers its own problem.
        boxes = [f"\\boxed{{{problem.gold}}}" for problem in problems]
        assert {str(verdict) for _, verdict in verifier.verify(problems, boxes)} == {"correct"}


def test_a_policy_copied_out_of_its_store_is_said_to_have_no_lineage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def build(out_dir: Path, work_dir: Path) -> Metadata:
        return Metadata(kind="policy", identity={}, inputs={}, seed=0)

    artifact, _ = Store(tmp_path / "store").obtain("sft", "0123456789abcdef", build)
    shutil.copytree(artifact.path, tmp_path / "copy")
    assert lineage(artifact.path) == [artifact.path]
    assert lineage(tmp_path / "copy") == []
    assert "what it was trained on is not known" in caplog.text
