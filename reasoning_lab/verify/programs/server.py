"""The server that forks the processes of one program and its tests.

It is a fresh interpreter in the sandbox, without the lab's environment, working folder and data. It
reads neither programs nor tests: its children read them from two pipes. So no child inherits
anything of another problem, and the process of a program never had its tests.

The process of the tests is the server's child, and the process of the program is a child of that
one. The kernel ends each with its parent. So when the tests have ended, or the client ends the
server because the time is over, nothing of the program goes on.
"""

import gc
import importlib
import os
import random
import resource
import select
import struct
import sys
from collections.abc import Mapping, Set
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

from reasoning_lab.verify.programs.program_process import run_program
from reasoning_lab.verify.programs.test_process import run_tests
from reasoning_lab.verify.programs.values import read_exactly
from reasoning_lab.verify.sandbox import (
    adopt_orphans,
    end_with_parent,
    enter_sandbox,
    forbid_child_processes,
)

REQUEST_SIZE = struct.Struct("=I")
# Events that the server writes: one when it is in the sandbox, one after each program.
SANDBOXED, ENDED = b"S", b"E"
# What programs import most; a child need not import it again.
_MODULES = (
    "bisect cmath collections copy datetime decimal fractions functools heapq itertools json math "
    "operator random re statistics string typing"
)
_MAX_OPEN_FILES = 32
_FIRST_FREE_DESCRIPTOR, _LAST_DESCRIPTOR = 3, 1024
_MIB = 2**20


def serve(
    programs: int, tests: int, results: int, events: int, memory_mb: int, cpu_s: int, parent: int
) -> None:
    """Run one program after another, until the pipe of tests is closed.

    Args:
        programs: File descriptor that the process of a program reads it from.
        tests: File descriptor that the process of the tests reads them from.
        results: File descriptor that the process of the tests writes to.
        events: File descriptor that this server writes its events to.
        memory_mb: Most MiB of address space that a process may take beyond its imports.
        cpu_s: Most seconds that a process may compute, should nobody end it before.
        parent: Process id of the parent, with which this process ends.

    Raises:
        SandboxError: The kernel has no sandbox.
    """
    end_with_parent(parent)
    adopt_orphans()
    for name in _MODULES.split():
        importlib.import_module(name)
    _forget_folders_of_others()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    enter_sandbox([])
    limits = {
        resource.RLIMIT_AS: pages * resource.getpagesize() + memory_mb * _MIB,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_NOFILE: _MAX_OPEN_FILES,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    # The random numbers of programs and tests are the same on every machine.
    random.seed(0)
    gc.collect()
    gc.freeze()
    os.write(events, SANDBOXED)
    while _has_content(tests, wait_ms=None):
        _run_one(programs, tests, results, limits)
        # A process that ended early left its request, which must not be taken for the next one.
        if _has_content(tests, wait_ms=0) or _has_content(programs, wait_ms=0):
            return
        os.write(events, ENDED)


def _forget_folders_of_others() -> None:
    """Leave only the installed packages to import from, so that only these can be read."""
    installed = [Path(prefix) for prefix in (sys.prefix, sys.base_prefix)]
    sys.path[:] = [
        entry
        for entry in sys.path
        if any(Path(entry).is_relative_to(prefix) for prefix in installed)
    ]


def _has_content(descriptor: int, wait_ms: int | None) -> bool:
    """Return whether a pipe has bytes to read; None = wait for some, or for its end."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return any(event & select.POLLIN for _, event in poll.poll(wait_ms))


def _run_one(programs: int, tests: int, results: int, limits: Mapping[int, int]) -> None:
    """Fork the processes of one program, and wait until both have ended."""
    server = os.getpid()
    if os.fork() == 0:
        _start_tests(server, programs, tests, results, limits)
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _start_tests(
    server: int, programs: int, tests: int, results: int, limits: Mapping[int, int]
) -> NoReturn:
    """Be the process of the tests, and fork the process of the program before reading any."""
    try:
        end_with_parent(server)
        call_reader, calls = os.pipe()
        replies, reply_writer = os.pipe()
        parent = os.getpid()
        if os.fork() == 0:
            end_with_parent(parent)
            request = _restrict(programs, {call_reader, reply_writer}, limits)
            run_program(request, call_reader, reply_writer)
        else:
            request = _restrict(tests, {calls, replies, results}, limits)
            run_tests(request, calls, replies, results)
    finally:
        os._exit(0)


def _restrict(requests: int, preserved: Set[int], limits: Mapping[int, int]) -> bytes:
    """Read the request of this process, and give up all that it does not need, for good."""
    ends = [_FIRST_FREE_DESCRIPTOR - 1, *sorted({requests, *preserved}), _LAST_DESCRIPTOR]
    for before, after in pairwise(ends):
        os.closerange(before + 1, after)
    size = read_exactly(requests, REQUEST_SIZE.size)
    request = read_exactly(requests, *REQUEST_SIZE.unpack(size)) if size else b""
    os.close(requests)
    for limit, amount in limits.items():
        resource.setrlimit(limit, (amount, amount))
    forbid_child_processes()
    return request
