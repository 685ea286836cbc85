"""Rehearsals of whole experiments, and of settings with a fault, which each of them names."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.commands.compose import typed
from reasoning_lab.commands.rehearsal import Rehearsal, rehearse
from reasoning_lab.commands.rehearsal_steps import State
from reasoning_lab.commands.rehearse import main
from reasoning_lab.config.components import missing_packages_noted
from reasoning_lab.types import UserError
from tests.support.composition import composed_config, composed_recipe
from tests.support.sources import write_lines
from tests.support.twins import TWINS, save_twin, twin_model, twin_tokenizer

BARE = ("recipe=evaluate", "benchmark=[]", "data=tiny")
QUIET = ("tracker.mode=disabled", "hardware.threads=1")
RL = (
    "+stage@stages.rl=rl",
    "stages.rl.problems.count=8",
    "stages.rl.max_new_tokens=32",
    "stages.rl.optimization.length=1 step",
    "stages.rl.optimization.batch_size=2",
)
FAULTS = "tests.support.faults"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "small"
    tokenizer = twin_tokenizer(TWINS["qwen3"], ["What is 3 + 4?"] * 4)
    save_twin(twin_model(TWINS["qwen3"], tokenizer), tokenizer, folder)
    return folder


def of_model(folder: Path) -> tuple[str, ...]:
    return (*BARE, "model=checkpoint", f"model.path={folder}")


def rehearsed(folder: Path, *overrides: str) -> Rehearsal:
    root = typed(composed_config(*QUIET, *overrides, f"paths.runs={folder / 'runs'}"))
    return rehearse(root, folder / "rehearsal", online=False)


def failure(rehearsal: Rehearsal, step: str) -> str:
    """The sentence of the step, which is the first that failed."""
    failed = [one for one in rehearsal.steps.done if one.state is State.FAILED]
    assert [one.name for one in failed][:1] == [step], rehearsal.steps.done
    assert not rehearsal.passed
    return failed[0].sentence


def command(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    arguments = [sys.executable, "-m", "reasoning_lab", *words]
    return subprocess.run(arguments, capture_output=True, text=True, check=False, **options)


def own_problems(folder: Path, gold: str = "{}", solution: str = "{} apples.") -> list[str]:
    rows = [
        {
            "prompt": f"Ada has {n} apples and finds one. How many?",
            "gold": gold.format(n + 1),
            "solution": solution.format(n + 1) + f" \\boxed{{{n + 1}}}",
        }
        for n in range(60)
    ]
    path = write_lines(folder / "problems.jsonl", rows)
    return [
        "recipe=distill",
        "benchmark=[]",
        "data=jsonl",
        f"data.path={path}",
        "data.rows.solutions=solution",
        "teacher@stages.distill.teacher=recorded",
        "stages.distill.problems.count=20",
        "stages.distill.validation=3",
    ]


def test_a_column_that_the_dataset_lacks_is_named_without_the_dataset(tmp_path: Path) -> None:
    recorded = "teacher@stages.distill.teacher=recorded"
    rehearsal = rehearsed(
        tmp_path, "recipe=distill", "data=gsm8k", "benchmark=[]", recorded, "data.rows.gold=anwser"
    )
    sentence = failure(rehearsal, "model" if rehearsal.steps.has_failed(["model"]) else "rows")
    assert (
        "data.rows.gold: there is no column 'anwser'; the columns are question, answer" in sentence
    )


def test_a_split_that_the_dataset_lacks_is_named_without_the_dataset(tmp_path: Path) -> None:
    rehearsal = rehearsed(
        tmp_path, "recipe=distill", "data=gsm8k", "benchmark=[]", "data.splits={train: trian}"
    )
    assert failure(rehearsal, "rows") == (
        "data.splits: 'openai/gsm8k' has no split 'trian' in configuration main; correct "
        "data.config or data.splits"
    )


def test_golds_that_no_checker_reads_are_named(tmp_path: Path) -> None:
    problems = own_problems(tmp_path, gold="as many as {} or so")
    rehearsal = rehearsed(tmp_path, *problems, "data.rows.checker=number")
    assert "stages.distill.problems: " in failure(rehearsal, "settings and local data")


def test_documents_that_are_longer_than_a_row_are_named(tmp_path: Path) -> None:
    rehearsal = rehearsed(tmp_path, "experiment=smoke", "stages.midtrain.row_tokens=8")
    assert failure(rehearsal, "settings and local data").startswith(
        "stages.midtrain.row_tokens=8: none of"
    )


def test_a_model_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    rehearsal = rehearsed(tmp_path, *of_model(tmp_path / "nowhere"), *RL)
    assert failure(rehearsal, "model") == (
        f"model.path: there is no folder '{tmp_path / 'nowhere'}'; check the path"
    )


@pytest.mark.long
def test_a_policy_that_the_recipe_makes_stands_for_a_teacher(
    checkpoint: Path, tmp_path: Path
) -> None:
    rehearsal = rehearsed(
        tmp_path,
        "experiment=smoke",
        "ablate=[midtrain,sft,prefer,dpo,rl]",
        "benchmark=[]",
        "+stage@stages.opd=opd",
        f"stages.opd.teacher.path={checkpoint}",
        "stages.opd.problems={count: 8, stream: [0, 1]}",
        "stages.opd.max_new_tokens=32",
    )
    assert rehearsal.passed, rehearsal.steps.done
    (note,) = (note for note in rehearsal.notes if note.startswith("stages.opd.teacher.path: "))
    assert note.endswith(f"what pretrain makes stands for '{checkpoint}', as the tokenizer is new")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(UserError, match=r"^hardware\.strategy=deepspeed2: the package 'deepspeed'"):
        rehearsed(tmp_path, "experiment=smoke", "hardware.strategy=deepspeed2")


def test_a_problem_that_the_teacher_cannot_solve_is_named(tmp_path: Path) -> None:
    rehearsal = rehearsed(tmp_path, "recipe=distill", "data=gsm8k", "benchmark=[]")
    sentence = failure(rehearsal, "small data")
    assert sentence.startswith("stages.distill.problems: ")
    assert "teacher" in sentence


@pytest.mark.long
def test_completions_that_would_all_be_cut_off_are_named(tmp_path: Path) -> None:
    rehearsal = rehearsed(tmp_path, "experiment=smoke", "stages.rl.max_new_tokens=4")
    assert failure(rehearsal, "lengths").startswith(
        "stages.rl.max_new_tokens=4: none of 24 solutions fits, whose median has "
    )


@pytest.mark.long
def test_a_chat_template_that_fails_is_named(tmp_path: Path, checkpoint: Path) -> None:
    folder = tmp_path / "model"
    subprocess.run(["cp", "-r", str(checkpoint), str(folder)], check=True)
    for file in ("chat_template.jinja", "tokenizer_config.json"):
        (folder / file).unlink()
    text = (checkpoint / "tokenizer_config.json").read_text()
    config = json.loads(text) | {"chat_template": "{{ raise_exception('no user here') }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    sentence = failure(rehearsed(tmp_path, *of_model(folder), *RL), "model")
    assert sentence.startswith(
        "model: its chat template cannot render a user's turn (no user here)"
    )


@pytest.mark.long
def test_what_the_doctor_says_of_a_template_is_told(tmp_path: Path, checkpoint: Path) -> None:
    """This one writes the end of a thought behind every prompt, so that no thought can follow."""
    folder = tmp_path / "model"
    subprocess.run(["cp", "-r", str(checkpoint), str(folder)], check=True)
    template = (folder / "chat_template.jinja").read_text()
    closed = template.replace("assistant\n' }}", "assistant\n<think>\n\n</think>\n\n' }}")
    assert closed != template
    (folder / "chat_template.jinja").write_text(closed)
    rehearsal = rehearsed(tmp_path, *of_model(folder), *RL)
    assert "thought" in failure(rehearsal, "doctor")


@pytest.mark.long
def test_a_reward_that_raises_is_named(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REASONING_LAB_TRUSTED", FAULTS)
    reward = f"+stages.rl.rewards.own={{_target_: {FAULTS}.raising}}"
    sentence = failure(rehearsed(tmp_path, *of_model(checkpoint), *RL, reward), "rl")
    assert sentence.startswith("stages.rl.rewards.own: ")
    assert "ZeroDivisionError" in sentence


@pytest.mark.long
def test_a_stage_of_ones_own_that_raises_is_named_and_the_others_are_rehearsed(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REASONING_LAB_TRUSTED", FAULTS)
    rehearsal = rehearsed(tmp_path, *of_model(checkpoint), "+schema@stages.mine=broken", *RL)
    sentence = failure(rehearsal, "mine")
    assert sentence.startswith("stages.mine: it failed with KeyError: 'lambda' (faults.py, line ")
    waiting = [s.name for s in rehearsal.steps.done if s.state is State.NOT_REACHED]
    assert waiting == ["rl", "report"]


@pytest.mark.long
def test_an_export_that_cannot_be_loaded_is_named(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REASONING_LAB_TRUSTED", FAULTS)
    rehearsal = rehearsed(tmp_path, *of_model(checkpoint), "+schema@stages.mine=pickling")
    assert failure(rehearsal, "export").startswith("export: cannot load ")


@pytest.mark.long
def test_a_tracker_that_cannot_be_imported_is_named(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    rehearsal = rehearsed(tmp_path, *of_model(checkpoint), *RL, "tracker.mode=offline")
    assert failure(rehearsal, "tracker").startswith(
        "tracker.mode=offline: the package 'wandb' cannot be imported"
    )


@pytest.mark.long
def test_a_full_disk_is_named(tmp_path: Path, checkpoint: Path) -> None:
    """No file may grow beyond 100 kB, and the model's has more."""
    size = 100_000
    done = command(
        *("rehearse", *of_model(checkpoint), *RL, *QUIET),
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )
    assert done.returncode == 1, done.stderr
    assert "the disk is full, or a file may not grow" in done.stdout
    assert "paths.runs=FOLDER" in done.stdout


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["experiment=smoke"], id="smoke", marks=pytest.mark.long),
        pytest.param(["experiment=gsm8k", "hardware=h100x8"], id="fsdp", marks=pytest.mark.soak),
    ],
)
def test_shipped_experiments_pass(words: list[str], tmp_path: Path) -> None:
    done = command("rehearse", *words, "format=json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout[done.stdout.index("\n{\n") :])
    assert result["passed"]
    assert {step["state"] for step in result["steps"]} == {"passed"}
    names = [step["name"] for step in result["steps"]]
    assert names[-3:] == ["report", "tracked runs", "export"]
    # The user's own store has nothing of it.
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["rehearsals"]


def test_the_plan_is_that_of_the_run_also_where_vllm_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Policies that another engine's rollouts trained are others; here no twin can be made."""
    monkeypatch.setattr("reasoning_lab.commands.shrink.find_spec", lambda name: None)
    words = [*of_model(Path("nobody/nothing")), *RL, "stages.rl.rollout_engine=vllm"]
    rehearsal = rehearsed(tmp_path, *words)
    assert "nobody/nothing" in failure(rehearsal, "model")
    assert any("transformers takes its place" in note for note in rehearsal.notes)
    with missing_packages_noted():
        recipe = composed_recipe(*QUIET, *words, f"paths.runs={tmp_path / 'runs'}")
    fingerprints = [node.fingerprint for node in recipe.nodes]
    assert [node.fingerprint for node in rehearsal.real_plan] == fingerprints


def test_a_sweep_is_refused_and_not_taken_for_its_first_run() -> None:
    with pytest.raises(UserError, match="one run at a time; leave -m out"):
        main(["-m", "experiment=002_stage_ablation"])
