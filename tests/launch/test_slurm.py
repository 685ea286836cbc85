"""A stage as a SLURM job, against a stand-in for SLURM's commands."""

import time
from pathlib import Path

import pytest

from reasoning_lab.config.hardware import SlurmConfig
from reasoning_lab.launch.slurm import HeartbeatMonitor, run_on_slurm
from reasoning_lab.launch.torchrun import Launch
from reasoning_lab.types import UserError
from tests.conftest import SMOKE, lab_here
from tests.support.slurm_cluster import install

ON_CPUS = ["hardware=slurm", "hardware.accelerator=cpu", "hardware.devices=1", "hardware.nodes=1"]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder of a stand-in for SLURM, whose machines are this one."""
    from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

    for key, value in install(tmp_path / "cluster").items():
        monkeypatch.setenv(key, value)
    # Every cluster's first job is 1, and submitit remembers what became of a job.
    monkeypatch.setattr(SlurmJob, "watcher", SlurmInfoWatcher(delay_s=600))
    return tmp_path / "cluster"


def submit(folder: Path) -> str | None:
    folder.mkdir()
    return run_on_slurm(SlurmConfig(), Launch("sft", 2, 1, 0, folder))


def test_command_is_alive_while_its_heartbeat_changes(tmp_path: Path) -> None:
    heartbeat = tmp_path / "heartbeat"
    heartbeat.write_text("0")
    monitor = HeartbeatMonitor(heartbeat, timeout_s=0.3)
    for beat in range(4):
        heartbeat.write_text(str(beat))
        assert monitor.is_alive()
        time.sleep(0.15)
    time.sleep(0.3)
    assert not monitor.is_alive()
    heartbeat.write_text("5")
    assert monitor.is_alive()
    heartbeat.unlink()
    assert not monitor.is_alive()


def test_without_slurm_the_command_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert lab_here(*SMOKE, *ON_CPUS, "hardware.strategy=ddp", cwd=tmp_path) == 2
    assert "hardware.slurm: this machine has no 'sbatch'; start the" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "store").exists()
    # A plan needs no cluster.
    assert lab_here("plan", *SMOKE, *ON_CPUS, "hardware.strategy=ddp", cwd=tmp_path) == 0


def test_refused_job_is_one_sentence(tmp_path: Path, cluster: Path) -> None:
    refusal = "sbatch: error: invalid partition specified: some"
    (cluster / "bin" / "sbatch").write_text(f"#!/bin/sh\necho '{refusal}' >&2\nexit 1\n")
    with pytest.raises(UserError, match=f"SLURM refused the job .*{refusal}") as error:
        submit(tmp_path / "launch")
    assert "\n" not in str(error.value)


def test_job_that_ends_before_its_processes_start_is_an_error(
    tmp_path: Path, cluster: Path
) -> None:
    (cluster / "bin" / "srun").write_text("#!/bin/sh\nexit 1\n")
    assert submit(tmp_path / "launch") == "SLURM job 1: it ended as failed"


# A machine of an earlier command; one that fails; one that ends late after the cancellation.
MACHINES = """#!/bin/sh
trap '' TERM
heartbeat=$(ls | grep ^heartbeat)
printf 'it is gone' > ended-heartbeat-of-another-0.txt
sleep 0.5
touch processes-0.log processes-1.log
printf 'it failed' > ended-$heartbeat-1.txt
sleep 2.5
printf 'it is over' > ended-$heartbeat-0.txt
"""


def test_every_machine_of_this_command_is_waited_for(
    tmp_path: Path, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cluster / "bin" / "srun").write_text(MACHINES)
    (tmp_path / "launch").mkdir()
    monkeypatch.chdir(tmp_path / "launch")
    failure = run_on_slurm(SlurmConfig(), Launch("sft", 2, 1, 0, Path.cwd()))
    assert failure == "SLURM job 1: it failed"
    assert len(list(Path.cwd().glob("ended-*-0.txt"))) == 2
