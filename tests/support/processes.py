"""The verifier's processes, read from /proc."""

import os
import time
from pathlib import Path


def fork_server_children() -> set[int]:
    """Pids of the fork server's live children: this process's grandchildren."""
    parent_of = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(") ")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            parent_of[int(stat.parent.name)] = int(parent)
    return {pid for pid, parent in parent_of.items() if parent_of.get(parent) == os.getpid()}


def program_servers() -> set[int]:
    """Pids of the servers of programs that this process started."""
    servers = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = stat.read_text().rpartition(") ")[2].split()[1]
            command = (stat.parent / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == os.getpid() and b"verify.programs.server" in command:
            servers.add(int(stat.parent.name))
    return servers


def settled_children() -> set[int]:
    """The same, once it has not changed for a second: a worker that was killed is replaced late."""
    children, since = fork_server_children(), time.monotonic()
    while time.monotonic() - since < 1:
        time.sleep(0.1)
        current = fork_server_children()
        if current != children:
            children, since = current, time.monotonic()
    return children
