"""Stages as jobs of a stand-in for SLURM: preempted, lost and cut off, they end in the same bytes.

What happens to them comes at random moments, which the message of a failure names.
"""

import random
import signal
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.config.hardware import SlurmConfig
from reasoning_lab.launch.job import launched
from reasoning_lab.training.job import Job
from reasoning_lab.types import UserError
from tests.commands.test_kill import contents
from tests.conftest import SMOKE, lab, lab_here, start_lab
from tests.launch.test_slurm import ON_CPUS, cluster  # noqa: F401
from tests.support.launches import (
    assert_equals_one_process,
    assert_processes_end,
    error_of_killed_rank,
    file_checksums,
    last_step,
    with_length,
    with_many_steps,
    with_placement,
)
from tests.support.slurm_cluster import ask, install, jobs_of, options_of, record_of

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(1800)]


def on_two_machines(job: Job) -> Job:
    """The job on two machines with one device each."""
    slurm = SlurmConfig(time_limit_minutes=12, cpus_per_device=3, sbatch={"partition": "some"})
    return replace(job, hardware=replace(job.hardware, devices=1, nodes=2, slurm=slurm))


def test_two_machines_equal_one_process(
    jobs: dict[str, Job],
    single: dict[str, tuple[Path, Any]],
    tmp_path: Path,
    cluster: Path,  # noqa: F811
) -> None:
    job = on_two_machines(with_placement(jobs["sft"], tmp_path / "job", "fsdp"))
    assert_equals_one_process(job, single["sft"])
    options = options_of(cluster, 1)
    expected = {"nodes": "2", "ntasks-per-node": "1", "cpus-per-task": "3", "time": "12"}
    assert expected.items() <= options.items()
    assert options["partition"] == "some"
    assert options["requeue"] == ""
    assert options["job-name"] == "reasoning-lab-sft"


def test_lost_machine_ends_all_in_one_sentence(
    jobs: dict[str, Job],
    tmp_path: Path,
    cluster: Path,  # noqa: F811
) -> None:
    job = on_two_machines(with_placement(with_many_steps(jobs["sft"]), tmp_path / "job", "ddp"))
    assert error_of_killed_rank(job, tmp_path).startswith(
        "stages.sft: SLURM job 1: the process of rank 1 was killed by signal 9; "
    )


def test_stage_that_does_not_train_is_a_job_too(
    single: dict[str, tuple[Path, Any]],
    tmp_path: Path,
    cluster: Path,  # noqa: F811
) -> None:
    words = ["evaluate", f"model={single['sft'][0]}", "benchmark=[heldout]", *ON_CPUS]
    small = [
        "benchmarks.heldout.count=3",
        "benchmarks.heldout.samples=1",
        "benchmarks.heldout.sampling.max_new_tokens=4",
        "tracker.mode=disabled",
    ]
    process = start_lab(*words, *small, cwd=tmp_path)
    out, err = process.communicate(timeout=550)
    assert process.returncode == 0, err
    assert "heldout: done" in out
    assert options_of(cluster, 1)["nodes"] == "1"
    assert list(tmp_path.glob("runs/store/evaluate/*/completions.parquet"))


def disturb(cluster: Path, job: int, work: Path, requests: list[str]) -> list[tuple[str, int]]:  # noqa: F811
    """Let things happen to a job at random moments, each after it has saved a state.

    Returns:
        What happened, and the last step that was saved then; filled while the job runs.
    """
    met: list[tuple[str, int]] = []

    def happen() -> None:
        for restarts, request in enumerate(requests):
            reached = last_step(work)
            while last_step(work) == reached:
                time.sleep(0.02)
            time.sleep(random.uniform(0, 1.5))
            met.append((request, last_step(work)))
            ask(cluster, job, request)
            while record_of(cluster, job)["restarts"] == restarts:
                time.sleep(0.02)

    threading.Thread(target=happen, daemon=True).start()
    return met


def test_preempted_and_lost_it_ends_in_the_same_bytes(
    jobs: dict[str, Job],
    tmp_path: Path,
    cluster: Path,  # noqa: F811
) -> None:
    """Once with a grace period, once without, and once a machine is lost without a word."""
    job = with_length(jobs["sft"], 200)
    whole = on_two_machines(with_placement(job, tmp_path / "whole", "ddp"))
    outcome = launched(whole)
    again = on_two_machines(with_placement(job, tmp_path / "again", "ddp"))
    requests = ["preempt 60", "preempt 0", "lose"]
    random.shuffle(requests)
    met = disturb(cluster, 2, again.work_dir, requests)
    outcome_again = launched(again)
    assert record_of(cluster, 2)["restarts"] == 3, met
    assert file_checksums(again.out_dir) == file_checksums(whole.out_dir), met
    assert outcome_again.ledger == outcome.ledger
    assert_processes_end(tmp_path)


@pytest.mark.soak
def test_time_limits_in_the_middle_of_a_stage(
    jobs: dict[str, Job],
    tmp_path: Path,
    cluster: Path,  # noqa: F811
) -> None:
    """Each start has less time than the stage takes."""
    job = with_length(jobs["sft"], 400)
    whole = on_one_machine(with_placement(job, tmp_path / "whole", "single", 1), 60)
    outcome = launched(whole)
    again = on_one_machine(with_placement(job, tmp_path / "again", "single", 1), 60)
    met = disturb(cluster, 2, again.work_dir, ["limit 60"] * 3)
    outcome_again = launched(again)
    assert record_of(cluster, 2)["restarts"] == 3, met
    assert file_checksums(again.out_dir) == file_checksums(whole.out_dir), met
    assert outcome_again.metrics["train_tokens"] == outcome.metrics["train_tokens"]
    # No step was done twice: each start goes on from the state that the one before it has saved.
    log = (again.work_dir / "launch" / "slurm-2-0.log").read_text(encoding="utf-8")
    assert log.count("goes on from step") == 3


def on_one_machine(job: Job, minutes: int, **options: Any) -> Job:
    """The job on one machine with this time limit."""
    slurm = SlurmConfig(time_limit_minutes=minutes, **options)
    return replace(job, hardware=replace(job.hardware, slurm=slurm))


def test_job_that_makes_no_step_is_refused(
    jobs: dict[str, Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its limit of two minutes, of one second each, is over while it imports torch."""
    for key, value in install(tmp_path / "fast", minute_s=1.0).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    options = {"signal_delay_s": 60, "restarts_without_progress": 1}
    job = on_one_machine(with_placement(jobs["sft"], tmp_path / "job", "single", 1), 2, **options)
    with pytest.raises(UserError, match=r"^stages\.sft: SLURM job 1: it started 2 times in a row"):
        launched(job)
    assert_processes_end(tmp_path)


RECIPE = [
    *SMOKE,
    *("~stages.distill", "~stages.midtrain", "~stages.sft", "~stages.prefer", "~stages.dpo"),
    *("~stages.rl", "stages.pretrain.optimization.length=400 steps"),
    "stages.pretrain.optimization.checkpoint_every_steps=2",
]
PLACED = [*ON_CPUS, "hardware.strategy=single", "hardware.gpu_model=null"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the recipe leaves where nothing happens to its jobs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        for key, value in install(folder / "cluster").items():
            patch.setenv(key, value)
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        assert lab_here(*RECIPE, *PLACED, cwd=folder) == 0
    return contents(folder)


def wait_for_step(folder: Path, step: int) -> None:
    while last_step(folder / "runs" / "work") < step:
        time.sleep(0.05)


@pytest.mark.soak
def test_command_that_was_killed_finds_its_job(
    undisturbed: dict[str, Any],
    tmp_path: Path,
    cluster: Path,  # noqa: F811
) -> None:
    folder = tmp_path / "recipe"
    folder.mkdir()
    process = start_lab(*RECIPE, *PLACED, cwd=folder)
    wait_for_step(folder, 4)
    process.kill()
    process.communicate()
    # Nobody watches the job, and it goes on.
    wait_for_step(folder, last_step(folder / "runs" / "work") + 6)
    code, out, err = lab(*RECIPE, *PLACED, cwd=folder)
    assert code == 0, out + err
    assert "pretrain: found its SLURM job 1 again" in out + err
    assert contents(folder) == undisturbed
    assert len(jobs_of(cluster)) == len(
        [name for name in undisturbed if name.endswith("artifact.json")]
    )


@pytest.mark.soak
def test_submitted_recipe_ends_without_a_shell(
    undisturbed: dict[str, Any],
    tmp_path: Path,
    cluster: Path,  # noqa: F811
) -> None:
    """Its controller is preempted while a stage's job runs, and so is that job."""
    folder = tmp_path / "recipe"
    folder.mkdir()
    code, out, err = lab("submit", *RECIPE, *PLACED, cwd=folder)
    assert code == 0, err
    assert out.startswith("SLURM job 1 runs `reasoning-lab experiment=smoke ")
    wait_for_step(folder, 4)
    ask(cluster, 1, "preempt 0")
    ask(cluster, 2, "preempt 60")
    while record_of(cluster, 1)["state"] not in ("COMPLETED", "FAILED"):
        time.sleep(0.5)
    log = "".join(path.read_text() for path in folder.glob("runs/submitted/*/slurm-1.log"))
    assert record_of(cluster, 1) == {"state": "COMPLETED", "restarts": 1}, log
    assert record_of(cluster, 2)["restarts"] == 1, log
    assert contents(folder) == undisturbed
    assert len(jobs_of(cluster)) == 1 + len(
        [name for name in undisturbed if name.endswith("artifact.json")]
    )


@pytest.mark.soak
def test_cancelled_controller_cancels_the_stage(
    tmp_path: Path,
    cluster: Path,  # noqa: F811
) -> None:
    code, _, err = lab("submit", *RECIPE, *PLACED, cwd=tmp_path)
    assert code == 0, err
    wait_for_step(tmp_path, 4)
    subprocess.run([cluster / "bin" / "scancel", "1"], check=True)
    while any(
        record_of(cluster, number)["state"] in ("RUNNING", "COMPLETING") for number in (1, 2)
    ):
        time.sleep(0.2)
    assert record_of(cluster, 1)["state"] == "CANCELLED"
    assert_processes_end(tmp_path)
    log = "".join(path.read_text() for path in tmp_path.glob("runs/submitted/*/slurm-1.log"))
    assert "stages.pretrain: stopped, with its state saved at step" in log


@pytest.mark.soak
def test_ctrl_c_stops_the_job_with_its_state_saved(
    tmp_path: Path,
    cluster: Path,  # noqa: F811
) -> None:
    process = start_lab(*RECIPE, *PLACED, cwd=tmp_path)
    wait_for_step(tmp_path, 4)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=250)
    assert process.returncode == 130, err
    assert "stages.pretrain: stopped, with its state saved at step" in err
    while record_of(cluster, 1)["state"] == "RUNNING":
        time.sleep(0.1)
    assert record_of(cluster, 1)["restarts"] == 0
    assert_processes_end(tmp_path)
