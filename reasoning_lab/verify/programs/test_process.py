"""The process of the tests of one program.

It runs the tests as their author wrote them, beside a reference to each name that the program
defines. To use such a name is a request to the process of the program (`program_process.py`). What
comes back is data, so the program cannot change what an assertion means, how values compare or what
has been counted. The tests are hostile too, as all data: they run isolated, and decide nothing but
the verdicts on their own problem.
"""

import ast
import builtins
import json
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

from reasoning_lab.verify.programs.program_process import (
    ARGUMENTS,
    CALL,
    CHANGED,
    ERROR,
    GET,
    KEYWORDS,
    NAME,
    SET,
    TARGET,
    VALUE,
    code_before,
    defined_names,
)
from reasoning_lab.verify.programs.values import (
    OBJECT,
    MessageError,
    from_json,
    receive,
    send,
    to_json,
    write_all,
)

# What is written: that a program is no Python, or the number of tests and then a byte for each.
NO_PYTHON, TESTED = b"N", b"T"
PASSED, FAILED = b"1", b"0"
COUNT = struct.Struct("=I")
# `all(map(f, items))` would take these for the end of the items.
_ENDS_OF_ITERATION = (StopIteration, StopAsyncIteration)
_CHECK = "check"
_RECORD = "__record__"


class ProgramEndedError(BaseException):
    """The process of the program ended or wrote no message; no `except Exception` hides it."""


def run_tests(request: bytes, calls: int, replies: int, results: int) -> None:
    """Test the program of another process, and write what came of it.

    Args:
        request: JSON with `tests`, `setup`, `reference`, `given_code` and `entry_point`.
        calls: File descriptor that requests to the program are written to.
        replies: File descriptor that its replies are read from.
        results: File descriptor that the results are written to.
    """
    content = json.loads(request)
    program = _Program(calls, replies)
    is_python = program.receive()
    if is_python is not True:
        return write_all(results, NO_PYTHON)
    entry_point: str | None = content["entry_point"]
    try:
        tests = [ast.parse(test) for test in content["tests"]]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        tests = []
    total = sum(_number_of_tests(test, entry_point) for test in tests)
    write_all(results, TESTED + COUNT.pack(total))
    if program.receive() is not True:
        return None
    namespace = _namespace(program, content["reference"], content["given_code"], entry_point)

    @contextmanager
    def record() -> Iterator[None]:
        outcome = FAILED
        try:
            yield
            outcome = PASSED
        except Exception:
            pass
        finally:
            write_all(results, outcome)

    namespace[_RECORD] = record
    with suppress(Exception):
        exec(content["setup"], namespace)
        for test in tests:
            _run(test, entry_point, namespace, record)
    return None


class _Program:
    """The requests to the process of the program."""

    def __init__(self, calls: int, replies: int) -> None:
        self._calls, self._replies = calls, replies

    def receive(self) -> Any:
        try:
            return receive(self._replies)
        except MessageError as error:
            raise ProgramEndedError(str(error)) from error

    def request(self, **content: Any) -> Any:
        try:
            send(self._calls, content)
        except BrokenPipeError as error:
            raise ProgramEndedError("the process ended") from error
        reply = self.receive()
        if not isinstance(reply, dict):
            raise ProgramEndedError("a message that is no reply")
        if ERROR in reply:
            raise _error(reply[ERROR])
        return reply

    def value(self, content: Any) -> Any:
        """Return the value in a reply."""
        return from_json(content, lambda number: _Reference(self, number))


class _Reference:
    """A name that the program defines, or an object that it returned.

    It can be called, and its attributes can be read and set. It equals only itself, and it has no
    truth, length or order, because the program would decide them.
    """

    __slots__ = ("_program", "_target")

    def __init__(self, program: _Program, target: str | int) -> None:
        object.__setattr__(self, "_program", program)
        object.__setattr__(self, "_target", target)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        program: _Program = object.__getattribute__(self, "_program")
        reply = program.request(
            kind=CALL,
            **{
                TARGET: object.__getattribute__(self, "_target"),
                ARGUMENTS: [to_json(argument, _refer) for argument in arguments],
                KEYWORDS: {name: to_json(value, _refer) for name, value in keywords.items()},
            },
        )
        value, changed = program.value(reply.get(VALUE)), reply.get(CHANGED)
        # Python's functions that change an argument return None. Another value beside a change
        # could make `assert f(x) == x` hold for any x.
        if value is None and isinstance(changed, dict):
            for number, content in changed.items():
                _update(arguments[int(number)], program.value(content))
        return value

    def __getattr__(self, name: str) -> Any:
        program: _Program = object.__getattribute__(self, "_program")
        target = object.__getattribute__(self, "_target")
        return program.value(program.request(kind=GET, **{TARGET: target, NAME: name}).get(VALUE))

    def __setattr__(self, name: str, value: Any) -> None:
        program: _Program = object.__getattribute__(self, "_program")
        target = object.__getattribute__(self, "_target")
        content = to_json(value, _refer)
        program.request(kind=SET, **{TARGET: target, NAME: name, VALUE: content})

    def __bool__(self) -> bool:
        raise TypeError("an object of the program has no truth; return a value")


def _refer(value: Any) -> Any:
    if isinstance(value, _Reference):
        target = object.__getattribute__(value, "_target")
        if isinstance(target, int):
            return {OBJECT: target}
    raise TypeError(f"a test passes a {type(value).__name__} to the program; pass data")


def _update(argument: Any, value: Any) -> None:
    """Make the change that the program made to its own copy of an argument."""
    if type(argument) is not type(value):
        return
    if isinstance(argument, list | bytearray):
        argument[:] = value
    elif isinstance(argument, dict | set):
        argument.clear()
        argument.update(value)


def _error(content: Any) -> Exception:
    """Return the program's error as one of Python's own types."""
    try:
        name, message = map(str, content)
        kind = getattr(builtins, name)
        if issubclass(kind, Exception) and kind not in _ENDS_OF_ITERATION:
            error: Exception = kind(message)
            return error
    except (ValueError, TypeError, AttributeError):
        pass
    return RuntimeError("an error of the program")


def _namespace(
    program: _Program, reference: str, given_code: str, entry_point: str | None
) -> dict[str, Any]:
    """Return the names that the tests may use.

    A name that the reference program defines refers to the program; with an entry point, only that
    name does. What the reference imports, and the code that the prompt gives, runs here. So a
    program that redefines `math` or a helper of the prompt changes no test.
    """
    namespace: dict[str, Any] = {"__name__": "tests"}
    module = ast.parse(reference)
    for node in module.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            with suppress(Exception):
                exec(compile(ast.Module([node], []), "tests", "exec"), namespace)
    if entry_point is not None:
        exec(code_before(given_code, entry_point), namespace)
    names = defined_names(module) if entry_point is None else {entry_point}
    return namespace | {name: _Reference(program, name) for name in names}


def _number_of_tests(test: ast.Module, entry_point: str | None) -> int:
    """Return how many tests a text has: each statement of `check` that asserts, else one.

    A text that asserts nothing is no test, and neither is `assert True`.
    """
    check = _check_function(test, entry_point)
    in_check = 0 if check is None else sum(map(_asserts, check.body))
    return in_check or int(_asserts(test))


def _check_function(test: ast.Module, entry_point: str | None) -> ast.FunctionDef | None:
    """Return HumanEval's function of a candidate; None where the text itself is the test."""
    functions = [node for node in test.body if isinstance(node, ast.FunctionDef)]
    checks = (function for function in functions if function.name == _CHECK)
    return None if entry_point is None else next(checks, None)


def _asserts(code: ast.AST) -> bool:
    """Return whether code asserts something that is not constant."""
    return any(
        isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant)
        for node in ast.walk(code)
    )


def _run(
    test: ast.Module,
    entry_point: str | None,
    namespace: dict[str, Any],
    record: Callable[[], AbstractContextManager[None]],
) -> None:
    """Run one text of tests, and record each test in it."""
    check = _check_function(test, entry_point)
    is_one_test = _asserts(test) and not (check and any(map(_asserts, check.body)))
    if check is not None:
        check.body = [_recorded(node) if _asserts(node) else node for node in check.body]
    code = compile(ast.fix_missing_locations(test), "tests", "exec")
    with record() if is_one_test else nullcontext():
        exec(code, namespace)
        if check is not None and entry_point is not None:
            namespace[_CHECK](namespace[entry_point])


def _recorded(statement: ast.stmt) -> ast.With:
    context = ast.Call(ast.Name(_RECORD, ast.Load()), [], [])
    return ast.With([ast.withitem(context)], [statement])
