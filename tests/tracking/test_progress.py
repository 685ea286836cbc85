"""How far a stage is: which lines are printed and kept, and the display of a terminal."""

import os
import pty
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from reasoning_lab.tracking import progress
from reasoning_lab.tracking.progress import Progress, RunPosition


class Clock(SimpleNamespace):
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(progress, "time", fake)
    return fake


def kept(log: Path) -> list[str]:
    """Lines of the log without their dates."""
    return [line.split(" ", 2)[2] for line in log.read_text().splitlines()]


def test_lines_come_first_every_half_minute_and_last(
    clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Steps of 12 s, with 600 tokens each: 36 s lie between the second line and the third."""
    position = RunPosition(step=2, steps=4, later_s=100.0, log_file=tmp_path / "log.txt")
    with Progress("sft", position).task("step", 7, measures=lambda: ["loss 1.500"]) as task:
        for _ in range(7):
            clock.now += 12
            task.advance(1, tokens=600)
    head = "[step 2 of 4] sft: step"
    rest = "loss 1.500, 50 tokens/s"
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{head} 1 of 7, {rest}, 0:01:12 left of the stage, of the run 0:02:52",
        f"{head} 4 of 7, {rest}, 0:00:36 left of the stage, of the run 0:02:16",
        f"{head} 7 of 7, {rest}, 0:00:00 left of the stage, of the run 0:01:40",
    ]
    assert kept(tmp_path / "log.txt") == lines


@pytest.mark.parametrize(
    ("later_s", "unknown", "expected"),
    [
        (0.0, 0, "of the run 0:00:10"),
        (50.0, 0, "of the run 0:01:00"),
        (50.0, 2, "of the run at least 0:01:00"),
        (0.0, 2, "of the run not known yet"),
    ],
)
def test_time_that_nothing_tells_is_not_invented(
    clock: Clock,
    later_s: float,
    unknown: int,
    expected: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    position = RunPosition(later_s=later_s, later_unknown=unknown)
    with Progress("sft", position).task("completion", 2) as task:
        clock.now += 10
        task.advance(1)
    assert capsys.readouterr().out == (
        "[step 1 of 1] sft: completion 1 of 2, 0.1 completions/s, 0:00:10 left of the stage, "
        f"{expected}\n"
    )


def test_what_an_earlier_attempt_did_is_said_and_is_no_part_of_the_rate(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("rl", RunPosition()).task("step", 1000) as task:
        clock.now += 500  # The model is loaded.
        task.start(900)
        clock.now += 2
        task.advance(1)
    assert capsys.readouterr().out.splitlines() == [
        "[step 1 of 1] rl: goes on from step 900 of 1,000",
        "[step 1 of 1] rl: step 901 of 1,000, 0.5 steps/s, 0:03:18 left of the stage, "
        "of the run 0:03:18",
    ]


def test_a_part_of_a_stage_is_named_and_has_no_line_while_it_is_short(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("rl", RunPosition()).task("completion", 100, "screening") as task:
        for _ in range(100):
            clock.now += 0.5
            task.advance(1)
    assert capsys.readouterr().out == (
        "[step 1 of 1] rl: screening: completion 60 of 100, 2 completions/s, "
        "0:00:20 left of the screening\n"
    )


def test_a_stage_that_stops_early_says_where(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("midtrain", RunPosition()).task("step", 9) as task:
        for _ in range(3):
            clock.now += 1
            task.advance(1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        f"[step 1 of 1] midtrain: step {step} of 9" for step in (1, 3)
    ]


def test_a_process_that_does_not_report_is_silent(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("sft").task("step", 2) as task:
        clock.now += 60
        task.advance(2)
    assert capsys.readouterr().out == ""


_IN_TERMINAL = """
import logging, pathlib, sys, time
from reasoning_lab.tracking.progress import Progress, RunPosition, StderrHandler
logging.getLogger().addHandler(StderrHandler())
position = RunPosition(step=2, steps=4, later_s=60, log_file=pathlib.Path(sys.argv[1]))
with Progress("sft", position).task("step", 3, measures=lambda: ["loss 1.500"]) as task:
    for step in range(3):
        time.sleep(0.7)
        task.advance(1, 600)
    logging.warning("something is odd")
    time.sleep(1.2)
"""


def test_a_terminal_shows_a_live_display_and_the_log_has_the_lines(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _IN_TERMINAL, str(log)],
        stdout=child,
        stderr=child,
        env={**os.environ, "COLUMNS": "160", "TERM": "xterm"},
    )
    os.close(child)
    shown = b""
    try:
        while chunk := os.read(parent, 4096):
            shown += chunk
    except OSError:  # The terminal's end, once the process has closed it.
        pass
    os.close(parent)
    assert process.wait() == 0, shown
    screen = shown.decode()
    assert "[step 2 of 4] sft:" in screen
    assert "━" in screen
    assert "step 3 of 3" in screen
    assert "loss 1.500, " in screen
    assert "left of the stage, of the run 0:01:0" in screen
    # Cleared and drawn again, and a warning stays above it.
    assert screen.count("\x1b[2K") > 2
    assert "\nsomething is odd\r\n" in screen or "\x1b[2Ksomething is odd\r\n" in screen
    assert [line.split(",")[0] for line in kept(log)] == [
        f"[step 2 of 4] sft: step {step} of 3" for step in (1, 3)
    ]
