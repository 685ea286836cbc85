"""The command as a user meets it: exit codes, one sentence, a whole run, an interrupted one."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.commands.sweep import combinations
from reasoning_lab.data.corpus import read_rollouts
from reasoning_lab.data.sources.config import ReasoningGymConfig
from reasoning_lab.data.trained_prompts import TrainedPrompts
from reasoning_lab.evaluate.benchmark import benchmark_problems
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.record import Record
from reasoning_lab.graph.store import Store
from reasoning_lab.types import Split, UserError, Verdict
from tests.conftest import SMOKE, lab, lab_here, start_lab
from tests.support.composition import composed_recipe
from tests.support.trained import trained_ids

POLICIES = ["pretrain", "midtrain", "sft", "dpo", "rl"]
# Scripts outside the repository read these.
ROW_KEYS = {
    *("variant", "stage", "seed", "benchmark", "n", "samples", "pass@1", "ci95"),
    *("completion_tokens", "train_tokens", "wall_s", "fingerprint"),
}


def report_of(folder: Path) -> Path:
    return max((folder / "runs" / "recipes").glob("*/report.json"))


def progress_lines(folder: Path) -> list[str]:
    """What the first run's log says of its progress, without the times."""
    log = min((folder / "runs" / "recipes").glob("*/log.txt")).read_text()
    return re.findall(r"^\S+ \S+ (\[step .*)$", log, re.MULTILINE)


def store_files(folder: Path) -> dict[str, int]:
    """Every file of every artifact with the time at which it was written."""
    root = folder / "runs" / "store"
    return {
        str(path): path.stat().st_mtime_ns
        for path in root.rglob("*")
        if path.is_file() and path.suffix not in (".lock", ".stat")
    }


def assert_one_sentence(code: int, err: str, *parts: str) -> None:
    assert code == 2, err
    assert len(err.strip().splitlines()) == 1, err
    assert "Traceback" not in err
    for part in parts:
        assert part in err, err


def test_misspelt_key_ends_in_one_sentence(tmp_path: Path) -> None:
    code, _, err = lab("stages.sft.cuont=3", cwd=tmp_path)
    assert_one_sentence(code, err, "stages.sft.cuont=3", "did you mean 'count'?")
    assert not (tmp_path / "runs").exists()


def test_missing_input_ends_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = lab_here("~stages.distill", cwd=tmp_path)
    assert_one_sentence(code, capsys.readouterr().err, "stages.midtrain", "corpus", "'distill'")


def test_output_folder_that_is_a_file_ends_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert lab_here("experiment=smoke", "paths.runs=file", cwd=tmp_path) == 2
    (sentence,) = capsys.readouterr().err.strip().splitlines()
    assert "file/recipes/" in sentence
    assert "Not a directory; check the path, or choose another" in sentence


def test_missing_value_ends_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = lab_here("plan", "data=jsonl", cwd=tmp_path)
    assert_one_sentence(code, capsys.readouterr().err, "data.path=VALUE")


def test_broken_config_file_ends_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("stages: [\n")
    code = lab_here("--config-dir", str(tmp_path), "experiment=mine", cwd=tmp_path)
    assert_one_sentence(code, capsys.readouterr().err, "mine.yaml", "line 2", "not YAML")


def test_malformed_row_is_named_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ['{"prompt": "1 + 1?", "gold": "2"}', '{"prompt": "2 + 2?"}']
    (tmp_path / "mine.jsonl").write_text("\n".join(rows))
    code = lab_here("data=jsonl", "data.path=mine.jsonl", cwd=tmp_path)
    assert_one_sentence(code, capsys.readouterr().err, "mine.jsonl, line 2", "'gold'")
    assert not (tmp_path / "runs" / "store").exists()


def test_help_needs_no_torch(tmp_path: Path) -> None:
    script = (
        "import atexit, sys\n"
        "from reasoning_lab.cli import main\n"
        "heavy = {'torch', 'pytorch_lightning', 'transformers'}\n"
        "atexit.register(lambda: print('heavy:', *(heavy & sys.modules.keys())))\n"
        "sys.argv = ['reasoning-lab', '--help']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "experiment: " in done.stdout
    assert done.stdout.rstrip().endswith("heavy:")


def test_plan_of_nothing_made_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab_here("plan", "format=json", "ablate=midtrain", cwd=tmp_path) == 0
    nodes = json.loads(capsys.readouterr().out)["nodes"]
    assert [node["stage"] for node in nodes][:4] == [
        "pretrain",
        "pretrain/heldout",
        "distill",
        "sft",
    ]
    for node in nodes:
        assert {"stage", "variant", "fingerprint", "state"} <= node.keys()
        assert node["variant"] == "midtrain"
        assert node["state"] == "run"
    assert list(tmp_path.iterdir()) == []


def test_plan_after_a_run_says_cached(smoke_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert (
        lab_here("plan", "format=json", *SMOKE, "stages.rl.policy_loss.clip_low=0.1", cwd=smoke_run)
        == 0
    )
    nodes = json.loads(capsys.readouterr().out)["nodes"]
    states = {node["stage"]: node["state"] for node in nodes}
    assert {stage for stage, state in states.items() if state == "run"} == {"rl", "rl/heldout"}
    # What is reused still lacks what it dropped.
    warned = 0
    for node in nodes:
        if node["state"] == "cached":
            (record,) = smoke_run.glob(f"runs/store/*/{node['fingerprint']}/artifact.json")
            ledger = Ledger.of(json.loads(record.read_text())["ledger"])
            assert node["warnings"] == ledger.warnings()
            warned += len(node["warnings"])
    assert warned


def test_run_leaves_its_report(smoke_run: Path) -> None:
    path = report_of(smoke_run)
    rows = json.loads(path.read_text())["rows"]
    assert [row["stage"] for row in rows] == POLICIES
    for row in rows:
        assert set(row) >= ROW_KEYS
        verdicts = [row[f"{verdict}_frac"] for verdict in Verdict]
        assert sum(verdicts) == pytest.approx(1)
        assert (row["benchmark"], row["seed"], row["n"], row["samples"]) == ("heldout", 0, 14, 1)
        assert row["variant"] == "none"
        assert 0 <= row["ci95"][0] <= row["pass@1"] <= row["ci95"][1] <= 1
        assert row["wall_s"] > 0
        assert row["completion_tokens"] > 0
    page = (path.parent / "report.md").read_text()
    assert page.startswith("# ")
    for stage in ("pretrain", "distill", "midtrain", "sft", "prefer", "dpo", "rl", "rl/heldout"):
        assert f"| {stage} (seed 0) | " in page[page.index("## What was dropped") :]
    assert (path.parent / "ladder.png").read_bytes().startswith(b"\x89PNG")
    # Tables of tokens stay for the next stage that reads the same.
    assert [path.name for path in (smoke_run / "runs" / "work").iterdir()] == ["tokens"]


def test_each_step_of_a_run_says_how_far_it_is_and_what_it_left(smoke_run: Path) -> None:
    lines, number = progress_lines(smoke_run), r"[\d,.e+-]+"
    left = r"0:00:\d\d left of the stage, of the run (not known yet|at least 0:0\d:\d\d|0:00:\d\d)"
    for step, policy in zip((1, 4, 6, 9, 11), POLICIES, strict=True):
        title = rf"\[step {step} of 12\] {policy}:"
        measure = "reward" if policy == "rl" else "loss"
        steps = [
            line
            for line in lines
            if re.fullmatch(
                rf"{title} step (\d) of [24], {measure} {number}, learning rate {number}, "
                rf"{number} tokens/s, {left}",
                line,
            )
        ]
        assert len(steps) == 2, lines
        (end,) = [line for line in lines if f" {policy}: done" in line]
        path = rf"\S*runs/store/{policy}/[0-9a-f]{{16}}"
        assert re.fullmatch(rf"{title} done in \d+ s, {number} tokens trained.*; {path}", end), end
        evaluation = rf"\[step {step + 1} of 12\] {policy}/heldout:"
        sampled = rf"{evaluation} completion 14 of 14, {number} tokens/s, {left}"
        assert any(re.fullmatch(sampled, line) for line in lines)
        scored = rf"{evaluation} done in \d+ s, pass@1 {number}% of 14 problems; \S+"
        assert any(re.fullmatch(scored, line) for line in lines)
    solved = rf"\[step 3 of 12\] distill: problem 120 of 120, {number}% accepted, .* {left}"
    assert any(re.fullmatch(solved, line) for line in lines)


def test_an_artifact_names_the_versions_that_made_it(smoke_run: Path) -> None:
    (record,) = smoke_run.glob("runs/store/distill/*/artifact.json")
    versions = json.loads(record.read_text())["versions"]
    assert versions.keys() >= {"reasoning-lab", "torch", "reasoning-gym", "math-verify"}
    assert all(versions[package] == version(package) for package in versions)


def test_report_looks_at_the_store_alone(
    smoke_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, report = store_files(smoke_run), json.loads(report_of(smoke_run).read_text())
    capsys.readouterr()
    assert lab_here("report", *SMOKE, "seed=0", cwd=smoke_run) == 0
    path = re.search(r"Report: (runs/reports/[^/]+)/report.html", capsys.readouterr().out)
    assert path is not None
    again = json.loads((smoke_run / path[1] / "report.json").read_text())
    # Each names the words that it was given.
    (command,), (command_before,) = (of["run"].pop("command") for of in (again, report))
    assert set(command.split()) - set(command_before.split()) <= {"seed=0"}
    assert again == report
    assert store_files(smoke_run) == before


def test_report_refuses_what_is_not_complete(
    smoke_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab_here("report", *SMOKE, "seed=0,1,2", cwd=smoke_run) == 2
    err = capsys.readouterr().err
    assert re.search(r"seed=1 .*lacks pretrain, pretrain/heldout", err)
    assert "1 more recipe is incomplete" in err
    assert re.search(r"run it first: reasoning-lab experiment=smoke .*seed=1", err)


def test_a_report_names_what_was_swept() -> None:
    runs = combinations(
        ["seed=0,1", "ablate=none,[dpo,rl]", "stages.rl.policy_loss.clip_low=0.1,0.2", "a=b"]
    )
    assert len(runs) == 8
    assert runs[0] == (
        ["seed=0", "ablate=none", "stages.rl.policy_loss.clip_low=0.1", "a=b"],
        "stages.rl.policy_loss.clip_low=0.1",
    )
    assert runs[-1][0] == ["seed=1", "ablate=[dpo,rl]", "stages.rl.policy_loss.clip_low=0.2", "a=b"]
    with pytest.raises(UserError, match="is an interval"):
        combinations(["stages.rl.policy_loss.clip_low=interval(0,1)"])


def test_run_leaves_every_artifact(smoke_run: Path) -> None:
    recipe = composed_recipe(*SMOKE)
    store = Store(smoke_run / "runs" / "store")
    for node in recipe.nodes:
        artifact = store.lookup(node.stage.name, node.fingerprint)
        assert artifact is not None, node.name
        assert artifact.kind == node.produces.kind
        assert artifact.inputs == {k: maker.fingerprint for k, maker in node.inputs.items()}
        if artifact.kind == "policy":
            assert {"model.safetensors", "tokenizer.json", "config.json"} <= artifact.files.keys()
            assert not any(name.endswith((".ckpt", ".bin", ".pt")) for name in artifact.files)
        if artifact.kind == "evaluation":
            assert len(read_rollouts(artifact.path / "completions.parquet")) == 14


def test_training_tokens_are_counted(smoke_run: Path) -> None:
    rows = json.loads(report_of(smoke_run).read_text())["rows"]
    tokens = {row["stage"]: row["train_tokens"] for row in rows}
    # Packed rows of 512 tokens: 4 steps of 2 rows at most.
    assert 0 < tokens["midtrain"] <= 4 * 2 * 512
    assert all(tokens[stage] > 0 for stage in ("pretrain", "sft", "dpo", "rl"))


def artifacts(folder: Path) -> list[Record]:
    return list(Store(folder / "runs" / "store").artifacts())


def test_held_out_prompts_were_never_trained_on(smoke_run: Path) -> None:
    records = artifacts(smoke_run)
    held_out = {
        rollout.problem.id
        for artifact in records
        if artifact.kind == "evaluation"
        for rollout in read_rollouts(artifact.path / "completions.parquet")
    }
    assert len(held_out) == 14
    trained = {artifact.stage: trained_ids(artifact.path) for artifact in records}
    assert {stage for stage, ids in trained.items() if ids} == {
        "pretrain",
        "distill",
        "prefer_teacher",
        "rl",
    }
    assert all(not ids & held_out for ids in trained.values())
    for name in ("accepted", "rejected", "validation"):
        (corpus,) = [a for a in records if a.stage == "distill"]
        seen = {r.problem.id for r in read_rollouts(corpus.path / f"{name}.parquet")}
        assert seen
        assert not seen & held_out


def test_rejection_sampling_keeps_the_two_sorts_apart(smoke_run: Path) -> None:
    (corpus,) = [a for a in artifacts(smoke_run) if a.stage == "distill"]
    accepted = read_rollouts(corpus.path / "accepted.parquet")
    rejected = read_rollouts(corpus.path / "rejected.parquet")
    assert accepted
    assert all(rollout.correct for rollout in accepted)
    assert rejected
    assert not any(rollout.correct for rollout in rejected)
    assert {rollout.author for rollout in [*accepted, *rejected]} == {"procedural"}


def test_leaked_prompt_is_refused(tmp_path: Path) -> None:
    root = composed_recipe(*SMOKE).root
    source: ReasoningGymConfig = root.data.build()
    benchmark = root.benchmarks["heldout"]
    clean, leaky = tmp_path / "clean", tmp_path / "leaky"
    for folder in (clean, leaky):
        folder.mkdir()
    TrainedPrompts.of(source.problems(Split.TRAIN, [2], 50, 0)).write(clean)
    problems = benchmark_problems(source, benchmark, "heldout", [clean])
    assert len(problems) == 14
    TrainedPrompts.of(problems[3:5]).write(leaky)
    with pytest.raises(UserError, match=r"benchmarks\.heldout: 2 of its 14 prompts.*leaky"):
        benchmark_problems(source, benchmark, "heldout", [clean, leaky])


def test_second_run_makes_nothing(smoke_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, first = store_files(smoke_run), json.loads(report_of(smoke_run).read_text())
    capsys.readouterr()
    assert lab_here(*SMOKE, cwd=smoke_run) == 0
    out = capsys.readouterr().out
    assert out.count(": reused") == 12
    assert ": done" not in out
    assert store_files(smoke_run) == before
    assert json.loads(report_of(smoke_run).read_text()) == first


def wait_for(path: Path, process: Any) -> None:
    deadline = time.monotonic() + 250
    while not path.is_dir() or not any(path.rglob("training")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_goes_on_where_it_was(
    number: signal.Signals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        *SMOKE,
        "ablate=[distill,midtrain,sft,prefer,dpo,rl]",
        "model.architecture.hidden_size=32",
        "model.architecture.num_hidden_layers=1",
        "stages.pretrain.optimization.length=150 steps",
    ]
    process = start_lab(*arguments, cwd=tmp_path)
    wait_for(tmp_path / "runs" / "work", process)
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=250)
    assert process.returncode == 128 + number, out + err
    assert "Traceback" not in err
    stopped = re.search(
        r"^stages\.pretrain: stopped, with its state saved at step (\d+) of 150; "
        r"run the same command again to go on where it was\.\Z",
        err.strip(),
        re.MULTILINE,
    )
    assert stopped, err
    (state,) = (tmp_path / "runs" / "work").rglob("step-*")
    assert int(state.name.split("-")[1]) == int(stopped[1])
    assert "[step 1 of 2] pretrain: started" in out.splitlines()
    assert "[step 1 of 2] pretrain: step 1 of 150, loss " in out
    assert progress_lines(tmp_path) == [line for line in out.splitlines() if line[:5] == "[step"]
    for noise in ("Epoch", "v_num", "accelerator", "Warning", "\r"):
        assert noise not in out + err
    assert store_files(tmp_path) == {}
    assert not list((tmp_path / "runs" / "store").rglob(".building-*"))
    capsys.readouterr()
    assert lab_here(*arguments, cwd=tmp_path) == 0
    resumed = f"[step 1 of 2] pretrain: goes on from step {stopped[1]} of 150"
    assert resumed in capsys.readouterr().out.splitlines()
    assert [row["stage"] for row in json.loads(report_of(tmp_path).read_text())["rows"]] == [
        "pretrain"
    ]
    assert not any((tmp_path / "runs" / "work").iterdir())
