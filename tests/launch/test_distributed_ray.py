"""Stages on a simulated Ray cluster: two machines equal one process, and end together."""

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from reasoning_lab.config.hardware import RayConfig
from reasoning_lab.launch.job import launched
from reasoning_lab.launch.ray import check_ray, reserve_machines
from reasoning_lab.training.job import Job
from reasoning_lab.types import UserError
from tests.conftest import lab_here
from tests.support.launches import (
    after_first_checkpoint,
    assert_equals_one_process,
    assert_processes_end,
    assert_processes_end_with_command,
    error_of_killed_rank,
    file_checksums,
    last_step,
    stage_processes,
    with_length,
    with_many_steps,
    with_placement,
)

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

# Imported by the fixture: it takes seconds, and `make test` collects this file too.
pytestmark = [pytest.mark.distributed, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def cluster() -> Iterator["Cluster"]:
    """A cluster in RAY_ADDRESS: a head, and four machines of one core, of which tests lose two."""
    ray: Any = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    memory = 80 * 2**20
    head = {
        "num_cpus": 0,
        "resources": {"drive": 1},
        "object_store_memory": memory,
        "include_dashboard": False,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        started = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(4):
            started.add_node(num_cpus=1, object_store_memory=memory)
        patch.setenv("RAY_ADDRESS", started.address)
        yield started
        ray.shutdown()
        started.shutdown()  # type: ignore[no-untyped-call]  # Ray's own lacks annotations.


def on_two_machines(job: Job) -> Job:
    """The job on two machines with one device each."""
    config = RayConfig(cpus_per_device=1)
    return replace(job, hardware=replace(job.hardware, devices=1, nodes=2, ray=config))


def test_two_machines_equal_one_process(
    jobs: dict[str, Job],
    single: dict[str, tuple[Path, Any]],
    tmp_path: Path,
    cluster: "Cluster",
) -> None:
    job = on_two_machines(with_placement(jobs["sft"], tmp_path / "job", "fsdp"))
    assert_equals_one_process(job, single["sft"])
    # A rank on each machine, not two on one.
    logs = [path.name for path in (job.work_dir / "launch").glob("processes-*.log")]
    assert sorted(logs) == ["processes-0.log", "processes-1.log"]


def test_lost_machine_ends_all_in_one_sentence(
    jobs: dict[str, Job],
    tmp_path: Path,
    cluster: "Cluster",
) -> None:
    job = on_two_machines(with_placement(with_many_steps(jobs["sft"]), tmp_path / "job", "ddp"))
    assert error_of_killed_rank(job, tmp_path).startswith(
        "stages.sft: the process of rank 1 was killed by signal 9; "
    )


def machine_of_a_rank(cluster: "Cluster", folder: Path) -> Any:
    """The machine that runs a process of the stage whose files are in `folder`."""
    while not (ranks := stage_processes(folder)):
        time.sleep(0.05)
    ancestors = [pid := next(iter(ranks))]
    while pid > 1:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        pid = int(status.rpartition(")")[2].split()[1])
        ancestors.append(pid)
    machines = {
        process.process.pid: machine
        for machine in cluster.worker_nodes
        for process in machine.all_processes["raylet"]
    }
    return next(machines[pid] for pid in ancestors if pid in machines)


@pytest.mark.soak
def test_stage_that_loses_a_machine_ends_in_the_same_bytes(
    jobs: dict[str, Job],
    tmp_path: Path,
    cluster: "Cluster",
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It goes on from its last state on a machine that is free."""
    job = with_length(jobs["sft"], 60)
    whole = on_two_machines(with_placement(job, tmp_path / "whole", "ddp"))
    again = on_two_machines(with_placement(job, tmp_path / "again", "ddp"))
    outcome = launched(whole)
    reached = []

    def lose_a_machine() -> None:
        reached.append(last_step(again.work_dir))
        cluster.remove_node(machine_of_a_rank(cluster, tmp_path), allow_graceful=False)

    after_first_checkpoint(again.work_dir, lose_a_machine)
    outcome_again = launched(again)
    assert 0 < reached[0] < 60
    assert "sft: a machine of the Ray cluster was lost" in caplog.text
    assert file_checksums(again.out_dir) == file_checksums(whole.out_dir)
    assert outcome_again.ledger == outcome.ledger
    assert_processes_end(tmp_path)


@pytest.mark.soak
def test_stage_that_loses_machines_without_progress_is_given_up(
    jobs: dict[str, Job],
    tmp_path: Path,
    cluster: "Cluster",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its processes know the command's environment, but none of its secrets."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("LAB_SETTING", "shared")
    environments = []
    job = on_two_machines(with_placement(with_length(jobs["sft"], 60), tmp_path / "job", "ddp"))
    ray = RayConfig(cpus_per_device=1, restarts_without_progress=0)
    job = replace(job, hardware=replace(job.hardware, ray=ray))

    def lose_a_machine() -> None:
        machine = machine_of_a_rank(cluster, tmp_path)
        pid = next(iter(stage_processes(tmp_path)))
        environments.append(Path(f"/proc/{pid}/environ").read_bytes())
        cluster.remove_node(machine, allow_graceful=False)

    threading.Thread(target=lose_a_machine, daemon=True).start()
    with pytest.raises(UserError, match=r"^stages\.sft: .* was lost .*, with nothing saved since"):
        launched(job)
    assert b"LAB_SETTING=shared" in environments[0]
    assert b"hf_secret" not in environments[0]


def test_processes_end_with_a_command_that_is_killed(
    jobs: dict[str, Job],
    tmp_path: Path,
    cluster: "Cluster",
) -> None:
    assert_processes_end_with_command(
        on_two_machines(with_placement(with_many_steps(jobs["sft"]), tmp_path / "job", "ddp")),
        tmp_path,
    )


def test_stage_that_does_not_train_takes_one_machine(
    single: dict[str, tuple[Path, Any]],
    tmp_path: Path,
    cluster: "Cluster",
) -> None:
    placement = ["hardware=ray", "hardware.accelerator=cpu", "hardware.ray.cpus_per_device=1"]
    small = [
        "benchmarks.heldout.count=3",
        "benchmarks.heldout.samples=1",
        "benchmarks.heldout.sampling.max_new_tokens=4",
        "tracker.mode=disabled",
    ]
    words = ["evaluate", f"model={single['sft'][0]}", "benchmark=[heldout]", *placement, *small]
    assert lab_here(*words, cwd=tmp_path) == 0
    assert list(tmp_path.glob("runs/store/evaluate/*/completions.parquet"))


def test_missing_machines_are_waited_for(
    cluster: "Cluster", caplog: pytest.LogCaptureFixture
) -> None:
    from ray.util import placement_group_table

    caplog.set_level(logging.INFO)
    check_ray(RayConfig())
    machines = []

    def wait() -> None:
        with reserve_machines({"drive": 1.0}, 2, "sft", notice_after_s=0.5) as group:
            # The head's assignment; free resources are reported seconds later.
            node_ids = placement_group_table(group)["bundles_to_node_id"]
            machines.append(len(set(node_ids.values())))

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    deadline = time.monotonic() + 60
    while "waiting for 2 machines" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "sft: waiting for 2 machines of the Ray cluster, each with {'drive': 1.0}" in caplog.text
    assert not machines
    cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20, resources={"drive": 1})
    waiting.join(120)
    assert machines == [2]
