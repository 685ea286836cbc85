"""Which artifacts running recipes need, so that housekeeping leaves them alone.

Each run has a file in the store that lists its fingerprints, and holds a lock on it. The kernel
releases the lock of a process that dies, so a file without a lock is of a run that was killed.
"""

import fcntl
import uuid
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

_NAME = ".run-"


def declare_run(root: Path, fingerprints: Iterable[str]) -> ExitStack:
    """List what a run needs in the store at `root`, until the `with` of what it returns ends.

    A run declares it before its first look-up. On a file system without locks, the file of a run
    that was killed protects its artifacts until it is removed by hand.
    """
    file = root / f"{_NAME}{uuid.uuid4().hex}"
    with ExitStack() as stack:
        stream = stack.enter_context(file.open("x", encoding="utf-8"))
        stack.callback(file.unlink, missing_ok=True)
        with suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_EX)
        stream.write("\n".join(fingerprints))
        stream.flush()
        return stack.pop_all()


def needed_by_runs(root: Path) -> set[str]:
    """Fingerprints that running recipes need; the files of runs that were killed are removed."""
    fingerprints: set[str] = set()
    for file in root.glob(f"{_NAME}*"):
        with suppress(FileNotFoundError), file.open(encoding="utf-8") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                fingerprints.update(stream.read().split())
                continue
            # An empty one may be of a run that is about to lock it.
            if stream.read():
                with suppress(PermissionError):
                    file.unlink()
    return fingerprints
