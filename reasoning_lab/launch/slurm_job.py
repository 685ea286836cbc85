"""The programs of a SLURM job: `python -m reasoning_lab.launch.slurm_job PROGRAM FOLDER`.

`stage` is the batch program of a stage's job: it starts `machine` on each machine by srun, and asks
for a requeue when the stage was stopped by a warning (SIGUSR1, before the time limit) or by SIGTERM
(a preemption). `controller` is the batch program of `reasoning-lab submit`: it runs the command
itself, which submits the stages. Nothing here imports torch.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from reasoning_lab.launch import slurm_commands
from reasoning_lab.launch.slurm import (
    ATTEMPT,
    COMMAND,
    ENDED,
    OUT,
    STARTS,
    SUBMISSION,
    SlurmTask,
)
from reasoning_lab.launch.torchrun import MISTAKES, OUTCOME, STOPPED
from reasoning_lab.system.files import checksummed_names, empty_folder, write_atomically
from reasoning_lab.system.interrupts import (
    Interrupted,
    clear_requests,
    forward_signals,
    is_stop_requested,
    request_stop,
)

_MACHINE_ENDED = "machine-{}.json"
_SIGNALS = (signal.SIGUSR1, signal.SIGTERM)
_POLL_S = 0.5
# The command writes the number of a job when sbatch has returned, so the job may be earlier.
_SUBMISSION_TIMEOUT_S = 120.0
# Share of the time between warning and limit after which the job is requeued without its state.
_SAVING_FRAC = 0.8


def stage(folder: Path) -> int:
    """Run the stage on the job's machines; its exit code."""
    task, job_id = SlurmTask.read(folder), os.environ["SLURM_JOB_ID"]
    with noting_signals() as noted:
        if not _is_submitted(folder, job_id):
            print("This job was replaced by another one of the same stage.", file=sys.stderr)
            return 1
        if is_stop_requested(task.work_dir):
            return _end(task, "it was stopped")
        if refusal := _refusal(task):
            return _end(task, refusal)
        clear_requests(task.work_dir)
        empty_folder(folder / OUT)
        stale = [*folder.glob(_MACHINE_ENDED.format("*")), *folder.glob(MISTAKES.format("*"))]
        for path in [*stale, *task.launch.logs(), folder / OUTCOME, folder / STOPPED]:
            path.unlink(missing_ok=True)
        attempt = f"{job_id}-{_restarts()}"
        _write(folder / ATTEMPT, attempt)
        srun = subprocess.Popen(_srun(task, attempt))
        _wait(srun, task, noted)
    if not _is_current(folder, attempt):
        return 1  # The command has cancelled it.
    if (folder / OUTCOME).exists():
        return _end(task, "")
    machines = _machines(task)
    failures = [text for text, is_signalled in machines if text and not is_signalled]
    mistakes = sorted(folder.glob(MISTAKES.format("*")))
    failed_process = task.launch.failed_process()
    is_told = bool(noted) or any(is_signalled for _, is_signalled in machines)
    # A machine that is lost says nothing, and its peers' processes fail without it.
    is_lost = len(machines) < len(task.launch.logs()) and "killed" not in (failed_process or "")
    if not mistakes and ((is_told and not failures) or is_lost):
        return _go_on_later(task, job_id)
    if (folder / STOPPED).exists():
        return _end(task, "it was stopped")
    return _end(task, failed_process or " and ".join(failures) or "its processes failed")


def machine(folder: Path, address: str, port: str, attempt: str) -> int:
    """Run this machine's part of the stage; its exit code."""
    task, number = SlurmTask.read(folder), int(os.environ["SLURM_NODEID"])
    failure: str | None = None
    is_signalled = False

    try:
        with forward_signals(task.work_dir):
            failure = task.launch.run_here(
                number, address, int(port), lambda: _is_current(folder, attempt)
            )
    except Interrupted:
        is_signalled = True
    if _is_current(folder, attempt):
        content = json.dumps({"failure": failure or "", "signalled": is_signalled})
        _write(folder / _MACHINE_ENDED.format(number), content)
    return int(bool(failure) or is_signalled)


def controller(folder: Path) -> int:
    """Run the command that `folder` holds, and go on after a requeue; its exit code."""
    job_id = os.environ["SLURM_JOB_ID"]
    words = json.loads((folder / COMMAND).read_text(encoding="utf-8"))
    with noting_signals() as noted:
        command = subprocess.Popen([sys.executable, "-m", "reasoning_lab", *words])
        while not noted:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return command.wait(_POLL_S)
        record = slurm_commands.job_record(job_id)
        if record is not None and record.state != "RUNNING" and record.restarts <= _restarts():
            # The job was cancelled: so is that of the stage.
            command.send_signal(signal.SIGTERM)
            return command.wait()
        # The stage's job goes on alone.
        command.kill()
        command.wait()
    return _requeue(job_id)


def noting_signals() -> contextlib.AbstractContextManager[list[int]]:
    """Within the context, the batch program's signals are noted in the list that it gives."""
    noted: list[int] = []

    @contextlib.contextmanager
    def handled() -> Iterator[list[int]]:
        previous = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            signal.signal(number, lambda signum, frame: noted.append(signum))
        try:
            yield noted
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    return handled()


def _is_submitted(folder: Path, job_id: str) -> bool:
    """Whether the stage's command knows this job, which may start before sbatch has returned."""
    deadline = time.monotonic() + _SUBMISSION_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            content = json.loads((folder / SUBMISSION).read_text(encoding="utf-8"))
            if content["job"] == job_id:
                return True
        time.sleep(_POLL_S)
    return False


def _is_current(folder: Path, attempt: str) -> bool:
    """Whether no other start of the stage, and no cancellation, has come in between."""
    try:
        return (folder / ATTEMPT).read_text(encoding="utf-8") == attempt
    except FileNotFoundError:
        return False


def _refusal(task: SlurmTask) -> str:
    """Count the starts between which nothing was saved; a sentence if they are too many, or ""."""
    file, saved = task.launch.folder / STARTS, sorted(checksummed_names(task.work_dir))
    starts = 0
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        starts = before["starts"] if before["saved"] == saved else 0
    starts += 1
    _write(file, json.dumps({"starts": starts, "saved": saved}))
    if starts <= task.restarts_without_progress + 1:
        return ""
    return (
        f"it started {starts - 1} times in a row and saved nothing in between: raise "
        "hardware.slurm.time_limit_minutes, or save more often "
        "(optimization.checkpoint_every_minutes)"
    )


def _srun(task: SlurmTask, attempt: str) -> list[str]:
    """The command that starts `machine` on each machine; this program runs on the first one."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        port = listener.getsockname()[1]
    address = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    nodes, folder = task.launch.nodes, task.launch.folder
    options = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--unbuffered"]
    # srun does not inherit the number from sbatch.
    options += [f"--cpus-per-task={task.cpus}", "--kill-on-bad-exit=1", "--open-mode=append"]
    options.append(f"--output={folder / 'slurm-%j-%t.log'}")
    program = [sys.executable, "-m", "reasoning_lab.launch.slurm_job", "machine", str(folder)]
    return ["srun", *options, *program, address, str(port), attempt]


def _wait(srun: "subprocess.Popen[bytes]", task: SlurmTask, noted: list[int]) -> None:
    """Wait for srun; after a signal, only as long as a state may take to be saved."""
    deadline: float | None = None
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            srun.wait(_POLL_S)
            return
        if noted and deadline is None:
            deadline = time.monotonic() + _SAVING_FRAC * task.signal_delay_s
            if not request_stop(task.work_dir, noted[0]):
                # No training: finished parts lie in the work folder.
                srun.terminate()
        elif deadline is not None and time.monotonic() > deadline:
            srun.kill()


def _machines(task: SlurmTask) -> list[tuple[str, bool]]:
    """The failure, empty = none, of each machine that has ended, and whether it was signalled."""
    files = sorted(task.launch.folder.glob(_MACHINE_ENDED.format("*")))
    contents = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return [(content["failure"], content["signalled"]) for content in contents]


def _go_on_later(task: SlurmTask, job_id: str) -> int:
    """Requeue the stage's job, which was stopped or has lost a machine."""
    # A stop that is asked for from now on comes from the user.
    clear_requests(task.work_dir)
    record = slurm_commands.job_record(job_id)
    if record is not None and record.state != "RUNNING":
        return 1  # SLURM is requeueing it, or it was cancelled.
    if refusal := slurm_commands.requeue(job_id):
        return _end(task, f"it could not be requeued ({refusal})")
    return 1


def _requeue(job_id: str) -> int:
    record = slurm_commands.job_record(job_id)
    if (record is None or record.state == "RUNNING") and (
        refusal := slurm_commands.requeue(job_id)
    ):
        print(f"This job could not be requeued: {refusal}", file=sys.stderr)
    return 1


def _restarts() -> int:
    """How often this job was requeued before."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def _end(task: SlurmTask, failure: str) -> int:
    """Write the job's end down; its exit code."""
    _write(task.launch.folder / ENDED, json.dumps({"failure": failure}))
    return int(bool(failure))


def _write(path: Path, content: str) -> None:
    write_atomically(path, lambda draft: draft.write_text(content, encoding="utf-8"))


_PROGRAMS: dict[str, Callable[..., int]] = {
    "stage": stage,
    "machine": machine,
    "controller": controller,
}

if __name__ == "__main__":
    name, place, *arguments = sys.argv[1:]
    sys.exit(_PROGRAMS[name](Path(place), *arguments))
