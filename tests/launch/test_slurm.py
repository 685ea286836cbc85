"""How a stage becomes a job of SLURM, against a stand-in for its commands."""

import time
from pathlib import Path

import pytest

from reasoning_lab.config.hardware import SlurmConfig
from reasoning_lab.launch import slurm
from reasoning_lab.launch.slurm import Listener, run_on_slurm
from reasoning_lab.types import UserError
from tests.conftest import SMOKE, lab_here
from tests.support.slurm_cluster import install

ON_CPUS = ["hardware=slurm", "hardware.accelerator=cpu", "hardware.devices=1", "hardware.nodes=1"]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The memory of a stand-in for SLURM, whose machines this one is."""
    from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

    for key, value in install(tmp_path / "cluster").items():
        monkeypatch.setenv(key, value)
    # Every cluster's first job is 1, and submitit remembers what became of a job.
    monkeypatch.setattr(SlurmJob, "watcher", SlurmInfoWatcher(delay_s=600))
    return tmp_path / "cluster"


def submitted(folder: Path) -> str | None:
    folder.mkdir()
    return run_on_slurm(SlurmConfig(), "sft", 2, 1, 0, folder)


def test_machine_listens_for_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "_LOST_S", 0.3)
    pulse = tmp_path / "pulse"
    pulse.write_text("0")
    listener = Listener(pulse)
    for beat in range(4):
        pulse.write_text(str(beat))
        assert listener.hears()
        time.sleep(0.15)
    time.sleep(0.3)
    assert not listener.hears()
    pulse.write_text("5")
    assert listener.hears()
    pulse.unlink()
    assert not listener.hears()


def test_without_slurm_it_is_said_before_anything_runs(
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
    with pytest.raises(UserError, match=f"SLURM refused the job .*{refusal}") as told:
        submitted(tmp_path / "launch")
    assert "\n" not in str(told.value)


def test_job_that_ends_before_its_processes_begin_is_told(tmp_path: Path, cluster: Path) -> None:
    (cluster / "bin" / "srun").write_text("#!/bin/sh\nexit 1\n")
    assert submitted(tmp_path / "launch") == "SLURM job 1: it ended as failed"


# A machine of a command that was killed, one that fails, and one that needs a while after the
# job was cancelled.
MACHINES = """#!/bin/sh
trap '' TERM
pulse=$(ls | grep ^pulse)
printf 'it is gone' > ended-pulse-of-another-0.txt
sleep 2
touch processes-0.log processes-1.log
printf 'it failed' > ended-$pulse-1.txt
sleep 4
printf 'it is over' > ended-$pulse-0.txt
"""


def test_every_machine_of_the_commands_own_is_waited_for(
    tmp_path: Path, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cluster / "bin" / "srun").write_text(MACHINES)
    (tmp_path / "launch").mkdir()
    monkeypatch.chdir(tmp_path / "launch")
    told = run_on_slurm(SlurmConfig(), "sft", 2, 1, 0, Path.cwd())
    assert told == "SLURM job 1: it failed"
    assert len(list(Path.cwd().glob("ended-*-0.txt"))) == 2
