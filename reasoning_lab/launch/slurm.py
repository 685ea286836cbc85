"""A stage as a job of a SLURM cluster: on each of its machines one torchrun, on the saved job.

The folder of runs lies where every machine sees it. The command that submitted the job keeps
watching: it ends the job when one machine fails, and the machines end by themselves when nothing is
heard of the command any more.
"""

import contextlib
import logging
import os
import shutil
import time
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from reasoning_lab.config.hardware import SlurmConfig
from reasoning_lab.launch.torchrun import failure, log_of, logs_of, rendezvous, torchrun
from reasoning_lab.types import UserError

if TYPE_CHECKING:
    from submitit import Job

log = logging.getLogger(__name__)

_POLL_S = 1.0
# A shared file system may show a change late.
_LOST_S = 300.0
_PATIENCE_S = 60.0
_PULSE, _ENDED = "pulse-{}", "ended-{}-{}.txt"


def check_slurm() -> None:
    """Refuse to start where no job can be submitted.

    Raises:
        UserError: SLURM or submitit is not here.
    """
    if find_spec("submitit") is None:
        raise UserError(
            "hardware.slurm: the package 'submitit' is not installed; run pip install "
            "'reasoning-lab[launchers]'"
        )
    missing = [name for name in ("sbatch", "srun", "sacct", "scancel") if not shutil.which(name)]
    if missing:
        raise UserError(
            f"hardware.slurm: this machine has no '{missing[0]}'; start the command on a machine "
            "of a SLURM cluster, or choose another hardware option"
        )


def run_on_slurm(
    config: SlurmConfig, name: str, nodes: int, processes: int, gpus: int, folder: Path
) -> str | None:
    """Do the job in `folder` in `processes` on each of `nodes` machines.

    Args:
        config: What is asked of SLURM.
        name: The stage's.
        nodes: Machines.
        processes: On each of them.
        gpus: On each of them.
        folder: Seen by all of them under this name.

    Returns:
        What went wrong; None = nothing.
    """
    import submitit

    # Machines of a command that was killed end without their pulse.
    for stale in [*folder.glob(_PULSE.format("*")), *folder.glob(_ENDED.format("*", "*"))]:
        stale.unlink(missing_ok=True)
    pulse = folder / _PULSE.format(uuid.uuid4().hex)
    executor = submitit.SlurmExecutor(folder / "slurm")
    executor.update_parameters(
        job_name=f"reasoning-lab-{name}",
        nodes=nodes,
        ntasks_per_node=1,
        gpus_per_node=gpus or None,
        cpus_per_task=config.cpus_per_device * processes,
        time=config.time_limit_minutes,
        # srun does not inherit the number from sbatch.
        srun_args=[f"--cpus-per-task={config.cpus_per_device * processes}", "--kill-on-bad-exit=1"],
        additional_parameters=config.sbatch,
    )
    pulse.write_text("0", encoding="utf-8")
    try:
        job = executor.submit(on_node, folder, Path.cwd(), pulse, nodes, processes)
    except submitit.core.utils.FailedJobError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(
            f"stages.{name}: SLURM refused the job ({reason}); see hardware.slurm"
        ) from error
    log.info("%s: SLURM job %s; what it writes is in %s", name, job.job_id, folder)
    beats, ended = 0, _ended(pulse)
    try:
        while not job.done() and not any(ended.values()) and len(ended) < nodes:
            beats += 1
            pulse.write_text(str(beats), encoding="utf-8")
            time.sleep(_POLL_S)
            ended = _ended(pulse)
        ended = _ended(pulse)
    finally:
        pulse.unlink()
        _wait_for_end(job, nodes, pulse)
    if len(ended) == nodes and not any(ended.values()):
        return None
    reasons = " and ".join(filter(None, ended.values()))
    state = f"it ended as {job.state.lower()}"
    return f"SLURM job {job.job_id}: {failure(folder) or reasons or state}"


def _ended(pulse: Path) -> dict[str, str]:
    """What each machine of this command's that has ended says of it; nothing = all went well."""
    files = pulse.parent.glob(_ENDED.format(pulse.name, "*"))
    return {file.name: file.read_text("utf-8") for file in files}


def _wait_for_end(job: "Job[None]", nodes: int, pulse: Path) -> None:
    """Cancel what still waits or runs, and see every machine that began end."""
    if len(_ended(pulse)) < nodes and not job.done():
        job.cancel(check=False)
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        # SLURM calls a job cancelled as soon as it is asked to cancel it.
        begun = logs_of(pulse.parent)
        if len(_ended(pulse)) >= len(begun) and job.watcher.is_done(job.job_id, mode="force"):
            return
        time.sleep(_POLL_S)


def on_node(folder: Path, place: Path, pulse: Path, nodes: int, processes: int) -> None:
    """One machine's part of the job in `folder`.

    Args:
        folder: Of the saved job.
        place: The command's working directory.
        pulse: The file by which the command says that it is there.
        nodes: Machines of the job.
        processes: On each.

    Raises:
        RuntimeError: The processes failed, or the command is gone.
    """
    import submitit

    os.chdir(place)
    where = submitit.helpers.TorchDistributedEnvironment()
    options = rendezvous(nodes, where.rank, processes, where.master_addr, where.master_port)
    ended = folder / _ENDED.format(pulse.name, where.rank)
    try:
        with torchrun(options, folder, log_of(folder, where.rank)) as process:
            listened = Listener(pulse)
            while process.poll() is None and listened.hears():
                time.sleep(_POLL_S)
            if process.poll() is None:
                raise RuntimeError("the command that submitted it is gone")
            if process.returncode:
                raise RuntimeError(f"the processes of machine {where.rank} failed")
    except Exception as error:
        with contextlib.suppress(FileNotFoundError):  # The command has removed the folder.
            ended.write_text(str(error), encoding="utf-8")
        raise
    ended.write_text("", encoding="utf-8")


class Listener:
    """Whether the command is still there.

    Args:
        pulse: The file that it changes all the time, and removes at its end.
    """

    def __init__(self, pulse: Path) -> None:
        self._pulse = pulse
        self._heard = ""
        self._since = time.monotonic()

    def hears(self) -> bool:
        try:
            told = self._pulse.read_text(encoding="utf-8")
        except FileNotFoundError:
            return False
        if told != self._heard:
            self._heard, self._since = told, time.monotonic()
        return time.monotonic() - self._since < _LOST_S
