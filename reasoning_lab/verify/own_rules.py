"""Rules of the user's own, which a problem's checker names by import path.

A rule has one of two forms:

- a function `rule(problem, answer)`, which compares and runs no text as code;
- an object, class or module with `read(answer)` and `matches(problem, value)`. `read` may evaluate
  the answer, and never sees the problem. It returns what JSON can hold. `matches` compares that
  value with the problem's gold, and like a function runs no text as code.

The function and `matches` return True, False, or None for what they cannot read. A ValueError, as
`int("five")` raises, stands for None. Every call has a process of its own (`answer_process`), so
no answer changes another verdict. Text that decides its own verdict would have to run where the
gold is: a rule that runs text as code there ends the run, before the text runs.
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
from reasoning_lab.verify import answer_process
from reasoning_lab.verify.answer_process import Step
from reasoning_lab.verify.sandbox import KEPT_VARIABLES, is_sealed

# What an interpreter may need to start; none of it is a secret.
_START_VARIABLES = (*KEPT_VARIABLES, "LD_LIBRARY_PATH", "PYTHONHOME")
_PROGRAM = (
    "import sys; sys.path[:] = {path!r}; "
    "from reasoning_lab.verify.answer_process import serve; serve{arguments!r}"
)
_SHOWN_CHARS = 200


class _NotSealedError(Exception):
    """The process of `read` would not be sealed."""


class _RunsTextError(Exception):
    """A function that sees the gold was about to run text as code; holds the audit event."""


def check_own(problem: Problem, answer: str) -> Verdict:
    """Say whether the user's rule finds `answer` right.

    An error of a function other than ValueError is the rule's fault, and ends the run. After
    `read` it may be the answer's doing, so it makes the answer unparseable.

    Raises:
        UserError: The rule has neither form or runs text as code where the gold is, or this
            machine cannot seal the process of `read`.
        MemoryError: The process of the answer ended without a result.
    """
    in_two_steps = _is_in_two_steps(problem)
    try:
        right = _judge(problem, answer, in_two_steps)
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if not in_two_steps and not isinstance(error, ValueError):
            raise
        right = None
    if right is None:
        return Verdict.UNPARSEABLE
    return Verdict.CORRECT if right is True else Verdict.WRONG


def own_gold_complaint(problem: Problem) -> str | None:
    """Say why the rule does not find right the problem's own gold: None when it does, else ` (…)`.

    Raises:
        UserError: As in `check_own`.
        MemoryError: As in `check_own`.
    """
    in_two_steps = _is_in_two_steps(problem)
    try:
        right = _judge(problem, problem.gold.strip(), in_two_steps)
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if not in_two_steps and not isinstance(error, ValueError):
            raise
        return f" ({type(error).__name__}: {str(error)[:_SHOWN_CHARS]})"
    return None if right is True else ""


def start_answer_process(memory_mb: int = 0) -> None:
    """Start this process's answer process, which is otherwise started when first needed.

    Args:
        memory_mb: Most MiB of address space for one answer beyond imports; 0 = no limit.
    """
    if _running:
        _running.pop().close()
    _running.append(_AnswerProcess(memory_mb))


def await_answer_process() -> None:
    """Wait until the process that `start_answer_process` started can be called."""
    for process in _running:
        process.wait()


def _is_in_two_steps(problem: Problem) -> bool:
    """Which form the rule has.

    Raises:
        UserError: It has neither.
    """
    rule = resolve(problem.checker, "checker")
    steps = [name for name in ("read", "matches") if callable(getattr(rule, name, None))]
    if len(steps) == 2:
        return True
    if steps or isinstance(rule, type) or not callable(rule):
        raise UserError(
            f"{problem.origin}: checker '{problem.checker}' is no rule; make it a function "
            "of a problem and an answer, or a class with static methods read(answer) and "
            "matches(problem, value)"
        )
    return False


def _judge(problem: Problem, answer: str, in_two_steps: bool) -> bool | None:
    answers = _answer_process()
    path = problem.checker
    try:
        if not in_two_steps:
            right = answers.call(Step.JUDGE, path, problem, answer)
        else:
            value = answers.call(Step.READ, path, answer)
            right = answers.call(Step.MATCH, path, problem, value)
    except _NotSealedError:
        raise UserError(
            f"{problem.origin}: '{path}.read' may run an answer as code, and this machine "
            "cannot isolate it; use a Linux kernel with Landlock and seccomp"
        ) from None
    except _RunsTextError as error:
        function = f"{path}.matches" if in_two_steps else path
        raise UserError(
            f"{problem.origin}: '{function}' runs text as code ({error}), so an answer could "
            "decide its own verdict; let read(answer) of a rule in two steps do that (README, "
            "'A verifier')"
        ) from None
    return right if right is None else right is True


class _AnswerProcess:
    """The parent's side of `answer_process.serve`."""

    def __init__(self, memory_mb: int) -> None:
        self.trusted = os.environ.get(TRUSTED_VARIABLE, "")
        requests, self._requests = os.pipe()
        self._replies, replies = os.pipe()
        self._ends, ends = os.pipe()
        self._start_mark = b""
        theirs = (requests, replies, ends)
        program = _PROGRAM.format(path=sys.path, arguments=(*theirs, memory_mb, os.getpid()))
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=theirs,
            env={name: os.environ[name] for name in _START_VARIABLES if name in os.environ},
        )
        for descriptor in theirs:
            os.close(descriptor)

    def wait(self) -> bool:
        """Wait until the process has started, and say whether it is sealed."""
        if self._start_mark == b"":
            self._start_mark = os.read(self._ends, 1)
        if self._start_mark == b"":
            raise RuntimeError("the process that starts one for each answer did not start")
        return self._start_mark == answer_process.SEALED

    def close(self) -> None:
        """End the process and the answer in it."""
        self._process.kill()
        self._process.wait()
        for descriptor in (self._requests, self._replies, self._ends):
            os.close(descriptor)

    def call(self, step: Step, path: str, *arguments: Any) -> Any:
        """The result of one step of the rule in a process of its own.

        Raises:
            _RunsTextError: A step that sees the gold was about to run text as code.
            MemoryError: The process ended without a result, or lasts longer than this process
                may still compute.
            Exception: The error of the step, by its name.
        """
        if not self.wait() and step is Step.READ:
            raise _NotSealedError
        limit_s = _remaining_s()
        token = secrets.token_bytes(16)
        head = answer_process.HEAD.pack(step, len(path.encode()), limit_s)
        payload = pickle.dumps((token, arguments))
        size = answer_process.PAYLOAD_SIZE.pack(len(payload))
        try:
            _write_all(self._requests, head + path.encode() + size + payload)
            reply = self._reply(limit_s)
        except OSError as error:
            _forget(self)
            raise MemoryError(str(error)) from error
        mark = answer_process.STARTED + token
        return _result(step, reply[len(mark) :] if reply.startswith(mark) else b"")

    def _reply(self, limit_s: int) -> bytes:
        """What the child wrote until its end; what is too much is dropped.

        Raises:
            OSError: The pipes are no longer in step with the process.
            TimeoutError: It took longer than `limit_s`.
        """
        poll = select.poll()
        poll.register(self._replies, select.POLLIN)
        poll.register(self._ends, select.POLLIN)
        deadline = time.monotonic() + limit_s
        reply, ended = b"", False
        while True:
            wait_ms = max(0, deadline - time.monotonic()) * 1_000 if limit_s else None
            ready = {descriptor for descriptor, _ in poll.poll(0 if ended else wait_ms)}
            if self._replies in ready:
                part = os.read(self._replies, answer_process.MAX_REPLY_BYTES)
                if not part:
                    raise BrokenPipeError("the process that starts one for each answer ended")
                if len(reply) <= answer_process.MAX_REPLY_BYTES:
                    reply += part
            elif ended:
                break
            elif self._ends in ready:
                if os.read(self._ends, 1) != answer_process.ENDED:
                    raise BrokenPipeError("the process that starts one for each answer ended")
                ended = True
            elif not ready:
                raise TimeoutError("the process of an answer did not end")
        if not reply.startswith(answer_process.STARTED):
            raise BrokenPipeError("the process of an answer did not read its request")
        return reply


# Holds this process's answer process once it has started.
_running: list[_AnswerProcess] = []


def _answer_process() -> _AnswerProcess:
    if not _running or _running[0].trusted != os.environ.get(TRUSTED_VARIABLE, ""):
        start_answer_process()
    return _running[0]


def _forget(process: _AnswerProcess) -> None:
    """Give up an answer process whose pipes are out of step; a sealed worker ends with it."""
    if is_sealed():
        # It can start no other; the pool replaces the worker.
        os._exit(1)
    _running.remove(process)
    process.close()


def _remaining_s() -> int:
    """Seconds that this process may still compute, at least one; 0 = no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_CPU)
    return 0 if soft == resource.RLIM_INFINITY else max(1, math.ceil(soft - time.process_time()))


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _result(step: Step, reply: bytes) -> Any:
    """The value in a child's reply, or its error raised again; the reply may be anything."""
    try:
        content = json.loads(reply)
        if answer_process.VALUE in content:
            return content[answer_process.VALUE]
        refused = content.get(answer_process.REFUSED)
        name, text = str(content.get(answer_process.ERROR)), str(content.get(answer_process.TEXT))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise MemoryError("the process of an answer ended without a result") from error
    # The reply of `read` is the answer's to write, so it ends no run.
    if refused is not None and step is not Step.READ:
        raise _RunsTextError(str(refused))
    kind = getattr(builtins, name, None)
    failure: Exception = RuntimeError(f"{name}: {text}")
    if isinstance(kind, type) and issubclass(kind, Exception):
        # Some take more than a text.
        with contextlib.suppress(TypeError):
            failure = kind(text)
    raise failure
