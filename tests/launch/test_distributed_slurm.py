"""Stages as jobs of a stand-in for SLURM: two machines equal one process, and end together."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.config.hardware import SlurmConfig
from reasoning_lab.training.job import Job
from tests.conftest import start_lab
from tests.launch.test_slurm import ON_CPUS, cluster  # noqa: F401
from tests.support.launches import (
    assert_equals_one_process,
    error_of_killed_rank,
    with_many_steps,
    with_placement,
)
from tests.support.slurm_cluster import options_of

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]


def on_two_machines(job: Job) -> Job:
    """The job on two machines with one device each."""
    sbatch = {"partition": "some", "no-requeue": True}
    slurm = SlurmConfig(time_limit_minutes=7, cpus_per_device=3, sbatch=sbatch)
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
    expected = {"nodes": "2", "ntasks-per-node": "1", "cpus-per-task": "3", "time": "7"}
    assert expected.items() <= options.items()
    assert options["partition"] == "some"
    assert options["no-requeue"] == ""
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
