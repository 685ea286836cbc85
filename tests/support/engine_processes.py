"""Engines that trainers started in processes of their own, read from /proc."""

import contextlib
import os
from pathlib import Path


def engines_of(folder: Path) -> dict[str, int]:
    """Process of each engine whose output goes to a file of `folder`, by the file's name."""
    engines = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            output = Path(os.readlink(entry / "fd" / "1"))
            if b"reasoning_lab.sampling.engine_process" in command and output.parent == folder:
                engines[output.name] = int(entry.name)
    return engines


def live(group: int) -> int:
    """Processes of a group that have not ended."""
    states = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, _, member = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            states += [state] if int(member) == group else []
    return len([state for state in states if state != "Z"])
