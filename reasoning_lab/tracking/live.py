"""What a run writes of itself while it goes, for `reasoning-lab watch`.

Below the folder of a run, `live/run.json` has the graph and the state of each node, and
`live/FINGERPRINT/` what the stage has shown so far: its metrics, its progress and its last
rollouts. Nothing but the page reads these files, so a write that fails costs only the page.
"""

import fcntl
import json
import logging
import math
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from numbers import Real
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self, TextIO

from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.system.files import write_atomically
from reasoning_lab.tracking.tracker import GLOBAL_STEP, Tracker
from reasoning_lab.types import Rollout

log = logging.getLogger(__name__)

LIVE = "live"
RUN, LOCK = "run.json", "lock"
METRICS, PROGRESS, ROLLOUTS = "metrics.jsonl", "progress.json", "rollouts.json"
# Of each table; more are in the store once the stage is done.
_MAX_ROLLOUTS = 64
_EVERY_S = 1.0


class LiveRun:
    """The state of each node of a run, in `live/run.json` of its folder.

    A context manager around the run. Its lock says that the run is alive: the kernel releases the
    lock of a process that dies.

    Args:
        run_dir: The run's own folder.
        about: What the page says of the run.
        nodes: For each node `name`, `stage`, `fingerprint` and `inputs`, the fingerprints of its
            inputs; in order.
    """

    def __init__(
        self, run_dir: Path, about: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]
    ) -> None:
        self._folder = run_dir.absolute() / LIVE
        self._content: dict[str, Any] = {
            **about,
            "host": socket.gethostname(),
            "started": time.time(),
            "nodes": [dict(node) for node in nodes],
            "states": {},
        }
        self._lock: TextIO | None = None

    def __enter__(self) -> Self:
        with _costs_only_the_page():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self._folder / LOCK).open("w", encoding="utf-8")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._write()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._content |= {"ended": time.time()}
        if kind is not None:
            self._content["failure"] = str(error) or kind.__name__
        self._write()
        if self._lock is not None:
            self._lock.close()

    def stage_dir(self, fingerprint: str) -> Path:
        """Where a node's stage writes while it is made."""
        return self._folder / fingerprint

    def started(self, fingerprint: str) -> None:
        """A node begins to be made."""
        self._state(fingerprint, "running")

    def finished(self, fingerprint: str, reused: bool) -> None:
        """A node's artifact is in the store; True = it was there already."""
        self._state(fingerprint, "reused" if reused else "done")

    def _state(self, fingerprint: str, state: str) -> None:
        self._content["states"][fingerprint] = {"state": state, "since": time.time()}
        self._write()

    def _write(self) -> None:
        _write_json(self._folder / RUN, self._content)


class LiveTracker(Tracker):
    """Writes a stage's metrics and the last table of rollouts of each name.

    `metrics.jsonl` has a line a call; its `step` is the trainer's, null outside of a training.

    Args:
        folder: The stage's, see `LiveRun.stage_dir`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tables: dict[str, Any] = {}

    def log(self, metrics: Mapping[str, Any]) -> None:
        values = _finite(
            {key: metrics[key] for key in metrics if key not in (GLOBAL_STEP, "epoch")}
        )
        line = json.dumps({"step": metrics.get(GLOBAL_STEP), **values})
        with _costs_only_the_page():
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / METRICS).open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def log_rollouts(
        self,
        key: str,
        rollouts: Sequence[Rollout],
        extra_columns: Mapping[str, Sequence[float]] = MappingProxyType({}),
    ) -> None:
        self._tables[key] = [
            rollout_json(rollout, {name: column[i] for name, column in extra_columns.items()})
            for i, rollout in enumerate(rollouts[:_MAX_ROLLOUTS])
        ]
        _write_json(self._folder / ROLLOUTS, self._tables)


class LiveProgress:
    """Writes how far a stage and the part of it at hand are, at most once a second.

    Args:
        folder: The stage's, see `LiveRun.stage_dir`.
        ledger: What the stage has dropped so far.
    """

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self._folder = folder
        self._ledger = ledger
        self._tasks: dict[str, Any] = {}
        self._written_s = -math.inf
        # A part may be done in a thread of its own.
        self._lock = threading.Lock()

    def show(self, snapshot: Mapping[str, Any]) -> None:
        """Take in how far a task is."""
        with self._lock:
            self._tasks["stage" if snapshot["part"] is None else "part"] = snapshot
            if time.monotonic() - self._written_s >= _EVERY_S:
                self._write()

    def end(self, snapshot: Mapping[str, Any]) -> None:
        """A task has ended; that of the stage itself stays to be seen."""
        with self._lock:
            if snapshot["part"] is not None:
                self._tasks.pop("part", None)
                return
            self._tasks["stage"] = snapshot
            self._write()

    def _write(self) -> None:
        self._written_s = time.monotonic()
        content = {**self._tasks, "ledger": self._ledger.as_json()}
        _write_json(self._folder / PROGRESS, content)


def rollout_json(
    rollout: Rollout, measures: Mapping[str, float] = MappingProxyType({})
) -> dict[str, Any]:
    """A rollout as a page shows it, with what else was measured of it."""
    problem, completion = rollout.problem, rollout.completion
    return {
        "prompt": problem.transcript,
        "gold": problem.gold,
        "domain": problem.domain,
        "family": problem.family,
        "text": completion.text,
        "answer": rollout.answer,
        "verdict": str(rollout.verdict),
        "tokens": len(completion.token_ids),
        "measures": _finite(measures),
    }


def is_alive(run_dir: Path) -> bool:
    """Whether the process of the run in `run_dir` still goes."""
    try:
        with (run_dir / LIVE / LOCK).open("r", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    """Those values that are finite numbers."""
    return {
        key: float(value)
        for key, value in values.items()
        if isinstance(value, Real) and math.isfinite(value)
    }


def _write_json(path: Path, content: Any) -> None:
    text = json.dumps(content)
    with _costs_only_the_page():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, partial(Path.write_text, data=text, encoding="utf-8"))


@contextmanager
def _costs_only_the_page() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _warn(str(error.strerror))


@cache
def _warn(reason: str) -> None:
    log.warning("Nothing can be written for `reasoning-lab watch` (%s); the run goes on.", reason)
