"""A training that goes on from the last state of a shorter one.

`optimization.keep_state` keeps the last state of a training, and `optimization.continues` names the
length of the run whose state a longer one begins with. The steps are those that a run in one go
would read, as a longer plan begins with the shorter one. The learning rate is the longer run's from
there on, and what it was before was the shorter run's. Where the two schedules agree on all steps
so far, as a constant one without warm-up does, the result is that of a run in one go. What else
changes over a run, RL's temperature and DPO's beta, goes by the steps of each run. RL that samples
ahead has sampled nothing beyond the shorter run's end, so its next rollouts are of the state's own
weights. A run that went on from another is named by all lengths in their order, as in
`1 epoch then 2 epochs`.
"""

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from reasoning_lab.config.optimization import LENGTHS_SEPARATOR, OptimizationConfig
from reasoning_lab.graph.record import fingerprint
from reasoning_lab.system.files import remove
from reasoning_lab.system.ranks import broadcast_from_rank0, rank
from reasoning_lab.training.best_weights import WEIGHTS_PATTERN
from reasoning_lab.training.checkpoints import last_checkpoint, step_of
from reasoning_lab.training.job import Job
from reasoning_lab.training.schedules import schedule_of
from reasoning_lab.types import UserError

log = logging.getLogger(__name__)


def continued_run(identity: Mapping[str, Any]) -> str | None:
    """The fingerprint of the run that a training stage of this identity goes on from."""
    optimization = dict(identity["config"].get("optimization", {}))
    lengths = optimization.pop("continues", None)
    if lengths is None:
        return None
    earlier, separator, optimization["length"] = lengths.rpartition(LENGTHS_SEPARATOR)
    if separator:
        optimization["continues"] = earlier
    config = {**identity["config"], "optimization": optimization}
    return fingerprint({**identity, "config": config})


def kept_state(job: Job, optimization: OptimizationConfig, states: Path) -> Path | None:
    """The state that the stage goes on from; None = it begins anew.

    The best weights of the shorter run, which the state names, are linked beside the stage's own.

    Args:
        job: The stage's; every rank calls it.
        optimization: Its length is in steps.
        states: The folder of the stage's own states, whose name says which processes they serve.

    Raises:
        UserError: No such state is kept, or it is not shorter.
    """
    if job.continued_run is None:
        return None
    folder = job.kept_states / job.continued_run / states.name
    state = broadcast_from_rank0(lambda: last_checkpoint(folder))
    key = f"stages.{job.name}.optimization.continues={optimization.continues}"
    if state is None:
        raise UserError(missing_state(job.name, optimization, folder))
    step = step_of(state)
    if step >= optimization.steps:
        raise UserError(
            f"{key}: that run has {step:,} steps and this one {optimization.steps:,}; give a "
            "longer length"
        )
    shorter = schedule_of(replace(optimization, length=f"{step} steps"))
    longer = schedule_of(optimization)
    differing = sum(shorter(number) != longer(number) for number in range(step))
    told = "with the learning rates of a run in one go"
    if differing:
        told = (
            f"of which {differing:,} had another learning rate than a run in one go gives them; "
            f"the next has {longer(step):.3g} of the peak"
        )
    log.info("%s: it goes on after %s steps, %s.", key, f"{step:,}", told)
    if rank() == 0:
        _link_best_weights(folder, states)
    return state


def missing_state(stage: str, optimization: OptimizationConfig, folder: Path) -> str:
    """What to do where no state lies in `folder`."""
    key = f"stages.{stage}.optimization"
    return (
        f"{key}.continues={optimization.continues}: there is no state of that run in '{folder}'; "
        f"make it with {key}.keep_state=true, on as many devices, once its artifact is removed; if "
        "that run went on from another, name all lengths, as in '1 epoch then 2 epochs'"
    )


def keep_last_state(job: Job, optimization: OptimizationConfig, states: Path) -> None:
    """Link the state of the last step to where a longer run finds it; rank 0 does.

    A training that stopped early keeps none, and the log says so.
    """
    if not optimization.keep_state or rank() != 0:
        return
    state = last_checkpoint(states)
    if state is None or step_of(state) != optimization.steps:
        log.warning(
            "stages.%s.optimization.keep_state: the training ended early, so no state is kept.",
            job.name,
        )
        return
    folder = job.kept_states / job.fingerprint / states.name
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        remove(old)
    _link_best_weights(states, folder)
    # The stage's own stays until its artifact is there, for a kill may come before.
    if state.is_dir():
        shutil.copytree(state, folder / state.name, copy_function=os.link)
    else:
        os.link(state, folder / state.name)
    log.info("stages.%s: its last state is kept in %s.", job.name, folder)


def _link_best_weights(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in source.glob(WEIGHTS_PATTERN):
        if not (folder / file.name).exists():
            os.link(file, folder / file.name)
