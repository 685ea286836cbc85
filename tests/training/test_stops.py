"""Ctrl-C, SIGTERM and the clock save a state between two steps."""

import os
import pickle
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reasoning_lab.system.interrupts import (
    Interrupted,
    StopRequest,
    forward_signals,
    sigterm_as_interrupt,
)
from reasoning_lab.tracking.tracker import GLOBAL_STEP, Tracker
from reasoning_lab.training import checkpoints
from reasoning_lab.training.context import StageContext
from reasoning_lab.types import UserError
from tests.support.stages import STAGES, assert_same, optimization, trained


class EachStepTracker(Tracker):
    """Does something as soon as a step is logged."""

    def __init__(self, act: Callable[[int], None]) -> None:
        self._act = act

    def log(self, metrics: Mapping[str, Any]) -> None:
        if any(key.startswith("train/") for key in metrics):
            self._act(metrics[GLOBAL_STEP])


def states(folder: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in folder.rglob("step-*"))


def seldom(name: str, **changes: Any) -> Any:
    """The stage's config, with no state until its end."""
    config: Any = STAGES[name]
    changes = {"checkpoint_every_steps": 999, **changes}
    return replace(config, optimization=replace(config.optimization, **changes))


@pytest.mark.parametrize(
    ("name", "number"),
    [("sft", signal.SIGINT), ("midtrain", signal.SIGTERM), ("rl_ahead", signal.SIGINT)],
)
def test_signal_saves_the_step_in_progress_and_the_stage_goes_on_from_it(
    name: str, number: signal.Signals, context: StageContext, tmp_path: Path
) -> None:
    """Also where a validation follows the step, as in mid-training."""

    def stop(step: int) -> None:
        if step == 3:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    stopped = replace(context, tracker=EachStepTracker(stop))
    with pytest.raises(
        Interrupted, match=r"^stages\.stage: .* step 4 of 6; run the same command"
    ) as end:
        trained(name, stopped, tmp_path / "part", seldom(name))
    assert end.value.exit_code == 128 + number
    assert signal.getsignal(number) is before
    assert states(tmp_path / "part") == [4]
    assert not (tmp_path / "part" / "work" / "training").exists()
    (tmp_path / "part" / "out").rmdir()
    trained(name, context, tmp_path / "part", seldom(name))
    trained(name, context, tmp_path / "whole", seldom(name))
    assert_same(tmp_path / "whole", tmp_path / "part")
    part, whole = (tmp_path / which / "out" / "history.parquet" for which in ("part", "whole"))
    assert part.read_bytes() == whole.read_bytes()


def test_another_process_asks_for_the_stop_through_a_file(
    context: StageContext, tmp_path: Path
) -> None:
    """As `forward_signals` does, but only while a stage trains: a stale request stops nothing."""
    work = tmp_path / "part" / "work"
    work.mkdir(parents=True)
    (work / "stop").write_text("15")

    def stop(step: int) -> None:
        if step == 1:
            (work / "stop").write_text(str(int(signal.SIGTERM)))

    stopped = replace(context, tracker=EachStepTracker(stop))
    with pytest.raises(Interrupted, match="step 2 of 6") as end:
        trained("sft", stopped, tmp_path / "part", seldom("sft"))
    assert end.value.signum == signal.SIGTERM


def test_signal_is_handed_on_to_a_training_and_else_ends_the_command(tmp_path: Path) -> None:
    with (
        pytest.raises(Interrupted, match="Stopped; run the same command again"),
        forward_signals(tmp_path),
    ):
        os.kill(os.getpid(), signal.SIGINT)
    request = StopRequest(tmp_path)

    def twice() -> None:
        with forward_signals(tmp_path):
            (tmp_path / "training").touch()
            before = request.signum
            assert before is None
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            assert request.signum == signal.SIGTERM
            # Only a person's second wish is one.
            with pytest.raises(Interrupted):
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        twice()


def test_signal_that_comes_when_the_training_has_just_ended_is_not_lost(tmp_path: Path) -> None:
    def late() -> None:
        with StopRequest(tmp_path) as request:
            request.listen()
            os.kill(os.getpid(), signal.SIGTERM)

    def late_for_processes() -> None:
        with forward_signals(tmp_path):
            (tmp_path / "training").touch()
            os.kill(os.getpid(), signal.SIGINT)

    for act, number in ((late, signal.SIGTERM), (late_for_processes, signal.SIGINT)):
        with pytest.raises(Interrupted) as end:
            act()
        again = pickle.loads(pickle.dumps(end.value))
        assert (str(again), again.signum) == (str(end.value), number)


def test_sigterm_ends_a_command_as_ctrl_c_does() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with (
        pytest.raises(Interrupted, match="run the same command again") as end,
        sigterm_as_interrupt(),
    ):
        os.kill(os.getpid(), signal.SIGTERM)
    assert end.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_second_ctrl_c_ends_a_training_at_once(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal\n"
        "from reasoning_lab.system.interrupts import StopRequest\n"
        f"with StopRequest(pathlib.Path({str(tmp_path)!r})) as stop:\n"
        "    stop.listen()\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print(stop.signum, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('after')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "2\n")
    assert done.stderr.splitlines()[1:] == [
        "Stopping: the state is saved when the current step ends; Ctrl-C again ends at once."
    ]


def test_states_are_saved_by_the_clock_too(
    context: StageContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one on which every step takes four minutes."""
    steps = 0

    def count(step: int) -> None:
        nonlocal steps
        steps = step + 1

    monkeypatch.setattr(checkpoints, "time", SimpleNamespace(monotonic=lambda: 240.0 * steps))
    timed = replace(context, tracker=EachStepTracker(count))
    trained("sft", timed, tmp_path / "ten", seldom("sft", checkpoint_every_minutes=10.0))
    assert states(tmp_path / "ten") == [3, 6]
    steps = 0
    both = seldom("sft", checkpoint_every_minutes=10.0, checkpoint_every_steps=4)
    trained("sft", timed, tmp_path / "both", both)
    # The two that are left of 3 and 4; the clock starts anew with each.
    assert states(tmp_path / "both") == [3, 4]


@pytest.mark.parametrize("kept", [1, 3])
def test_as_many_states_are_kept_as_asked(kept: int, context: StageContext, tmp_path: Path) -> None:
    often = seldom("sft", checkpoint_every_steps=1, keep_checkpoints=kept)
    trained("sft", context, tmp_path, often)
    assert states(tmp_path) == [*range(7 - kept, 7)]


def test_how_states_are_saved_and_kept_is_no_identity() -> None:
    config = STAGES["sft"]
    changed = replace(
        config,
        optimization=optimization(
            checkpoint_every_minutes=1.0, checkpoint_every_steps=7, keep_checkpoints=9
        ),
    )
    assert changed.identity() == config.identity()


def test_steps_without_a_group_that_trains_make_torch_say_nothing(
    context: StageContext, tmp_path: Path
) -> None:
    config: Any = STAGES["rl_options"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hopeless = replace(config, max_new_tokens=1)
        with pytest.raises(UserError, match="nothing is left; 0 of 96 groups"):
            trained("rl_options", context, tmp_path, hopeless)
    assert not [warning for warning in caught if "lr_scheduler" in str(warning.message)]
