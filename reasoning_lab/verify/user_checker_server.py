"""The server that forks one process for each call of a user checker.

The server is a fresh interpreter: it imports the checker's module and enters the sandbox. Requests
come through a pipe. The server reads only their header, which names the checker. The forked child
reads the problem and the answer from the same pipe. So a child inherits no gold and no other
answer, and everything that a checker does with an answer ends with the child. Replies are JSON.

A child that sees the gold may run no text as code. An audit hook
(https://docs.python.org/3/library/audit_events.html) ends it before such text runs. Text that
chooses calls and is never compiled, as in `yaml.unsafe_load`, raises no audit event. It can forge
no reply, since a reply needs a token, but a checker should leave such text to `read`.
"""

import collections
import dataclasses
import gc
import json
import os
import pickle
import resource
import select
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import IntEnum
from types import FrameType
from typing import Any, NoReturn

from reasoning_lab.config.targets import resolve, trusted_folders
from reasoning_lab.verify.programs.values import read_exactly
from reasoning_lab.verify.sandbox import (
    SandboxError,
    end_with_parent,
    enter_sandbox,
    forbid_child_processes,
    is_sandboxed,
)

MAX_REPLY_BYTES = 65_536
# The step, the length of the checker's path in bytes, and the child's CPU seconds; 0 = no limit.
HEADER = struct.Struct("=BII")
PAYLOAD_SIZE = struct.Struct("=I")
# Events that the server writes: one when it has started, one after the end of each child.
SANDBOXED, NOT_SANDBOXED, CALL_ENDED = b"S", b"U", b"E"
# A child writes this mark as soon as it has read its request.
CALL_STARTED = b"+"
# Fields of a reply.
VALUE, ERROR_NAME, ERROR_MESSAGE, REFUSED_EVENT = "value", "error", "text", "refused"

_CODE_EVENTS = {"exec", "marshal.loads", "pickle.find_class", "code.__new__", "function.__new__"}
_PROGRAM_EVENTS = {"os.exec", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen"}
_IMPORT_SYSTEM = "<frozen importlib._bootstrap"
# These modules compile code from names, and check that the names are identifiers.
_CODE_GENERATORS = {dataclasses.__file__, collections.__file__}
_MIB = 2**20


class Step(IntEnum):
    """The function of a user checker that a child calls."""

    CHECK = 0
    READ = 1
    MATCH = 2


_METHODS = {Step.READ: "read", Step.MATCH: "matches"}


def serve(requests: int, replies: int, events: int, memory_mb: int, parent: int) -> None:
    """Start one child for each request, until the pipe of requests is closed.

    Args:
        requests: File descriptor that headers are read from.
        replies: File descriptor that children write to.
        events: File descriptor that this server writes its events to.
        memory_mb: Most MiB of address space that a child may take beyond imports; 0 = no limit.
        parent: Process id of the parent, with which this process ends.
    """
    end_with_parent(parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A sandboxed process cannot open this file.
    memory_path = "/proc/self/statm" if sys.platform == "linux" else os.devnull
    memory_file = os.open(memory_path, os.O_RDONLY)
    with suppress(SandboxError):
        enter_sandbox(trusted_folders())
    os.write(events, SANDBOXED if is_sandboxed() else NOT_SANDBOXED)
    child_ended = _open_child_ended_pipe()
    imported: set[str] = set()
    address_space_limit = 0
    while header := read_exactly(requests, HEADER.size):
        step, length, cpu_s = HEADER.unpack(header)
        path = read_exactly(requests, length).decode()
        if path not in imported:
            # The child meets the same error and reports it.
            with suppress(Exception):
                resolve(path, "checker")
            imported.add(path)
            gc.collect()
            gc.freeze()
            if memory_mb:
                address_space_limit = _address_space_bytes(memory_file) + memory_mb * _MIB
        server = os.getpid()
        child = os.fork()
        if child == 0:
            end_with_parent(server)
            limits = {resource.RLIMIT_CPU: cpu_s, resource.RLIMIT_AS: address_space_limit}
            _serve_one(Step(step), path, (requests, replies, events), limits)
        _wait_for_child(child, child_ended, requests)
        # A child that was killed early left its request, which must not be read as a header.
        if select.select([requests], [], [], 0)[0]:
            return
        os.write(events, CALL_ENDED)


def _open_child_ended_pipe() -> int:
    """Return a file descriptor that becomes readable whenever a child has ended."""
    child_ended, wakeup = os.pipe()
    os.set_blocking(child_ended, False)
    os.set_blocking(wakeup, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    return child_ended


def _wait_for_child(child: int, child_ended: int, requests: int) -> None:
    """Wait for the child's end, or exit when the client closes the pipe of requests.

    Landlock keeps the kernel from signalling the end of a sandboxed worker to this process.
    """
    poll = select.poll()
    poll.register(child_ended, select.POLLIN)
    # With an empty event mask, only a closed pipe is reported.
    poll.register(requests, 0)
    while not os.waitpid(child, os.WNOHANG)[0]:
        if any(descriptor == requests for descriptor, _ in poll.poll()):
            # The kernel kills the child with its parent.
            os._exit(1)
        with suppress(BlockingIOError):
            os.read(child_ended, MAX_REPLY_BYTES)


def _serve_one(
    step: Step, path: str, pipes: tuple[int, int, int], limits: dict[int, int]
) -> NoReturn:
    """Read the request, restrict this child, call the checker, reply, and exit.

    Limits of 0 are none. The child cannot raise the others again.
    """
    requests, replies, events = pipes
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        (size,) = PAYLOAD_SIZE.unpack(read_exactly(requests, PAYLOAD_SIZE.size))
        token, arguments = pickle.loads(read_exactly(requests, size))
        os.close(requests)
        os.close(events)
        os.write(replies, CALL_STARTED)
        for limit, amount in limits.items():
            if amount:
                resource.setrlimit(limit, (amount, amount))
        if is_sandboxed():
            forbid_child_processes()
        if step is not Step.READ:
            sys.addaudithook(_refuse_code(replies, token))
        os.write(replies, token + _result_as_json(step, path, arguments))
    finally:
        os._exit(0)


def _address_space_bytes(memory_file: int) -> int:
    """Return the size of this process's address space; 0 where the system does not report it."""
    fields = os.pread(memory_file, 100, 0).split()
    return int(fields[0]) * resource.getpagesize() if fields else 0


def _result_as_json(step: Step, path: str, arguments: Sequence[Any]) -> bytes:
    """Call the checker's function and return its result or its error as JSON."""
    try:
        checker: Any = resolve(path, "checker")
        function = getattr(checker, _METHODS[step]) if step in _METHODS else checker
        value = function(*arguments)
        if step is not Step.READ and value is not None:
            value = bool(value)
        text = json.dumps({VALUE: value}, allow_nan=False)
        if len(text) > MAX_REPLY_BYTES // 2:
            raise ValueError(f"a value of more than {MAX_REPLY_BYTES // 2} characters")
    except Exception as error:
        name = "ValueError" if isinstance(error, ValueError) else type(error).__name__
        text = json.dumps({ERROR_NAME: name, ERROR_MESSAGE: str(error)[:1_000]})
    return text.encode()


def _refuse_code(replies: int, token: bytes) -> Callable[[str, tuple[Any, ...]], None]:
    """Return an audit hook that replies with the event and exits before any text runs."""

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _PROGRAM_EVENTS or (event in _CODE_EVENTS and not _is_import(sys._getframe(1))):
            os.write(replies, token + json.dumps({REFUSED_EVENT: event}).encode())
            os._exit(0)

    return refuse


def _is_import(caller: FrameType) -> bool:
    """Return whether an import or the standard library's code generators caused the event."""
    if caller.f_code.co_filename in _CODE_GENERATORS:
        return True
    frame: FrameType | None = caller
    while frame is not None and not frame.f_code.co_filename.startswith(_IMPORT_SYSTEM):
        frame = frame.f_back
    return frame is not None
