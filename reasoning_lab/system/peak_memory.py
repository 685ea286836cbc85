"""The most memory of this process, or of one that it starts, over a stretch of time; on Linux."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_POLL_S = 0.1
_PROCESSES = Path("/proc")


class PeakMemory:
    """What was seen.

    Attributes:
        of_process_bytes: The most that one process had; 0 = nothing could be read.
    """

    def __init__(self) -> None:
        self.of_process_bytes = 0


@contextmanager
def peak_memory() -> Iterator[PeakMemory]:
    """Watch this process and all that stem from it; the result is complete at the end."""
    peak, stopped = PeakMemory(), threading.Event()
    with suppress(OSError):  # The peak so far is not of interest; some systems cannot reset it.
        (_PROCESSES / "self/clear_refs").write_text("5")

    def watch() -> None:
        while True:
            most = max((_peak_bytes(folder) for folder in _family()), default=0)
            peak.of_process_bytes = max(peak.of_process_bytes, most)
            if stopped.wait(_POLL_S):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        stopped.set()
        watcher.join()


def _family() -> Iterator[Path]:
    """The folders of this process and of its descendants."""
    waiting = [_PROCESSES / "self"]
    while waiting:
        folder = waiting.pop()
        yield folder
        for tasks in folder.glob("task/*/children"):
            with suppress(OSError):
                waiting += [_PROCESSES / child for child in tasks.read_text().split()]


def _peak_bytes(folder: Path) -> int:
    with suppress(OSError):
        for line in (folder / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return 0
