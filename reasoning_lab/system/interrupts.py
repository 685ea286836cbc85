"""Ctrl-C and SIGTERM: a running training saves its state first; a second Ctrl-C ends at once.

A stage that trains in several processes receives the request through a file in its work folder,
which every machine of a cluster sees. Outside of training both signals end the command at once;
finished parts of a stage stay in its work folder.

Nothing here imports torch.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Self

from reasoning_lab.system.files import write_atomically

RESUME_HINT = "run the same command again to go on where it was"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TRAINING_FILE, _STOP_FILE = "training", "stop"
_NOTICE = "\nStopping: the state is saved when the current step ends; Ctrl-C again ends at once.\n"


class Interrupted(KeyboardInterrupt):
    """The user or the system ended the command.

    Args:
        message: What was saved and how to go on.
        signum: The signal that was received.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message, signum)
        self.signum = signum

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def exit_code(self) -> int:
        """The code that a shell reports for a command ended by this signal."""
        return 128 + self.signum


class StopRequest:
    """Notes that a training should stop, so that it can save its state between two steps.

    A context manager around the training. At its end it restores the previous signal handlers. It
    raises `Interrupted` there if a signal came too late for the training to end with it.

    Args:
        work_dir: The stage's work folder, where `forward_signals` leaves its request; None =
            another process of the stage reads it.
    """

    def __init__(self, work_dir: Path | None) -> None:
        self._work_dir = work_dir
        self._previous_handlers: dict[int, Any] = {}
        self._signum: int | None = None

    def __enter__(self) -> Self:
        if _in_main_thread():
            self._previous_handlers = {number: signal.getsignal(number) for number in _SIGNALS}
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if self._work_dir is not None:
            (self._work_dir / _TRAINING_FILE).unlink(missing_ok=True)
        _install(self._previous_handlers)
        if kind is None and self._signum is not None:
            raise Interrupted(f"Stopped; {RESUME_HINT}.", self._signum)

    def listen(self) -> None:
        """From now on, note a signal instead of letting it end the process."""
        if _in_main_thread():
            _install(dict.fromkeys(_SIGNALS, self._handle))
        # The file says that signals are noted, so they must be by then.
        if self._work_dir is not None:
            self._work_dir.mkdir(parents=True, exist_ok=True)
            (self._work_dir / _STOP_FILE).unlink(missing_ok=True)
            (self._work_dir / _TRAINING_FILE).touch()

    @property
    def signum(self) -> int | None:
        """The signal that requested a stop; None = there is no request."""
        if self._signum is None and self._work_dir is not None:
            self._signum = _read_stop_request(self._work_dir)
        return self._signum

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._signum is not None and signum == signal.SIGINT:
            # Python's own exit would wait for threads that generate rollouts.
            os._exit(128 + signum)
        if self._signum is None and self._work_dir is not None:
            _print_notice()
        self._signum = self._signum or signum


@contextmanager
def forward_signals(work_dir: Path) -> Iterator[None]:
    """Forward signals to the processes of a stage, whose training then saves its state.

    The signal ends this process if no training runs, at a second Ctrl-C, and after the training
    has ended by itself. Whoever starts the processes calls `clear_requests` before.
    """
    requested: int | None = None

    def forward(signum: int, frame: FrameType | None) -> None:
        nonlocal requested
        is_repeated, requested = requested is not None, signum
        if is_repeated and signum != signal.SIGINT:
            return
        if is_repeated or not request_stop(work_dir, signum):
            raise Interrupted(f"Stopped; {RESUME_HINT}.", signum)
        _print_notice()

    with _handled_by(forward, *_SIGNALS):
        yield
    if requested is not None:
        raise Interrupted(f"Stopped; {RESUME_HINT}.", requested)


def request_stop(work_dir: Path, signum: int) -> bool:
    """Ask the training of a stage to save its state and end; False = none runs."""
    if not (work_dir / _TRAINING_FILE).exists():
        return False
    # No reader sees half a number.
    write_atomically(
        work_dir / _STOP_FILE, lambda draft: draft.write_text(str(signum), encoding="utf-8")
    )
    return True


def is_stop_requested(work_dir: Path) -> bool:
    """Whether the training of a stage has been asked to end."""
    return (work_dir / _STOP_FILE).exists()


def clear_requests(work_dir: Path) -> None:
    """Forget what processes of the stage that have ended left behind."""
    for name in (_TRAINING_FILE, _STOP_FILE):
        (work_dir / name).unlink(missing_ok=True)


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C, so that child processes are ended as well."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise Interrupted(f"Stopped; {RESUME_HINT}.", signum)

    with _handled_by(interrupt, signal.SIGTERM):
        yield


def _read_stop_request(work_dir: Path) -> int | None:
    try:
        return int((work_dir / _STOP_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None], *signals: int) -> Iterator[None]:
    """Within the context, `handler` takes the signals; only the main thread receives them."""
    previous_handlers = {number: signal.getsignal(number) for number in signals}
    if _in_main_thread():
        _install(dict.fromkeys(signals, handler))
    try:
        yield
    finally:
        if _in_main_thread():
            _install(previous_handlers)


def _install(handlers: Mapping[Any, Any]) -> None:
    for number, handler in handlers.items():
        if handler is not None:  # None = not set from Python, which cannot restore it.
            signal.signal(number, handler)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _print_notice() -> None:
    # os.write, as the signal may have interrupted a write to the stream.
    os.write(2, _NOTICE.encode())
