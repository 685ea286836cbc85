"""The subcommand `submit`: the run as a SLURM job of its own, which submits the stages.

That job is small, and goes on when the shell that submitted it is gone. It requeues itself at its
time limit and after a preemption, and then finds the stage's job that it had submitted.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from reasoning_lab.commands.arguments import is_multirun, to_sweep
from reasoning_lab.commands.preflight import check_data
from reasoning_lab.commands.sweep import recipes
from reasoning_lab.launch.slurm import check_limits, submit_controller
from reasoning_lab.launch.slurm_commands import check_slurm
from reasoning_lab.system.files import timestamped_folder
from reasoning_lab.types import UserError


def main(arguments: Sequence[str]) -> None:
    """Check the run, or each run of a sweep, and submit the command.

    Raises:
        UserError: It would be refused, or SLURM refuses the job.
    """
    swept = list(recipes(to_sweep(arguments)))
    if not is_multirun(arguments) and len(swept) > 1:
        raise UserError("submit: a key has several values; add -m for a run of each combination")
    root = swept[0].root
    if root.hardware.slurm is None:
        raise UserError(
            "submit: hardware.slurm is null, so there are no jobs to submit; add hardware=slurm"
        )
    check_limits(root.hardware.slurm)
    check_slurm()
    check_data(swept)
    folder = timestamped_folder(Path(root.paths.runs) / "submitted").absolute()
    folder.mkdir(parents=True)
    job_id = submit_controller(root.hardware.slurm, arguments, folder)
    print(
        f"SLURM job {job_id} runs `{shlex.join(['reasoning-lab', *arguments])}`; its output is in "
        f"{folder}. `scancel {job_id}` stops it and the stage that it runs."
    )
