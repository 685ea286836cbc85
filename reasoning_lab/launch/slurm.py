"""Run a stage as a SLURM job that outlives the command: submit it, watch it, or find it again.

The folder of runs must be visible to every machine. The job needs no one who watches it: it saves
its state and requeues itself, see `slurm_job.py`. Its number lies in the stage's work folder, so
the same command, given again, goes on watching instead of submitting a second job.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reasoning_lab.config.hardware import SlurmConfig
from reasoning_lab.launch import slurm_commands
from reasoning_lab.launch.torchrun import Launch
from reasoning_lab.system.files import write_atomically
from reasoning_lab.system.interrupts import clear_requests, is_stop_requested
from reasoning_lab.types import UserError

log = logging.getLogger(__name__)

# What lies in the folder of a launch.
TASK, SUBMISSION, ATTEMPT, STARTS = "slurm.json", "submission.json", "attempt", "starts.json"
ENDED, OUT = "ended.json", "out"
COMMAND = "command.json"  # In a controller's folder.
_SCRIPT = "job.sh"
_CONTROLLER_SIGNAL_DELAY_S = 60
_POLL_S = 1.0
_LONGEST_POLL_S = 60.0
_CANCEL_TIMEOUT_S = 90.0
# A shared file system may show late what a job that ended by itself wrote last.
_FILE_DELAY_S = 60.0
_ENDED_BY_ITSELF = ("COMPLETED", "FAILED", "UNKNOWN")


@dataclass(frozen=True, slots=True)
class SlurmTask:
    """What the job's own programs must know, without importing torch.

    Attributes:
        launch: The saved job and what it takes.
        work_dir: The stage's work folder.
        cpus: CPU cores on each machine.
        signal_delay_s: Seconds between the warning and the time limit.
        restarts_without_progress: As in `SlurmConfig`.
    """

    launch: Launch
    work_dir: Path
    cpus: int
    signal_delay_s: int
    restarts_without_progress: int

    def write(self) -> None:
        """Save it in the launch's folder."""
        text = json.dumps(asdict(self), default=str)
        (self.launch.folder / TASK).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "SlurmTask":
        """What `write` saved."""
        content = json.loads((folder / TASK).read_text(encoding="utf-8"))
        launch = Launch(**{**content.pop("launch"), "folder": folder})
        return cls(launch, Path(content.pop("work_dir")), **content)


def check_limits(config: SlurmConfig) -> None:
    """Refuse limits that leave no time to work.

    Raises:
        UserError: The warning would come before half of the time is over.
    """
    if 2 * config.signal_delay_s > 60 * config.time_limit_minutes:
        raise UserError(
            f"hardware.slurm.signal_delay_s={config.signal_delay_s}: a stage would stop that long "
            f"before its time limit of {config.time_limit_minutes} minutes; give it half of the "
            "limit or less"
        )


def run_on_slurm(
    config: SlurmConfig,
    launch: Launch,
    work_dir: Path,
    hardware: Mapping[str, Any],
    prepare: Callable[[], None],
) -> str | None:
    """Run a job on machines of the cluster, or watch the one that an earlier command left.

    Args:
        config: What it asks of the cluster.
        launch: The job and what it takes.
        work_dir: The stage's work folder.
        hardware: All placement options; a job with others is cancelled.
        prepare: Empties the launch's folder and saves the job there, before a submission.

    Returns:
        The failure in words; None = success.

    Raises:
        UserError: SLURM refused the job.
    """
    cpus = config.cpus_per_device * launch.processes
    delay, restarts = config.signal_delay_s, config.restarts_without_progress
    task = SlurmTask(launch, work_dir, cpus, delay, restarts)
    job_id = _earlier_job(launch, hardware)
    if job_id is None:
        prepare()
        clear_requests(work_dir)
        job_id = _submit(config, task, hardware)
    while True:
        try:
            failure, state = _watch(job_id, task)
        except BaseException:
            # The machines' programs end without it, even if SLURM does not answer.
            (launch.folder / ATTEMPT).unlink(missing_ok=True)
            _cancel(job_id, launch)
            raise
        if state not in slurm_commands.LOST:
            return failure and f"SLURM job {job_id}: {failure}"
        log.warning("%s: SLURM job %s ended as %s", launch.name, job_id, state.lower())
        job_id = _submit(config, task, hardware)


def _earlier_job(launch: Launch, hardware: Mapping[str, Any]) -> str | None:
    """The job of an earlier command that still runs or has finished the stage."""
    try:
        content = json.loads((launch.folder / SUBMISSION).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    job_id = str(content["job"])
    # In this order: a job that ends in between has written how.
    is_active = slurm_commands.state_of(job_id) in {*slurm_commands.ACTIVE, None}
    ended = _ended(launch)
    if ended is not None:
        # Its artifact may have been moved away by a command that was killed before it kept it.
        finished = ended == "" and (launch.folder / OUT).exists()
        return job_id if finished else None
    if not is_active:
        return None
    if content["hardware"] != json.loads(json.dumps(hardware, default=str)):
        log.info(
            "%s: SLURM job %s has other options of hardware and is cancelled", launch.name, job_id
        )
        _cancel(job_id, launch)
        return None
    log.info("%s: found its SLURM job %s again; %s", launch.name, job_id, launch.folder)
    return job_id


def _submit(config: SlurmConfig, task: SlurmTask, hardware: Mapping[str, Any]) -> str:
    launch = task.launch
    (launch.folder / ATTEMPT).unlink(missing_ok=True)
    (launch.folder / ENDED).unlink(missing_ok=True)
    task.write()
    options: dict[str, Any] = {
        "nodes": launch.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": task.cpus,
        "gpus-per-node": launch.gpus or None,
    }
    options |= slurm_commands.common_options(
        launch.name,
        config.time_limit_minutes,
        config.signal_delay_s,
        launch.folder / "slurm-%j.log",
        config.sbatch,
    )
    script = launch.folder / _SCRIPT
    program = ["-m", "reasoning_lab.launch.slurm_job", "stage", str(launch.folder)]
    script.write_text(slurm_commands.batch_script(options, program), encoding="utf-8")
    job_id = slurm_commands.submit(script, f"stages.{launch.name}")
    content = json.dumps({"job": job_id, "hardware": hardware}, default=str)
    write_atomically(
        launch.folder / SUBMISSION, lambda draft: draft.write_text(content, encoding="utf-8")
    )
    log.info("%s: SLURM job %s; its output is in %s", launch.name, job_id, launch.folder)
    return job_id


def submit_controller(config: SlurmConfig, words: Sequence[str], folder: Path) -> str:
    """Submit the job that runs `reasoning-lab WORDS` and so submits the stages; its number.

    Args:
        config: What it asks of the cluster.
        words: The command's arguments.
        folder: A new folder, for the job's output.

    Raises:
        UserError: SLURM refused the job.
    """
    (folder / COMMAND).write_text(json.dumps(list(words)), encoding="utf-8")
    controller = config.controller
    options: dict[str, Any] = {"nodes": 1, "ntasks": 1, "cpus-per-task": controller.cpus}
    options["mem"] = f"{controller.memory_gb}G"
    options |= slurm_commands.common_options(
        "controller",
        controller.time_limit_minutes,
        _CONTROLLER_SIGNAL_DELAY_S,
        folder / "slurm-%j.log",
        controller.sbatch,
    )
    script = folder / _SCRIPT
    program = ["-m", "reasoning_lab.launch.slurm_job", "controller", str(folder)]
    script.write_text(slurm_commands.batch_script(options, program), encoding="utf-8")
    return slurm_commands.submit(script, "submit")


def _watch(job_id: str, task: SlurmTask) -> tuple[str | None, str]:
    """Wait until the job has ended.

    Returns:
        The failure in words, None = success; and the state if SLURM ended it, else "".
    """
    started = asked = time.monotonic()
    ended_at: float | None = None
    state = "PENDING"
    while True:
        failure = _ended(task.launch)
        if failure is not None:
            return failure or None, ""
        now = time.monotonic()
        delay_s = _FILE_DELAY_S if state in _ENDED_BY_ITSELF else 0.0
        if ended_at is not None and now - ended_at >= delay_s:
            return f"it ended as {state.lower()}", state
        # Often at first, then rarely: all users share SLURM's controller.
        if ended_at is None and now - asked >= min(_LONGEST_POLL_S, 2 + (now - started) / 10):
            before, state = state, slurm_commands.state_of(job_id) or state
            asked = now
            if state != before:
                log.info("%s: SLURM job %s is %s", task.launch.name, job_id, state.lower())
            if state not in slurm_commands.ACTIVE:
                ended_at = now
            elif state == "PENDING" and is_stop_requested(task.work_dir):
                slurm_commands.cancel(job_id)
                return "it was cancelled", ""
            elif state == "PENDING":
                # A machine that was lost has left it there.
                clear_requests(task.work_dir)
        time.sleep(_POLL_S)


def _ended(launch: Launch) -> str | None:
    """What the job said at its end: its failure, or "" for success; None = it has not ended."""
    try:
        content = json.loads((launch.folder / ENDED).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return str(content["failure"])


def _cancel(job_id: str, launch: Launch) -> None:
    """Cancel a job and wait until SLURM has ended its processes."""
    slurm_commands.cancel(job_id)
    deadline = time.monotonic() + _CANCEL_TIMEOUT_S
    while time.monotonic() < deadline:
        # SLURM reports a job as cancelled while its last processes end.
        if slurm_commands.state_of(job_id) not in {*slurm_commands.ACTIVE, None}:
            return
        time.sleep(_POLL_S)
    log.warning("%s: SLURM job %s has not ended yet", launch.name, job_id)
