"""Ctrl-C and SIGTERM: a training that runs saves its state first; a second Ctrl-C ends at once.

A stage that trains in processes of its own is told through a file in its work folder, which every
machine of a cluster sees. Outside of training both signals end the command where it is: what a
stage had finished stays in its work folder.

Nothing here imports torch.
"""

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Self

RESUME = "run the same command again to go on where it was"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TRAINING, _STOP = "training", "stop"
_NOTICE = "\nStopping: the state is saved when the current step ends; Ctrl-C again ends at once.\n"


class Stopped(KeyboardInterrupt):
    """The user or the system ended the command.

    Args:
        message: What was saved and how to go on.
        signum: The signal that asked for it.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message, signum)
        self.signum = signum

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def exit_code(self) -> int:
        """As a shell reports a command that the signal ended."""
        return 128 + self.signum


class StopRequest:
    """Notices that a training is to stop, so that it can save its state between two steps.

    A context around the training; it gives the signals back at its end, and raises `Stopped` there
    where one came too late for the training to end with it.

    Args:
        work_dir: The stage's, where `forwarded` leaves its request; None = another process of the
            stage looks there.
    """

    def __init__(self, work_dir: Path | None) -> None:
        self._work_dir = work_dir
        self._before: dict[int, Any] = {}
        self._signum: int | None = None

    def __enter__(self) -> Self:
        if _in_main_thread():
            self._before = {number: signal.getsignal(number) for number in _SIGNALS}
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if self._work_dir is not None:
            (self._work_dir / _TRAINING).unlink(missing_ok=True)
        _install(self._before)
        if kind is None and self._signum is not None:
            raise Stopped(f"Stopped; {RESUME}.", self._signum)

    def listen(self) -> None:
        """From now on a signal is noted instead of ending the process."""
        if self._work_dir is not None:
            self._work_dir.mkdir(parents=True, exist_ok=True)
            (self._work_dir / _STOP).unlink(missing_ok=True)
            (self._work_dir / _TRAINING).touch()
        if _in_main_thread():
            _install(dict.fromkeys(_SIGNALS, self._note))

    @property
    def signum(self) -> int | None:
        """The signal that asks for the stop; None = nothing does."""
        if self._signum is None and self._work_dir is not None:
            self._signum = _requested_in(self._work_dir)
        return self._signum

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self._signum is not None and signum == signal.SIGINT:
            # Python's own end would wait for threads that sample.
            os._exit(128 + signum)
        if self._signum is None and self._work_dir is not None:
            _notify()
        self._signum = self._signum or signum


@contextmanager
def forwarded(work_dir: Path) -> Iterator[None]:
    """While processes make a stage: hand a signal on to their training, and wait for its state.

    Where they do not train, at the second Ctrl-C, and where their training has ended by itself, the
    signal ends this process.
    """
    for name in (_TRAINING, _STOP):
        (work_dir / name).unlink(missing_ok=True)
    requested: int | None = None

    def forward(signum: int, frame: FrameType | None) -> None:
        nonlocal requested
        again, requested = requested is not None, signum
        if again and signum != signal.SIGINT:
            return
        if again or not (work_dir / _TRAINING).exists():
            raise Stopped(f"Stopped; {RESUME}.", signum)
        # A reader sees the whole number or no file.
        draft = work_dir / f".{_STOP}"
        draft.write_text(str(signum), encoding="utf-8")
        draft.replace(work_dir / _STOP)
        _notify()

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    if _in_main_thread():
        _install(dict.fromkeys(_SIGNALS, forward))
    try:
        yield
    finally:
        if _in_main_thread():
            _install(before)
    if requested is not None:
        raise Stopped(f"Stopped; {RESUME}.", requested)


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends what runs inside as Ctrl-C does, so that what it started is ended too."""

    def end(signum: int, frame: FrameType | None) -> None:
        raise Stopped(f"Stopped; {RESUME}.", signum)

    before = {signal.SIGTERM: signal.getsignal(signal.SIGTERM)}
    if _in_main_thread():
        _install({signal.SIGTERM: end})
    try:
        yield
    finally:
        if _in_main_thread():
            _install(before)


def _requested_in(work_dir: Path) -> int | None:
    try:
        return int((work_dir / _STOP).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _install(handlers: Mapping[Any, Any]) -> None:
    for number, handler in handlers.items():
        if handler is not None:  # None = it was not set by Python, which cannot set it again.
            signal.signal(number, handler)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _notify() -> None:
    # Not through a stream, which the signal may have interrupted.
    os.write(2, _NOTICE.encode())
