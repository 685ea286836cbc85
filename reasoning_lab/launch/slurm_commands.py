"""SLURM's own commands: sbatch, squeue, sacct, scontrol and scancel.

What is relied on: `--signal=B:USR1@SECONDS` reaches the batch program alone, before the time
limit; a preemption with a grace period sends SIGTERM to what srun has started; `scontrol requeue`
starts a running job again from its beginning, under its own number. A job that was submitted with
`--requeue` is requeued by SLURM itself when it is preempted or loses a machine.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reasoning_lab.types import UserError

_COMMANDS = ("sbatch", "srun", "squeue", "scontrol", "scancel")
_TIMEOUT_S = 120.0
# A job in one of these runs, or will run, possibly once more.
ACTIVE = frozenset(
    {
        *("PENDING", "RUNNING", "REQUEUED", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED"),
        *("RESIZING", "SIGNALING", "STAGE_OUT", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"),
    }
)
# The job ended by no fault of its own: the same job may be submitted again.
LOST = frozenset({"TIMEOUT", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL"})
_INVALID_JOB = "Invalid job id"
# Of the cluster, not of the job in which a command runs.
_KEPT_VARIABLES = ("SLURM_CONF", "SLURM_CLUSTERS")


class JobRecord(NamedTuple):
    """What SLURM knows of a job.

    Attributes:
        state: Its state, as RUNNING.
        restarts: How often it was requeued.
    """

    state: str
    restarts: int


def check_slurm() -> None:
    """Refuse to start if no job can be submitted.

    Raises:
        UserError: A command of SLURM is missing.
    """
    missing = [name for name in _COMMANDS if not shutil.which(name)]
    if missing:
        raise UserError(
            f"hardware.slurm: this machine has no '{missing[0]}'; start the command on a machine "
            "of a SLURM cluster, or choose another hardware option"
        )


def batch_script(options: Mapping[str, Any], arguments: Sequence[str]) -> str:
    """A script for sbatch that becomes `python ARGUMENTS`, which so receives its signals.

    A flag's value among `options` is True; None leaves the option out.
    """
    lines = ["#!/bin/bash"]
    for name, value in options.items():
        name = name.replace("_", "-")
        if value is True:
            lines.append(f"#SBATCH --{name}")
        elif value is not None:
            lines.append(f"#SBATCH --{name}={shlex.quote(str(value))}")
    return "\n".join([*lines, f"exec {shlex.join([sys.executable, *arguments])}", ""])


def common_options(
    name: str, time_limit_minutes: int, signal_delay_s: int, log_file: Path, more: Mapping[str, Any]
) -> dict[str, Any]:
    """The options of a job that is warned before its time limit and may be requeued.

    `more` holds the user's, which take precedence.
    """
    options: dict[str, Any] = {
        "job-name": f"reasoning-lab-{name}",
        "time": time_limit_minutes,
        "signal": f"B:USR1@{signal_delay_s}",
        "requeue": True,
        "open-mode": "append",
        "output": log_file,
    }
    options |= {key.replace("_", "-"): value for key, value in more.items()}
    if options.get("no-requeue"):
        options["requeue"] = None
    return options


def submit(script: Path, key: str) -> str:
    """Submit a script in the current folder; the job's number.

    Raises:
        UserError: SLURM refused the job; the message begins with `key`.
    """
    result = _run("sbatch", "--parsable", str(script))
    # "NUMBER", or "NUMBER;CLUSTER".
    number = re.match(r"\d+", result.stdout.strip().splitlines()[-1]) if result.stdout else None
    if result.returncode or number is None:
        reason = (result.stderr or result.stdout).strip().splitlines()[-1:] or ["without a word"]
        raise UserError(f"{key}: SLURM refused the job ({reason[0]}); see hardware.slurm")
    return number[0]


def job_record(job_id: str) -> JobRecord | None:
    """What SLURM's controller knows of a job; None = nothing, or the controller does not answer."""
    result = _run("scontrol", "--oneliner", "show", "job", job_id)
    state = re.search(r"\bJobState=(\w+)", result.stdout)
    restarts = re.search(r"\bRestarts=(\d+)", result.stdout)
    if result.returncode or state is None:
        return None
    return JobRecord(state[1], int(restarts[1]) if restarts else 0)


def state_of(job_id: str) -> str | None:
    """A job's state, also of one that has ended; None = SLURM does not answer."""
    result = _run("squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job_id}")
    if result.returncode == 0 and result.stdout.strip():
        return result.stdout.split()[0]
    if result.returncode and _INVALID_JOB not in result.stderr:
        return None
    # squeue forgets a job after a few minutes. Without accounting, sacct knows nothing either.
    if not shutil.which("sacct"):
        return "UNKNOWN"
    result = _run("sacct", "--noheader", "--allocations", "--format=State%30", f"--jobs={job_id}")
    words = result.stdout.split()  # As in "CANCELLED by 1000".
    return words[0] if result.returncode == 0 and words else "UNKNOWN"


def requeue(job_id: str) -> str | None:
    """Requeue a job; why it could not be, or None."""
    result = _run("scontrol", "requeue", job_id)
    return (result.stderr.strip() or "scontrol requeue failed") if result.returncode else None


def cancel(job_id: str) -> None:
    """Cancel a job, if SLURM still knows it."""
    _run("scancel", job_id)


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command without the variables of the job that this process may belong to.

    A job that is submitted from within another would inherit its cores and memory.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SLURM_") or name in _KEPT_VARIABLES
    }
    try:
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"{command[0]} does not answer")
