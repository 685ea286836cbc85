"""Run a stage as a SLURM job: each of its machines starts one torchrun on the saved job.

The folder of runs must be visible to every machine. The command that submitted the job watches it
and cancels it when one machine fails. It also writes a heartbeat file; machines end by themselves
when the heartbeat stops.
"""

import contextlib
import logging
import os
import shutil
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from reasoning_lab.config.components import require_package
from reasoning_lab.config.hardware import SlurmConfig
from reasoning_lab.launch.torchrun import Launch
from reasoning_lab.types import UserError

if TYPE_CHECKING:
    from submitit import Job

log = logging.getLogger(__name__)

_POLL_S = 1.0
_CANCEL_TIMEOUT_S = 60.0
_HEARTBEAT, _ENDED = "heartbeat-{}", "ended-{}-{}.txt"


def check_slurm() -> None:
    """Refuse to start if no job can be submitted.

    Raises:
        UserError: SLURM or submitit is not installed.
    """
    require_package("submitit", "hardware.slurm", "launchers")
    missing = [name for name in ("sbatch", "srun", "sacct", "scancel") if not shutil.which(name)]
    if missing:
        raise UserError(
            f"hardware.slurm: this machine has no '{missing[0]}'; start the command on a machine "
            "of a SLURM cluster, or choose another hardware option"
        )


def run_on_slurm(config: SlurmConfig, launch: Launch) -> str | None:
    """Run a job on machines of the cluster; the failure in words, or None.

    Raises:
        UserError: SLURM refused the job.
    """
    import submitit

    folder, nodes = launch.folder, launch.nodes
    # Machines of an earlier, killed command end once their heartbeat file is gone.
    for stale in [*folder.glob(_HEARTBEAT.format("*")), *folder.glob(_ENDED.format("*", "*"))]:
        stale.unlink(missing_ok=True)
    heartbeat = folder / _HEARTBEAT.format(uuid.uuid4().hex)
    executor = submitit.SlurmExecutor(folder / "slurm")
    cpus = config.cpus_per_device * launch.processes
    executor.update_parameters(
        job_name=f"reasoning-lab-{launch.name}",
        nodes=nodes,
        ntasks_per_node=1,
        gpus_per_node=launch.gpus or None,
        cpus_per_task=cpus,
        time=config.time_limit_minutes,
        # srun does not inherit the number from sbatch.
        srun_args=[f"--cpus-per-task={cpus}", "--kill-on-bad-exit=1"],
        additional_parameters=config.sbatch,
    )
    heartbeat.write_text("0", encoding="utf-8")
    try:
        job = executor.submit(run_on_node, launch, Path.cwd(), heartbeat)
    except submitit.core.utils.FailedJobError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(
            f"stages.{launch.name}: SLURM refused the job ({reason}); see hardware.slurm"
        ) from error
    log.info("%s: SLURM job %s; its output is in %s", launch.name, job.job_id, folder)
    beats, ended = 0, _ended_nodes(heartbeat)
    try:
        while not job.done() and not any(ended.values()) and len(ended) < nodes:
            beats += 1
            heartbeat.write_text(str(beats), encoding="utf-8")
            time.sleep(_POLL_S)
            ended = _ended_nodes(heartbeat)
        ended = _ended_nodes(heartbeat)
    finally:
        heartbeat.unlink()
        _wait_for_end(job, launch, heartbeat)
    if len(ended) == nodes and not any(ended.values()):
        return None
    reasons = " and ".join(filter(None, ended.values()))
    state = f"it ended as {job.state.lower()}"
    return f"SLURM job {job.job_id}: {launch.failed_process() or reasons or state}"


def _ended_nodes(heartbeat: Path) -> dict[str, str]:
    """The failure of each of this command's machines that has ended; empty text = success."""
    files = heartbeat.parent.glob(_ENDED.format(heartbeat.name, "*"))
    return {file.name: file.read_text("utf-8") for file in files}


def _wait_for_end(job: "Job[None]", launch: Launch, heartbeat: Path) -> None:
    """Cancel a job that still waits or runs, and wait until every started machine has ended."""
    if len(_ended_nodes(heartbeat)) < launch.nodes and not job.done():
        job.cancel(check=False)
    deadline = time.monotonic() + _CANCEL_TIMEOUT_S
    while time.monotonic() < deadline:
        # SLURM reports a job as cancelled before its machines have ended.
        ended = len(_ended_nodes(heartbeat)) >= len(launch.logs())
        if ended and job.watcher.is_done(job.job_id, mode="force"):
            return
        time.sleep(_POLL_S)


def run_on_node(launch: Launch, working_directory: Path, heartbeat: Path) -> None:
    """Run this machine's part of the job while the command rewrites `heartbeat`.

    Raises:
        RuntimeError: The processes failed, or the command has ended.
    """
    import submitit

    os.chdir(working_directory)
    here = submitit.helpers.TorchDistributedEnvironment()
    ended = launch.folder / _ENDED.format(heartbeat.name, here.rank)
    is_wanted = HeartbeatMonitor(heartbeat).is_alive
    try:
        failure = launch.run_here(here.rank, here.master_addr, here.master_port, is_wanted)
        if failure is not None:
            raise RuntimeError(failure)
    except Exception as error:
        with contextlib.suppress(FileNotFoundError):  # The command may have removed the folder.
            ended.write_text(str(error), encoding="utf-8")
        raise
    ended.write_text("", encoding="utf-8")


class HeartbeatMonitor:
    """Tells whether the command that submitted the job still lives.

    Args:
        heartbeat: The file that the command rewrites all the time and removes at its end.
        timeout_s: Seconds without a change after which the command counts as dead. A shared file
            system may show a change late.
    """

    def __init__(self, heartbeat: Path, timeout_s: float = 300.0) -> None:
        self._heartbeat = heartbeat
        self._timeout_s = timeout_s
        self._last_beat = ""
        self._changed_at = time.monotonic()

    def is_alive(self) -> bool:
        try:
            beat = self._heartbeat.read_text(encoding="utf-8")
        except FileNotFoundError:
            return False
        if beat != self._last_beat:
            self._last_beat, self._changed_at = beat, time.monotonic()
        return time.monotonic() - self._changed_at < self._timeout_s
