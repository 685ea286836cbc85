"""Checkers of the user, which a problem names by import path.

A user checker has one of two forms:

- a function `checker(problem, answer)`, which compares and runs no text as code;
- an object, class or module with `read(answer)` and `matches(problem, value)`. `read` may evaluate
  the answer, never sees the problem, and returns a value that JSON can hold. `matches` compares
  that value with the problem's gold. Like a function, it runs no text as code.

A function and `matches` return True, False, or None for an answer that they cannot read. A
ValueError, as `int("five")` raises, counts as None. Every call has its own process, which
`user_checker_server` forks, so no answer can change another verdict. Text that is evaluated next to
the gold could decide its own verdict. A checker that tries this ends the run before the text runs.
"""

import builtins
import contextlib
import json
import math
import os
import pickle
import resource
import secrets
import select
import subprocess
import sys
import time
from typing import Any

from reasoning_lab.config.targets import TRUSTED_VARIABLE, resolve
from reasoning_lab.types import Problem, UserError, Verdict
from reasoning_lab.verify import user_checker_server
from reasoning_lab.verify.programs.values import write_all
from reasoning_lab.verify.sandbox import ALLOWED_VARIABLES, is_sandboxed
from reasoning_lab.verify.user_checker_server import Step
from reasoning_lab.verify.verdicts import refuse_gold, verdict_of

# An interpreter may need these variables to start; none of them is a secret.
_START_VARIABLES = (*ALLOWED_VARIABLES, "LD_LIBRARY_PATH", "PYTHONHOME")
_PROGRAM = (
    "import sys; sys.path[:] = {path!r}; "
    "from reasoning_lab.verify.user_checker_server import serve; serve{arguments!r}"
)
_MAX_MESSAGE_CHARS = 200


def check_with_user_checker(problem: Problem, answer: str) -> Verdict:
    """Return the verdict of the user's checker on `answer`.

    Any error of a function except ValueError is the checker's fault and ends the run. With
    `read` the answer itself may cause the error, so the answer is unparseable.

    Raises:
        UserError: The checker has neither form or runs text as code where the gold is, or this
            machine cannot sandbox the process of `read`.
        MemoryError: The process of the answer ended without a result.
    """
    is_correct, _ = _run_checker(problem, answer)
    return verdict_of(is_correct)


def require_accepted_gold(problem: Problem) -> None:
    """Raise UnreadableGoldError unless the checker accepts the problem's own gold.

    It also raises what `check_with_user_checker` raises.
    """
    is_correct, error = _run_checker(problem, problem.gold.strip())
    if not is_correct:
        details = f" ({type(error).__name__}: {str(error)[:_MAX_MESSAGE_CHARS]})" if error else ""
        refuse_gold(problem, "does not accept its own gold", details)


def start_checker_server(memory_mb: int = 0) -> None:
    """Start this process's checker server; the first call of a user checker starts it otherwise.

    One answer may take `memory_mb` MiB of address space beyond imports; 0 = no limit.
    """
    if _servers:
        _servers.pop().close()
    _servers.append(_CheckerServer(memory_mb))


def wait_for_checker_server() -> None:
    """Wait until the server that `start_checker_server` started accepts calls."""
    for server in _servers:
        server.wait()


def _run_checker(problem: Problem, answer: str) -> tuple[bool | None, Exception | None]:
    """Return the checker's result, or None and the error that makes the answer unparseable."""
    has_two_steps = _has_two_steps(problem)
    try:
        server = _running_server()
        if has_two_steps:
            value = server.call(Step.READ, problem, answer)
            is_correct = server.call(Step.MATCH, problem, value)
        else:
            is_correct = server.call(Step.CHECK, problem, answer)
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if not has_two_steps and not isinstance(error, ValueError):
            raise
        return None, error
    return None if is_correct is None else is_correct is True, None


def _has_two_steps(problem: Problem) -> bool:
    """Return which of the two forms the checker has, or raise UserError where it has neither."""
    checker = resolve(problem.checker, "checker")
    steps = [name for name in ("read", "matches") if callable(getattr(checker, name, None))]
    if len(steps) == 2:
        return True
    if steps or isinstance(checker, type) or not callable(checker):
        raise UserError(
            f"{problem.origin}: '{problem.checker}' is no checker; make it a function "
            "of a problem and an answer, or a class with static methods read(answer) and "
            "matches(problem, value)"
        )
    return False


class _CheckerServer:
    """The client's end of `user_checker_server.serve`."""

    def __init__(self, memory_mb: int) -> None:
        self.trusted = os.environ.get(TRUSTED_VARIABLE, "")
        server_requests, self._requests = os.pipe()
        self._replies, server_replies = os.pipe()
        self._events, server_events = os.pipe()
        self._start_event = b""
        server_pipes = (server_requests, server_replies, server_events)
        program = _PROGRAM.format(path=sys.path, arguments=(*server_pipes, memory_mb, os.getpid()))
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=server_pipes,
            env={name: os.environ[name] for name in _START_VARIABLES if name in os.environ},
        )
        for descriptor in server_pipes:
            os.close(descriptor)

    def wait(self) -> bool:
        """Wait until the server has started, and return whether it is sandboxed."""
        self._start_event = self._start_event or os.read(self._events, 1)
        if not self._start_event:
            raise RuntimeError("the server of the user checkers did not start")
        return self._start_event == user_checker_server.SANDBOXED

    def close(self) -> None:
        """End the server and the call that it serves."""
        self._process.kill()
        self._process.wait()
        for descriptor in (self._requests, self._replies, self._events):
            os.close(descriptor)

    def call(self, step: Step, problem: Problem, argument: Any) -> Any:
        """Return the result of one step of the problem's checker, computed in its own process.

        The argument is the answer, or the value that `read` returned. `read` gets no problem.

        Raises:
            UserError: The step is `read` and the server is not sandboxed, or the step sees the gold
                and was about to run text as code.
            MemoryError: The process ended without a result, or took longer than this process may
                still compute.
            Exception: The step raised this error; it is raised again by its name.
        """
        path = problem.checker
        if not self.wait() and step is Step.READ:
            raise UserError(
                f"{problem.origin}: '{path}.read' may run an answer as code, and this machine "
                "cannot isolate it; use a Linux kernel with Landlock and seccomp"
            )
        limit_s = _remaining_cpu_s()
        token = secrets.token_bytes(16)
        arguments = (argument,) if step is Step.READ else (problem, argument)
        header = user_checker_server.HEADER.pack(step, len(path.encode()), limit_s)
        payload = pickle.dumps((token, arguments))
        size = user_checker_server.PAYLOAD_SIZE.pack(len(payload))
        try:
            write_all(self._requests, header + path.encode() + size + payload)
            reply = self._read_reply(limit_s)
        except OSError as error:
            _discard_server(self)
            raise MemoryError(str(error)) from error
        prefix = user_checker_server.CALL_STARTED + token
        return _parse_reply(
            step, problem, reply[len(prefix) :] if reply.startswith(prefix) else b""
        )

    def _read_reply(self, limit_s: int) -> bytes:
        """Return what the child wrote until it ended; bytes beyond the maximum are dropped.

        Raises:
            OSError: The server ended, or the pipes are out of step with it.
            TimeoutError: The child took longer than `limit_s`.
        """
        poll = select.poll()
        poll.register(self._replies, select.POLLIN)
        poll.register(self._events, select.POLLIN)
        deadline = time.monotonic() + limit_s
        reply, has_ended = b"", False
        while True:
            wait_ms = max(0, deadline - time.monotonic()) * 1_000 if limit_s else None
            ready = {descriptor for descriptor, _ in poll.poll(0 if has_ended else wait_ms)}
            if self._replies in ready:
                part = os.read(self._replies, user_checker_server.MAX_REPLY_BYTES)
                if not part:
                    raise BrokenPipeError("the server of the user checkers ended")
                if len(reply) <= user_checker_server.MAX_REPLY_BYTES:
                    reply += part
            elif has_ended:
                break
            elif self._events in ready:
                if os.read(self._events, 1) != user_checker_server.CALL_ENDED:
                    raise BrokenPipeError("the server of the user checkers ended")
                has_ended = True
            elif not ready:
                raise TimeoutError("the process of an answer did not end")
        if not reply.startswith(user_checker_server.CALL_STARTED):
            raise BrokenPipeError("the process of an answer did not read its request")
        return reply


# Holds this process's server once it has started.
_servers: list[_CheckerServer] = []


def _running_server() -> _CheckerServer:
    if not _servers or _servers[0].trusted != os.environ.get(TRUSTED_VARIABLE, ""):
        start_checker_server()
    return _servers[0]


def _discard_server(server: _CheckerServer) -> None:
    """Drop a server whose pipes are out of step; a sandboxed worker exits with it."""
    if is_sandboxed():
        # A sandboxed worker can start no other server. The pool replaces the worker.
        os._exit(1)
    _servers.remove(server)
    server.close()


def _remaining_cpu_s() -> int:
    """Return the CPU seconds that this process may still use, at least one; 0 = no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_CPU)
    return 0 if soft == resource.RLIM_INFINITY else max(1, math.ceil(soft - time.process_time()))


def _parse_reply(step: Step, problem: Problem, reply: bytes) -> Any:
    """Return the value in a child's reply, or raise its error; the reply may be anything."""
    try:
        content = json.loads(reply)
        if user_checker_server.VALUE in content:
            return content[user_checker_server.VALUE]
        refused_event = content.get(user_checker_server.REFUSED_EVENT)
        name = str(content.get(user_checker_server.ERROR_NAME))
        message = str(content.get(user_checker_server.ERROR_MESSAGE))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise MemoryError("the process of an answer ended without a result") from error
    # An answer can write the reply of `read`, so that reply must not end a run.
    if refused_event is not None and step is not Step.READ:
        function = problem.checker + (".matches" if step is Step.MATCH else "")
        raise UserError(
            f"{problem.origin}: '{function}' runs text as code ({refused_event}), so an answer "
            "could decide its own verdict; move that into read(answer) of a checker in two steps "
            "(reasoning_lab/YOUR_OWN.md, 'A verifier that evaluates')"
        )
    error_type = getattr(builtins, name, None)
    failure: Exception = RuntimeError(f"{name}: {message}")
    if isinstance(error_type, type) and issubclass(error_type, Exception):
        # Some types take more arguments than a message.
        with contextlib.suppress(TypeError):
            failure = error_type(message)
    raise failure
