"""The warm process that starts one process for each answer to a user's own rule.

It is a fresh interpreter: it imports the rule's module and seals itself. Requests come through a
pipe. Their head, which names the rule, is all that the warm process reads; its child reads the
problem and the answer from the same pipe. So a child inherits no gold and no other answer, and
whatever a rule does with an answer is lost with the child. Only JSON comes back.

A child that judges sees the gold, so it may run no text as code. An audit hook
(https://docs.python.org/3/library/audit_events.html) ends it before such text runs. A text that
chooses calls and is never compiled, as in `yaml.unsafe_load`, raises no event of its own. It can
forge no reply, which needs a token, but a rule should leave it to `read`.
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
from reasoning_lab.verify.sandbox import SandboxError, end_with_parent, give_up_children, seal

MAX_REPLY_BYTES = 65_536
# The step, the length of the rule's path in bytes, and the CPU seconds of the child; 0 = no limit.
HEAD = struct.Struct("=BII")
PAYLOAD_SIZE = struct.Struct("=I")
# What the warm process writes: when it starts, and after the end of a child.
SEALED, UNSEALED, ENDED = b"S", b"U", b"E"
# What a child writes as soon as it has read its request.
STARTED = b"+"
# Fields of a reply.
VALUE, ERROR, TEXT, REFUSED = "value", "error", "text", "refused"

_RUNS_CODE = {"exec", "marshal.loads", "pickle.find_class", "code.__new__", "function.__new__"}
_STARTS_PROGRAM = {"os.exec", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen"}
_IMPORTS = "<frozen importlib._bootstrap"
# These write code from names that they hold to the grammar of identifiers.
_CODE_WRITERS = {dataclasses.__file__, collections.__file__}
_MIB = 2**20


class Step(IntEnum):
    """Which function of a rule a child calls."""

    JUDGE = 0
    READ = 1
    MATCH = 2


_FUNCTIONS: dict[Step, Callable[[Any], Callable[..., Any]]] = {
    Step.JUDGE: lambda rule: rule,
    Step.READ: lambda rule: rule.read,
    Step.MATCH: lambda rule: rule.matches,
}


def serve(requests: int, replies: int, ends: int, memory_mb: int, parent: int) -> None:
    """Start one child for each request, until the pipe of requests is closed.

    Args:
        requests: File descriptor that heads are read from.
        replies: File descriptor that children write to.
        ends: File descriptor of this process's own words.
        memory_mb: Most MiB of address space that a child may take beyond imports; 0 = no limit.
        parent: Process id of the parent, with which this process ends.
    """
    end_with_parent(parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory_file = _open_memory_file()
    try:
        seal(trusted_folders())
        sealed = True
    except SandboxError:
        sealed = False
    os.write(ends, SEALED if sealed else UNSEALED)
    woken = _waking_pipe()
    warm: set[str] = set()
    limit = 0
    while head := read_exactly(requests, HEAD.size):
        step, length, cpu_s = HEAD.unpack(head)
        path = read_exactly(requests, length).decode()
        if path not in warm:
            # The child meets the same error and reports it.
            with suppress(Exception):
                resolve(path, "checker")
            warm.add(path)
            gc.collect()
            gc.freeze()
            limit = _address_space(memory_file) + memory_mb * _MIB if memory_mb else 0
        this = os.getpid()
        child = os.fork()
        if child == 0:
            end_with_parent(this)
            _serve_one(Step(step), path, (requests, replies, ends), (cpu_s, limit), sealed)
        _wait_for(child, woken, requests)
        # A child that was killed early left its request, which must not be read as a head.
        if select.select([requests], [], [], 0)[0]:
            return
        os.write(ends, ENDED)


def _waking_pipe() -> int:
    """A file descriptor that can be read whenever a child has ended."""
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    return woken


def _wait_for(child: int, woken: int, requests: int) -> None:
    """Wait for the child's end, or end with it when the pipe of requests is closed.

    Landlock keeps the kernel from telling this process of the end of a sealed worker.
    """
    poll = select.poll()
    poll.register(woken, select.POLLIN)
    # Without an event, only a closed pipe is reported.
    poll.register(requests, 0)
    while not os.waitpid(child, os.WNOHANG)[0]:
        if any(descriptor == requests for descriptor, _ in poll.poll()):
            # The kernel kills the child with its parent.
            os._exit(1)
        with suppress(BlockingIOError):
            os.read(woken, MAX_REPLY_BYTES)


def read_exactly(descriptor: int, size: int) -> bytes:
    """Read `size` bytes and not one more; empty when the other side has closed the pipe."""
    parts = []
    while size and (part := os.read(descriptor, min(size, MAX_REPLY_BYTES))):
        parts.append(part)
        size -= len(part)
    return b"" if size else b"".join(parts)


def _serve_one(
    step: Step, path: str, pipes: tuple[int, int, int], limits: tuple[int, int], sealed: bool
) -> NoReturn:
    """Read the request, give up what a child does not need, call the rule, reply, and end."""
    requests, replies, ends = pipes
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        (size,) = PAYLOAD_SIZE.unpack(read_exactly(requests, PAYLOAD_SIZE.size))
        token, arguments = pickle.loads(read_exactly(requests, size))
        os.close(requests)
        os.close(ends)
        os.write(replies, STARTED)
        _limit(*limits)
        if sealed:
            give_up_children()
        if step is not Step.READ:
            sys.addaudithook(_refusal(replies, token))
        os.write(replies, token + _outcome(step, path, arguments))
    finally:
        os._exit(0)


def _open_memory_file() -> int:
    """The file that holds this process's size, which a sealed process cannot open."""
    return os.open("/proc/self/statm" if sys.platform == "linux" else os.devnull, os.O_RDONLY)


def _address_space(memory_file: int) -> int:
    """Bytes of this process's address space; 0 where the system does not say."""
    fields = os.pread(memory_file, 100, 0).split()
    return int(fields[0]) * resource.getpagesize() if fields else 0


def _limit(cpu_s: int, address_space: int) -> None:
    """Set limits that this process cannot raise again; 0 = none."""
    if cpu_s:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    if address_space:
        resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))


def _outcome(step: Step, path: str, arguments: Sequence[Any]) -> bytes:
    """The result or the error of the rule's function as JSON."""
    try:
        rule: Any = resolve(path, "checker")
        value = _FUNCTIONS[step](rule)(*arguments)
        if step is not Step.READ and value is not None:
            value = bool(value)
        text = json.dumps({VALUE: value}, allow_nan=False)
        if len(text) > MAX_REPLY_BYTES // 2:
            raise ValueError(f"a value of more than {MAX_REPLY_BYTES // 2} characters")
    except Exception as error:
        name = "ValueError" if isinstance(error, ValueError) else type(error).__name__
        text = json.dumps({ERROR: name, TEXT: str(error)[:1_000]})
    return text.encode()


def _refusal(replies: int, token: bytes) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook that replies with the event and ends the process before any text runs."""

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _STARTS_PROGRAM or (event in _RUNS_CODE and not _is_import(sys._getframe(1))):
            os.write(replies, token + json.dumps({REFUSED: event}).encode())
            os._exit(0)

    return refuse


def _is_import(caller: FrameType) -> bool:
    """Whether an event belongs to an import, or to the standard library's own code writers."""
    if caller.f_code.co_filename in _CODE_WRITERS:
        return True
    frame: FrameType | None = caller
    while frame is not None:
        if frame.f_code.co_filename.startswith(_IMPORTS):
            return True
        frame = frame.f_back
    return False
