"""Every strategy on every training stage, in two real processes: exact, resumable, killable."""

import json
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from reasoning_lab.launch.job import launched
from reasoning_lab.tracking.curves import read_history
from reasoning_lab.training.job import Job
from reasoning_lab.types import UserError
from tests.conftest import SMOKE, lab, start_lab
from tests.support.launches import (
    NAMES,
    after_first_checkpoint,
    assert_processes_end_with_command,
    error_of_killed_rank,
    max_weight_difference,
    stage_processes,
    train_together,
    with_many_steps,
    with_placement,
)

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]

STRATEGIES = ["ddp", "fsdp", "deepspeed1", "deepspeed2", "deepspeed3"]
# Variants of stages, and the strategies that are tested with them.
VARIANTS = {
    "lora": ["ddp"],
    "mixed": ["ddp", "fsdp"],
    "reference": ["fsdp", "deepspeed3"],
    "padded": ["fsdp"],
    "best": ["ddp", "fsdp", "deepspeed2", "deepspeed3"],
    "best_rl": ["ddp", "fsdp"],
    "objective": ["ddp", "deepspeed3"],
    "opd": ["ddp", "fsdp", "deepspeed3"],
    "curriculum": ["ddp"],
}
CASES = [(strategy, name) for strategy in STRATEGIES for name in NAMES] + [
    (strategy, name) for name, strategies in VARIANTS.items() for strategy in strategies
]


@pytest.fixture(scope="module")
def pairs(jobs: dict[str, Job], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case in two processes, uninterrupted and resumed half-way; one folder each."""
    root = tmp_path_factory.mktemp("pairs")
    jobs_by_case = {
        f"{strategy}-{name}": with_placement(jobs[name], root / "jobs" / strategy / name, strategy)
        for strategy, name in CASES
    }
    train_together(jobs_by_case, root)
    return root


@pytest.mark.parametrize(("strategy", "name"), CASES)
def test_two_processes_equal_one(
    strategy: str,
    name: str,
    pairs: Path,
    single: dict[str, tuple[Path, Any]],
    jobs: dict[str, Job],
) -> None:
    folder = pairs / f"{strategy}-{name}"
    alone, expected = single[name]
    metrics, ledger = expected.metrics, expected.ledger
    whole = folder / "whole"
    assert max_weight_difference(alone, whole) < 1e-5
    if name != "pretrain":
        assert max_weight_difference(jobs[name].inputs["policy"].path, whole) > 3e-4
    outcome = json.loads((folder / "whole.json").read_text())
    assert outcome["ledger"] == ledger != {}
    same = [key for key in metrics if key not in ("train_s", "val_loss")]
    assert {key: outcome["metrics"][key] for key in same} == {key: metrics[key] for key in same}
    curves, ours = read_history(alone), read_history(whole)
    assert ours.keys() == curves.keys()
    for key in ("train/loss", "train/learning_rate", "val/loss", "train/gradient_norm"):
        assert ours.get(key, {}) == pytest.approx(curves.get(key, {}), abs=1e-5), key
    # As a user loads it.
    model = AutoModelForCausalLM.from_pretrained(whole)
    assert all(torch.isfinite(weights).all() for weights in model.parameters())


@pytest.mark.parametrize(("strategy", "name"), CASES)
def test_resumed_pair_is_the_uninterrupted_one(strategy: str, name: str, pairs: Path) -> None:
    folder, again = pairs / f"{strategy}-{name}", pairs / "jobs" / strategy / name / "out"
    assert max_weight_difference(folder / "whole", again) == 0
    # The state has the metrics of the steps before it.
    assert read_history(again) == read_history(folder / "whole")


@pytest.mark.parametrize(
    ("strategy", "name"), [("ddp", "pretrain"), ("fsdp", "dpo"), ("deepspeed3", "rl")]
)
def test_killed_process_ends_all_in_one_sentence(
    strategy: str, name: str, jobs: dict[str, Job], tmp_path: Path
) -> None:
    job = with_placement(with_many_steps(jobs[name]), tmp_path / "job", strategy)
    assert error_of_killed_rank(job, tmp_path).startswith(
        f"stages.{name}: the process of rank 1 was killed by signal 9; "
    )


def test_users_mistake_in_a_rank_is_the_commands_error(
    jobs: dict[str, Job], tmp_path: Path
) -> None:
    config: Any = jobs["sft"].stage
    job = replace(
        with_placement(jobs["sft"], tmp_path / "job", "ddp"), stage=replace(config, levels=[9])
    )
    with pytest.raises(UserError, match=r"^stages\.sft\.levels: the corpus has no.*\[9\]"):
        launched(job)


def test_command_stops_resumes_and_ends(tmp_path: Path) -> None:
    words = [
        *SMOKE,
        "tracker.mode=offline",
        *("hardware.devices=2", "hardware.strategy=ddp"),
        *("stages.pretrain.optimization.length=80 steps", "~stages.distill", "~stages.midtrain"),
        *("~stages.sft", "~stages.prefer", "~stages.dpo", "~stages.rl"),
        "stages.pretrain.optimization.checkpoint_every_steps=5",
        "stages.pretrain.optimization.log_every_steps=1",
    ]
    process = start_lab(*words, cwd=tmp_path)
    after_first_checkpoint(tmp_path / "runs" / "work", lambda: process.send_signal(signal.SIGINT))
    _, err = process.communicate(timeout=250)
    assert process.returncode == 130, err
    stopped = re.search(r"^stages\.pretrain: stopped, .* saved at step (\d+) of 80; run", err, re.M)
    assert stopped, err
    assert not stage_processes(tmp_path)
    newest = max(tmp_path.glob("runs/work/*/ddp-2x*/step-*"))
    assert int(newest.name.split("-")[1]) == int(stopped[1])
    code, out, err = lab(*words, cwd=tmp_path)
    assert code == 0, err
    assert "pretrain: done" in out
    (record,) = tmp_path.glob("runs/store/pretrain/*/artifact.json")
    metrics = json.loads(record.read_text())["metrics"]
    assert metrics["train_tokens"] > 0
    assert list(read_history(record.parent)["train/loss"]) == [*range(80)]
    assert f"pretrain: goes on from step {stopped[1]} of 80" in out
    # Rank 0 logs to the tracker.
    contents = [file.read_bytes() for file in tmp_path.glob("runs/wandb/**/*pretrain-*.wandb")]
    assert any(b"train/loss" in content for content in contents)


def test_processes_end_with_a_command_that_is_killed(jobs: dict[str, Job], tmp_path: Path) -> None:
    assert_processes_end_with_command(
        with_placement(with_many_steps(jobs["sft"]), tmp_path / "job", "ddp"), tmp_path
    )
