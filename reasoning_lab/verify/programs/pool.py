"""Gives programs to servers that run them, some at a time, and makes verdicts of the results.

It runs in the verifier's own process and starts servers when the first program comes. Of what a
program did it reads a count and a byte for each test. A server that is over its time is killed, and
its children with it; the next program gets a new one.
"""

import math
import os
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from reasoning_lab.types import Problem, UserError, Verdict
from reasoning_lab.verify import sandbox
from reasoning_lab.verify.programs import server
from reasoning_lab.verify.programs.requests import requests_of
from reasoning_lab.verify.programs.test_process import COUNT, NO_PYTHON, PASSED

_PROGRAM = (
    "import sys; sys.path[:] = {path!r}; "
    "from reasoning_lab.verify.programs.server import serve; serve{arguments!r}"
)
# Sets have the same order in every server, so that a program has the same verdict. NumPy must be
# told that it may start no threads.
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
_START_VARIABLES = ("LD_LIBRARY_PATH", "PYTHONHOME")
_MAX_RESULT_BYTES = 2**20
# A pipe has 64 KiB, which a process without privileges can raise to 1 MiB.
_MAX_PIPE_BYTES = 2**20
_READ_BYTES = 2**16


class ProgramResult(NamedTuple):
    """What came of a program.

    Attributes:
        verdict: CORRECT = it passed all tests; UNPARSEABLE = it is no Python.
        passed_frac: The fraction of the tests that it passed, in [0, 1].
    """

    verdict: Verdict
    passed_frac: float


class ProgramPool:
    """Runs programs in servers, which start at the first call; the arguments are `Verifier`'s."""

    def __init__(self, workers: int, timeout_s: float, memory_mb: int) -> None:
        self._workers, self._timeout_s, self._memory_mb = workers, timeout_s, memory_mb
        self._servers: list[_Server] = []

    def close(self) -> None:
        """End the servers; a later call starts new ones."""
        while self._servers:
            self._servers.pop().close()

    def results(self, problems: Sequence[Problem], programs: Sequence[str]) -> list[ProgramResult]:
        """Run each program beside the tests of its problem, in order.

        Raises:
            UserError: A problem has no tests, or this machine cannot isolate a program.
        """
        pairs = zip(problems, programs, strict=True)
        requests = [requests_of(problem, program) for problem, program in pairs]
        if requests and not sandbox.is_available():
            raise UserError(
                f"{problems[0].origin}: its answers are programs, and this machine cannot isolate "
                "them; use a Linux kernel with Landlock and seccomp"
            )
        results = [ProgramResult(Verdict.TIMEOUT, 0.0)] * len(requests)
        waiting = deque(enumerate(requests))
        retried: set[int] = set()
        try:
            self._start_servers(min(self._workers, len(requests)))
            while waiting or any(one.is_busy for one in self._servers):
                for one in self._servers:
                    if not one.is_busy and waiting:
                        number, request = waiting.popleft()
                        one.begin(number, request)
                for one in _wait(self._servers):
                    results[one.number] = one.result()
                    # A server that somebody else ended says nothing about its program.
                    if one.has_failed and one.number not in retried:
                        retried.add(one.number)
                        waiting.appendleft((one.number, requests[one.number]))
                self._start_servers(len(self._servers))
        except BaseException:
            self.close()
            raise
        return results

    def _start_servers(self, count: int) -> None:
        """Have `count` servers that run, the present ones first."""
        running = [one for one in self._servers if one.is_running]
        for one in self._servers:
            if not one.is_running:
                one.close()
        new = [_Server(self._memory_mb, self._timeout_s) for _ in range(count - len(running))]
        # A new one may fail to start, and is closed with the others.
        self._servers = running + new
        for one in new:
            one.wait()


def _wait(servers: Sequence["_Server"]) -> list["_Server"]:
    """Wait until a server has ended a program or is over its time; return those."""
    busy = [one for one in servers if one.is_busy]
    while busy and not (ended := [one for one in busy if one.advance()]):
        poll = select.poll()
        for one in busy:
            one.register(poll)
        poll.poll(max(0.0, min(one.deadline for one in busy) - time.monotonic()) * 1_000 + 1)
    return ended


class _Server:
    """The client's end of `server.serve`.

    Attributes:
        number: Which program it runs, or ran last.
        is_busy: It runs one.
        deadline: When the program's time is over, by `time.monotonic`.
        has_failed: It ended by itself.
    """

    def __init__(self, memory_mb: int, timeout_s: float) -> None:
        programs, self._programs = os.pipe()
        tests, self._tests = os.pipe()
        self._results, results = os.pipe()
        self._events, events = os.pipe()
        self._timeout_s = timeout_s
        self.number, self.is_busy, self.deadline = -1, False, math.inf
        self.has_failed, self._is_over = False, False
        self._unsent: dict[int, memoryview] = {}
        self._received = b""
        pipes = (programs, tests, results, events)
        # Its time is counted by the client; this limit ends it when the client was killed.
        arguments = (*pipes, memory_mb, math.ceil(2 * timeout_s) + 1, os.getpid())
        inherited = {name: os.environ[name] for name in _START_VARIABLES if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM.format(path=sys.path, arguments=arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=pipes,
            env=inherited | _ENVIRONMENT,
        )
        for descriptor in pipes:
            os.close(descriptor)
        for descriptor in (self._programs, self._tests, self._results):
            os.set_blocking(descriptor, False)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None and not self.has_failed

    def wait(self) -> None:
        """Wait until the server is in the sandbox."""
        if os.read(self._events, 1) != server.SANDBOXED:
            raise UserError(
                "The server that runs programs did not start in its sandbox; use a Linux kernel "
                "with Landlock and seccomp, or leave out problems whose answers are programs"
            )
        os.set_blocking(self._events, False)

    def close(self) -> None:
        """End the server, and the program that it runs."""
        self._process.kill()
        self._process.wait()
        for descriptor in (self._programs, self._tests, self._results, self._events):
            os.close(descriptor)

    def begin(self, number: int, requests: tuple[bytes, bytes]) -> None:
        """Begin to run a program, given the requests of its two processes."""
        self.number, self.is_busy, self._received = number, True, b""
        self.deadline = time.monotonic() + self._timeout_s
        for descriptor, request in zip((self._programs, self._tests), requests, strict=True):
            self._unsent[descriptor] = memoryview(server.REQUEST_SIZE.pack(len(request)) + request)

    def register(self, poll: select.poll) -> None:
        """Register what this server waits for."""
        poll.register(self._events, select.POLLIN)
        poll.register(self._results, select.POLLIN)
        for descriptor in self._unsent:
            poll.register(descriptor, select.POLLOUT)

    def advance(self) -> bool:
        """Write and read what is possible now; return whether the program has ended."""
        for descriptor, content in [*self._unsent.items()]:
            written = _write_some(descriptor, content)
            self._unsent[descriptor] = content[written:]
            if not self._unsent[descriptor]:
                del self._unsent[descriptor]
        # The event comes first: behind the end of a program no result can follow.
        event = _read_some(self._events)
        is_over = event is None and time.monotonic() >= self.deadline
        self._read_results()
        if is_over:
            # The kernel ends the program and its tests with the server.
            self._process.kill()
            self._process.wait()
        self.is_busy = event is None and not is_over
        # Without a header, a process may have ended before it had read its request.
        self.has_failed = event == b"" or (event is not None and not self._received)
        self._is_over = is_over
        return not self.is_busy

    def _read_results(self) -> None:
        """Read what the pipe has, but no more than it can have at once, however fast it is filled.

        What exceeds the maximum is dropped.
        """
        for _ in range(_MAX_PIPE_BYTES // _READ_BYTES):
            part = _read_some(self._results)
            if not part:
                return
            if len(self._received) <= _MAX_RESULT_BYTES:
                self._received += part

    def result(self) -> ProgramResult:
        """Return what came of the program that ended."""
        header, outcomes = self._received[: 1 + COUNT.size], self._received[1 + COUNT.size :]
        if header == NO_PYTHON:
            return ProgramResult(Verdict.UNPARSEABLE, 0.0)
        total = COUNT.unpack(header[1:])[0] if len(header) == 1 + COUNT.size else 0
        passed_frac = min(outcomes.count(PASSED) / total, 1.0) if total else 0.0
        if self._is_over or self.has_failed:
            return ProgramResult(Verdict.TIMEOUT, passed_frac)
        has_passed = outcomes.count(PASSED) == len(outcomes) == total > 0
        return ProgramResult(Verdict.CORRECT if has_passed else Verdict.WRONG, passed_frac)


def _write_some(descriptor: int, content: memoryview) -> int:
    """Write what the pipe can take now, and return how much that was."""
    try:
        return os.write(descriptor, content)
    except BlockingIOError:
        return 0
    except BrokenPipeError:
        return len(content)


def _read_some(descriptor: int) -> bytes | None:
    """Read what the pipe has now; None = nothing yet, empty = it was closed."""
    try:
        return os.read(descriptor, _READ_BYTES)
    except BlockingIOError:
        return None
