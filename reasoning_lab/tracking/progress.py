"""How far a run is: a live display in a terminal, elsewhere a plain line now and then.

Every stage reports here: a training its optimizer steps, the others the problems or completions
that are done. The plain lines also go to the run's `log.txt`. Nothing here imports torch, so the
caller decides which of several processes reports.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.tracking.live import LiveProgress

LOG_FILE = "log.txt"
_LINE_EVERY_S = 30.0
_FRAME_EVERY_S = 1.0
_BAR_COLUMNS = 24


class Lines:
    """Prints lines for people, and keeps them in the run's log.

    Args:
        log_file: Lines are appended to it, each with the time; None = there is no log.
    """

    def __init__(self, log_file: Path | None) -> None:
        self.console = Console()
        self._log_file = log_file

    def print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        self.log(line)

    def log(self, line: str) -> None:
        """Keep `line` without printing it."""
        if self._log_file is not None:
            with self._log_file.open("a", encoding="utf-8") as file:
                file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}\n")


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is at the moment: a live display puts itself there.

    A handler that keeps the stream would write into the middle of the display.
    """

    def emit(self, record: logging.LogRecord) -> None:
        self.setStream(sys.stderr)
        super().emit(record)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPosition:
    """Where in its run a stage is, as plain data that another process can be given.

    Attributes:
        step: The stage's number among the recipe's steps, from 1.
        steps: Steps of the recipe, evaluations included.
        later_s: Seconds that later steps are expected to take, as far as the store tells.
        later_unknown: Later steps of which it does not tell.
        log_file: The run's log; None = there is none.
        live_dir: Where the stage is written down while it is made; None = nowhere.
    """

    step: int = 1
    steps: int = 1
    later_s: float = 0.0
    later_unknown: int = 0
    log_file: Path | None = None
    live_dir: Path | None = None

    def title(self, stage: str) -> str:
        """What every line about `stage` begins with."""
        return f"[step {self.step} of {self.steps}] {stage}"

    def run_left(self, stage_s: float) -> str:
        """What is left of the run, in words, if `stage_s` seconds of this stage are."""
        if not self.later_unknown:
            return f"of the run {_clock(stage_s + self.later_s)}"
        if self.later_s:
            return f"of the run at least {_clock(stage_s + self.later_s)}"
        return "of the run not known yet"


@dataclass(eq=False, kw_only=True)
class Task:
    """Work of a stage that can be counted.

    Attributes:
        title: What its lines begin with.
        unit: What is counted, in the singular.
        total: How many there are.
        position: Of the stage.
        part: Its name, if the stage does other work as well; the first and the last of a part are
            no lines. None = it is what takes the stage's time.
        measures: Gives what is to be said beside counts and rates; called for a line alone.
        emit: Takes a line.
        draw: Draws the live display anew; it takes about a millisecond.
        publish: Writes down how far it is, likewise.
    """

    title: str
    unit: str
    total: int
    position: RunPosition
    part: str | None
    measures: Callable[[], Sequence[str]]
    emit: Callable[[str], None]
    draw: Callable[[], None] = lambda: None
    publish: Callable[["Task"], None] = lambda task: None
    done: int = 0
    _first: int = 0
    _tokens: int = 0
    _reported: int | None = None
    _started_s: float = 0.0
    _updated_s: float = 0.0
    _emitted_s: float = 0.0
    _drawn_s: float = 0.0

    def __post_init__(self) -> None:
        self.start()

    def start(self, done: int = 0) -> None:
        """Start the clock; an earlier attempt left `done` units, which are no part of the rate."""
        self.done = self._first = done
        self._tokens = 0
        self._started_s = self._updated_s = self._emitted_s = time.monotonic()

    def advance(self, count: int, tokens: int = 0) -> None:
        """Count what has been done since the last call; cheap enough for every step.

        Args:
            count: Units.
            tokens: Those that were trained or written for them; 0 = unknown.
        """
        if self._first and self.done == self._first:
            self.emit(f"{self.title}: goes on from {self.unit} {self.done:,} of {self.total:,}")
        self.done += count
        self._tokens += tokens
        self._updated_s = now = time.monotonic()
        is_first_or_last = self._reported is None or self.done >= self.total
        if now - self._emitted_s >= _LINE_EVERY_S or (is_first_or_last and self.part is None):
            self.report()
        if now - self._drawn_s >= _FRAME_EVERY_S:
            self._drawn_s = now
            self.draw()
            self.publish(self)

    def report(self) -> None:
        """Emit a line, unless the last one says the same."""
        if self.done not in (self._first, self._reported):
            self._reported, self._emitted_s = self.done, time.monotonic()
            self.emit(f"{self.title}: {', '.join([self._count(), *self._status()])}")

    def frame(self) -> Group:
        """The live display: what is done, and below it how fast."""
        head = Table.grid(padding=(0, 1, 0, 0))
        bar = ProgressBar(total=self.total, completed=self.done, width=_BAR_COLUMNS)
        head.add_row(Text(f"{self.title}:"), bar, Text(self._count()))
        return Group(head, Text(f"  {', '.join(self._status())}"))

    def snapshot(self) -> dict[str, Any]:
        """The same as numbers, for a page; what is not known yet is null."""
        counted, seconds = self.done - self._first, self._updated_s - self._started_s
        left_s = seconds / counted * (self.total - self.done) if counted else None
        return {
            "part": self.part,
            "unit": self.unit,
            "done": self.done,
            "total": self.total,
            "units_per_s": counted / seconds if counted and seconds else None,
            "tokens_per_s": self._tokens / seconds if self._tokens and seconds else None,
            "left_s": left_s,
            "later_s": self.position.later_s,
            "later_unknown": self.position.later_unknown,
            "updated": time.time(),
        }

    def _count(self) -> str:
        part = f"{self.part}: " if self.part else ""
        return f"{part}{self.unit} {self.done:,} of {self.total:,}"

    def _status(self) -> list[str]:
        counted, seconds = self.done - self._first, self._updated_s - self._started_s
        if not counted:
            return ["starting"]
        rate, unit = (self._tokens, "token") if self._tokens else (counted, self.unit)
        left_s = max(0.0, seconds / counted * (self.total - self.done))
        of = self.part or "stage"
        left = [f"{_clock(left_s)} left of the {of}"]
        left += [] if self.part else [self.position.run_left(left_s)]
        return [*self.measures(), f"{_rate(rate, seconds)} {unit}s/s", *left]


class Progress:
    """How far one stage is.

    Args:
        stage: Its name in the recipe.
        position: Where in its run it is; None = nothing is said, as another process reports.
        ledger: The stage's, whose counts are written down with how far it is.
    """

    def __init__(
        self,
        stage: str = "",
        position: RunPosition | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self._stage = stage
        self._position = position
        folder = position and position.live_dir
        self._live = LiveProgress(folder, ledger or Ledger()) if folder else None

    @contextmanager
    def task(
        self,
        unit: str,
        total: int,
        part: str | None = None,
        measures: Callable[[], Sequence[str]] = list,
    ) -> Iterator[Task]:
        """A task that is shown while the context lasts; arguments as for `Task`."""
        position = self._position or RunPosition()
        lines = Lines(position.log_file)
        silent = self._position is None
        is_live = lines.console.is_terminal and not silent
        emit = lines.log if is_live else _ignore if silent else lines.print
        live = self._live
        task = Task(
            title=position.title(self._stage),
            unit=unit,
            total=total,
            position=position,
            part=part,
            measures=measures,
            emit=emit,
            publish=lambda task: live.show(task.snapshot()) if live else None,
        )
        with ExitStack() as stack:
            if live is not None:
                live.show(task.snapshot())
                stack.callback(lambda: live.end(task.snapshot()))
            if is_live:
                task.draw = stack.enter_context(_live(task, lines.console)).refresh
                task.draw()
            yield task
            if part is None:
                task.report()


def _live(task: Task, console: Console) -> Live:
    return Live(
        console=console,
        get_renderable=task.frame,
        # By the task, in the thread that works.
        auto_refresh=False,
        transient=True,
        # What a user redirects stays where it is redirected to.
        redirect_stderr=sys.stderr.isatty(),
    )


def _ignore(line: str) -> None:
    pass


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _rate(count: int, seconds: float) -> str:
    rate = count / max(seconds, 1e-9)
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
