"""A stage as a SLURM job, against a stand-in for SLURM's commands."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.config.hardware import SlurmConfig
from reasoning_lab.launch.slurm import check_limits, run_on_slurm, submit_controller
from reasoning_lab.launch.slurm_commands import batch_script, common_options
from reasoning_lab.launch.torchrun import Launch
from reasoning_lab.system.interrupts import StopRequest
from reasoning_lab.types import UserError
from tests.conftest import SMOKE, lab_here
from tests.support.slurm_cluster import install, jobs_of, options_of, record_of

ON_CPUS = ["hardware=slurm", "hardware.accelerator=cpu", "hardware.devices=1", "hardware.nodes=1"]
# What srun does in place of a stage: it succeeds.
SUCCEED = "touch {out}/policy; echo done > {launch}/outcome.json"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder of a stand-in for SLURM, whose machines are this one."""
    for key, value in install(tmp_path / "cluster").items():
        monkeypatch.setenv(key, value)
    # They import this tree from any folder.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return tmp_path / "cluster"


def replace_srun(cluster: Path, script: str) -> None:
    """Let srun run a shell script; `{work}` and the like are folders."""
    test, launch = cluster.parent, cluster.parent / "work" / "launch"
    folders = {"work": launch.parent, "launch": launch, "out": launch / "out", "test": test}
    for name, folder in {**folders, "cluster": cluster}.items():
        script = script.replace(f"{{{name}}}", str(folder))
    (cluster / "bin" / "srun").write_text(f"#!/bin/sh\n{script}\n")


@pytest.fixture
def submit(tmp_path: Path, cluster: Path) -> Callable[..., str | None]:
    """Run a stage whose processes are a shell script in srun's place."""
    work, launch = tmp_path / "work", tmp_path / "work" / "launch"
    launch.mkdir(parents=True)

    def run(script: str, hardware: Mapping[str, Any] | None = None, **options: Any) -> str | None:
        replace_srun(cluster, script)
        task = Launch("sft", 1, 1, 0, launch)
        return run_on_slurm(SlurmConfig(**options), task, work, hardware or {}, lambda: None)

    return run


def when(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait until something has happened."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def states_of(cluster: Path) -> list[object]:
    """The state of each job, which ends a little after the command has its result."""
    return [record_of(cluster, number)["state"] for number in jobs_of(cluster)]


def test_without_slurm_the_command_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert lab_here(*SMOKE, *ON_CPUS, "hardware.strategy=ddp", cwd=tmp_path) == 2
    assert "hardware.slurm: this machine has no 'sbatch'; start the" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "store").exists()
    # A plan needs no cluster.
    assert lab_here("plan", *SMOKE, *ON_CPUS, "hardware.strategy=ddp", cwd=tmp_path) == 0


def test_limit_that_leaves_no_time_is_one_sentence() -> None:
    check_limits(SlurmConfig(time_limit_minutes=10, signal_delay_s=300))
    with pytest.raises(UserError, match=r"^hardware\.slurm\.signal_delay_s=301: a stage would"):
        check_limits(SlurmConfig(time_limit_minutes=10, signal_delay_s=301))


def test_script_has_the_users_options_in_place_of_ours() -> None:
    more = {"signal": "B:USR1@9", "no_requeue": True, "comment": "two words"}
    options = common_options("sft", 30, 300, Path("/runs/slurm-%j.log"), more)
    assert batch_script(options, ["-m", "program", "a b"]).splitlines() == [
        "#!/bin/bash",
        "#SBATCH --job-name=reasoning-lab-sft",
        "#SBATCH --time=30",
        "#SBATCH --signal=B:USR1@9",
        "#SBATCH --open-mode=append",
        "#SBATCH --output=/runs/slurm-%j.log",
        "#SBATCH --no-requeue",
        "#SBATCH --comment='two words'",
        f"exec {sys.executable} -m program 'a b'",
    ]
    assert "#SBATCH --requeue" in batch_script(common_options("sft", 1, 1, Path(), {}), [])


def test_refused_job_is_one_sentence(cluster: Path, submit: Callable[..., str | None]) -> None:
    refusal = "sbatch: error: invalid partition specified: some"
    (cluster / "bin" / "sbatch").write_text(f"#!/bin/sh\necho '{refusal}' >&2\nexit 1\n")
    with pytest.raises(UserError, match=f"SLURM refused the job .*{refusal}") as error:
        submit(SUCCEED)
    assert "\n" not in str(error.value)


def test_job_that_ends_before_its_processes_start_is_an_error(
    submit: Callable[..., str | None],
) -> None:
    assert submit("exit 1") == "SLURM job 1: its processes failed"


def test_job_asks_for_what_the_stage_takes(
    cluster: Path, submit: Callable[..., str | None]
) -> None:
    script = "echo $@ > {test}/srun; " + SUCCEED
    assert submit(script, sbatch={"partition": "some"}, cpus_per_device=3) is None
    options = options_of(cluster, 1)
    assert options["partition"] == "some"
    assert (options["cpus-per-task"], options["signal"]) == ("3", "B:USR1@300")
    assert (options["requeue"], options["nodes"]) == ("", "1")
    assert "--cpus-per-task=3 --kill-on-bad-exit=1" in (cluster.parent / "srun").read_text()


REQUEUED = "echo start >> {test}/starts; {saves}; scontrol requeue $SLURM_JOB_ID; sleep 60"
SAVES = "touch {work}/step-$(wc -l < {test}/starts)-0123456789abcdef"


def test_job_that_is_requeued_without_progress_is_refused(
    tmp_path: Path, cluster: Path, submit: Callable[..., str | None]
) -> None:
    failure = submit(REQUEUED.replace("{saves}", ":"), restarts_without_progress=1)
    assert failure is not None
    assert failure.startswith(
        "SLURM job 1: it started 2 times in a row and saved nothing in between: raise "
        "hardware.slurm.time_limit_minutes, or save more often"
    )
    assert len((tmp_path / "starts").read_text().split()) == 2


def test_job_that_saves_something_is_requeued_as_often_as_it_takes(
    tmp_path: Path, cluster: Path, submit: Callable[..., str | None]
) -> None:
    ends = f"[ $(wc -l < {{test}}/starts) -gt 2 ] && {{ {SUCCEED}; exit; }}"
    script = REQUEUED.replace("{saves}", f"{SAVES}; {ends}")
    assert submit(script, restarts_without_progress=0) is None
    assert len((tmp_path / "starts").read_text().split()) == 3
    when(lambda: record_of(cluster, 1) == {"state": "COMPLETED", "restarts": 2})
    # What an attempt that was cut off had written is gone before the next.
    assert os.listdir(tmp_path / "work" / "launch" / "out") == ["policy"]


def test_job_that_slurm_does_not_requeue_is_submitted_again(
    tmp_path: Path, cluster: Path, submit: Callable[..., str | None]
) -> None:
    script = f"[ -e {{test}}/first ] && {{ {SUCCEED}; exit; }}; touch {{test}}/first; "
    lose = "echo lose > {test}/lose; mv {test}/lose {cluster}/1.request; sleep 60"
    assert submit(script + lose, sbatch={"no-requeue": True}) is None
    when(lambda: states_of(cluster) == ["NODE_FAIL", "COMPLETED"])


def test_cancelled_job_is_an_error(cluster: Path, submit: Callable[..., str | None]) -> None:
    assert submit("scancel $SLURM_JOB_ID; sleep 60") == "SLURM job 1: it ended as cancelled"
    assert record_of(cluster, 1) == {"state": "CANCELLED", "restarts": 0}


# A command of its own, that can be killed.
COMMAND = """
import pathlib, sys
from reasoning_lab.config.hardware import SlurmConfig
from reasoning_lab.launch.slurm import run_on_slurm
from reasoning_lab.launch.torchrun import Launch

work = pathlib.Path(sys.argv[1])
task = Launch("sft", 1, 1, 0, work / "launch")
run_on_slurm(SlurmConfig(), task, work, {"devices": 1}, lambda: None)
"""
WAITING = "touch {test}/started; while [ ! -e {test}/go ]; do sleep 0.1; done; " + SUCCEED


def killed_command(tmp_path: Path, cluster: Path) -> None:
    """Submit a job that waits for the file `go`, and kill the command when it runs."""
    replace_srun(cluster, WAITING)
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(tmp_path / "work")],
        # Below nohup the signal would be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    when((tmp_path / "started").exists)
    process.send_signal(signal.SIGHUP)
    assert process.wait() == -signal.SIGHUP


def test_command_finds_the_job_of_one_that_was_killed(
    tmp_path: Path, cluster: Path, submit: Callable[..., str | None]
) -> None:
    killed_command(tmp_path, cluster)
    (tmp_path / "go").touch()
    assert submit(WAITING, {"devices": 1}) is None
    assert jobs_of(cluster) == [1]
    # It has ended meanwhile: its result is taken, once.
    assert submit("exit 1", {"devices": 1}) is None
    assert jobs_of(cluster) == [1]
    for file in (tmp_path / "work" / "launch" / "out").iterdir():
        file.unlink()
    (tmp_path / "work" / "launch" / "out").rmdir()
    assert submit(SUCCEED, {"devices": 1}) is None
    assert jobs_of(cluster) == [1, 2]


def test_job_with_other_hardware_is_cancelled_first(
    tmp_path: Path, cluster: Path, submit: Callable[..., str | None]
) -> None:
    killed_command(tmp_path, cluster)
    assert submit(SUCCEED, {"devices": 2}) is None
    when(lambda: states_of(cluster) == ["CANCELLED", "COMPLETED"])


def test_stop_that_meets_a_waiting_job_cancels_it(
    tmp_path: Path, cluster: Path, submit: Callable[..., str | None]
) -> None:
    """A machine was lost in the middle of a training, which cannot read the request."""
    with StopRequest(tmp_path / "work") as stop:
        stop.listen()
        (cluster / "bin" / "batch").write_text("#!/bin/sh\nsleep 60\n")  # It stays pending.
        (cluster / "bin" / "scancel").write_text(f"#!/bin/sh\ntouch {tmp_path}/cancelled\n")
        (tmp_path / "work" / "stop").write_text("15")
        clear = tmp_path / "work" / "launch" / "submission.json"
        clear.write_text(json.dumps({"job": "1", "hardware": {}}))
        subprocess.run([cluster / "bin" / "sbatch", "--parsable", "/dev/null"], check=True)
        assert submit(SUCCEED) == "SLURM job 1: it was cancelled"
    assert (tmp_path / "cancelled").exists()


def test_preemption_reaches_a_machine_as_a_request_to_stop(
    tmp_path: Path, cluster: Path, submit: Callable[..., str | None]
) -> None:
    """With a grace period SIGTERM reaches what srun has started, and not the batch program."""
    program = tmp_path / "machine.py"
    program.write_text(
        "import os, pathlib, sys\n"
        "from reasoning_lab.launch import slurm_job, torchrun\n"
        "if pathlib.Path(sys.argv[1]).exists():\n"
        "    (pathlib.Path(sys.argv[2]) / 'outcome.json').write_text('done')\n"
        "    sys.exit()\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "def run_here(self, node, address, port, is_wanted):\n"
        "    import time; time.sleep(60)\n"
        "torchrun.Launch.run_here = run_here\n"
        "attempt = (pathlib.Path(sys.argv[2]) / 'attempt').read_text()\n"
        "sys.exit(slurm_job.machine(pathlib.Path(sys.argv[2]), 'here', '1', attempt))\n"
    )
    script = f"export SLURM_STEP_ID=0 SLURM_NODEID=0; exec {sys.executable} {program} "
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import pathlib, sys, time\n"
            "from tests.support.slurm_cluster import ask\n"
            "while not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.1)\n"
            "time.sleep(1); ask(pathlib.Path(sys.argv[2]), 1, 'preempt 30')",
            str(tmp_path / "running"),
            str(cluster),
        ]
    )
    assert submit(script + "{test}/running {launch}") is None
    process.wait()
    # Long before the grace period was over it had requeued itself.
    when(lambda: record_of(cluster, 1) == {"state": "COMPLETED", "restarts": 1})


def test_submit_needs_a_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab_here("submit", *SMOKE, cwd=tmp_path) == 2
    error = capsys.readouterr().err
    assert error.startswith("submit: hardware.slurm is null, so there are no jobs to submit; add")
    assert not (tmp_path / "runs").exists()


def test_controller_runs_the_command(tmp_path: Path, cluster: Path) -> None:
    config = SlurmConfig()
    config.controller.sbatch = {"partition": "cpu"}
    assert submit_controller(config, ["--version"], tmp_path) == "1"
    when(lambda: record_of(cluster, 1)["state"] == "COMPLETED")
    assert (tmp_path / "slurm-1.log").read_text().startswith("reasoning-lab ")
    options = options_of(cluster, 1)
    assert (options["mem"], options["cpus-per-task"], options["ntasks"]) == ("8G", "2", "1")
    assert (options["partition"], options["requeue"]) == ("cpu", "")
