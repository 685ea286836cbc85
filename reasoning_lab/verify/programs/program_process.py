"""The process of one program: it runs the program and calls its functions when the tests ask.

Everything here may be replaced, read or closed by the program itself. So nothing here decides:
the process knows no test and no expected value, and its replies are values that the tests check.
"""

import ast
import json
import sys
import types
from collections.abc import Mapping
from typing import Any

from reasoning_lab.verify.programs.values import (
    OBJECT,
    MessageError,
    from_json,
    receive,
    send,
    to_json,
)

# Fields of a request, and its kinds.
TARGET, ARGUMENTS, KEYWORDS, NAME, VALUE = "target", "arguments", "keywords", "name", "value"
CALL, GET, SET = "call", "get", "set"
# Fields of a reply.
CHANGED, ERROR = "changed", "error"
_MUTABLE = (list, dict, set, bytearray)
_MODULE = "program"


def run_program(request: bytes, calls: int, replies: int) -> None:
    """Run a program, then answer requests until the tests end.

    The first message says whether it is Python, the second whether it ran without an error.

    Args:
        request: JSON with `program`, `given_code` and `entry_point`.
        calls: File descriptor that requests are read from.
        replies: File descriptor that replies are written to.
    """
    content = json.loads(request)
    try:
        code = _compiled(content["program"], content["given_code"], content["entry_point"])
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return send(replies, False)
    send(replies, True)
    module = types.ModuleType(_MODULE)
    sys.modules[_MODULE] = module
    try:
        exec(code, module.__dict__)
    except Exception:
        return send(replies, False)
    send(replies, True)
    objects: list[Any] = []
    while True:
        try:
            request_of_tests = receive(calls)
        except MessageError:
            return None
        _reply(request_of_tests, replies, module, objects)


def _compiled(program: str, given_code: str, entry_point: str | None) -> types.CodeType:
    """Return the code of a whole program.

    A program that does not define the entry point continues the prompt, as a base model does. One
    that does may still need the imports and helpers that the prompt gave it.
    """
    if entry_point is None:
        return compile(program, _MODULE, "exec")
    try:
        is_whole = entry_point in defined_names(ast.parse(program))
    except SyntaxError:
        is_whole = False
    source = f"{code_before(given_code, entry_point)}\n{program}" if is_whole else None
    return compile(source or f"{given_code}\n{program}", _MODULE, "exec")


def defined_names(module: ast.Module) -> set[str]:
    """Return the names of the functions, classes and variables at the top of a module."""
    names = set()
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            stored = (name for target in targets for name in ast.walk(target))
            names |= {name.id for name in stored if isinstance(name, ast.Name)}
    return names


def code_before(code: str, function: str) -> str:
    """Return the lines before the definition of a function; all where it is not there."""
    lines = code.splitlines()
    starts = (f"def {function}(", f"async def {function}(", f"class {function}")
    ends = (number for number, line in enumerate(lines) if line.startswith(starts))
    return "\n".join(lines[: next(ends, len(lines))])


def _reply(
    request: Mapping[str, Any], replies: int, module: types.ModuleType, objects: list[Any]
) -> None:
    """Do what the tests ask, and reply with the value or the error."""
    try:
        reply = _result(request, module, objects)
        send(replies, reply)
    except Exception as error:
        # Its class may be the program's own; the tests know only the base that Python has.
        kinds = (kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")
        send(replies, {ERROR: [next(kinds), str(error)[:1_000]]})


def _result(
    request: Mapping[str, Any], module: types.ModuleType, objects: list[Any]
) -> dict[str, Any]:
    def refer(value: Any) -> Any:
        if type(value).__module__ == "numpy" and hasattr(value, "item"):
            return to_json(value.item(), refer)
        objects.append(value)
        return {OBJECT: len(objects) - 1}

    path = request[TARGET]
    target = objects[path] if isinstance(path, int) else _global(module, path)
    if request["kind"] == GET:
        return {VALUE: to_json(getattr(target, request[NAME]), refer)}
    if request["kind"] == SET:
        setattr(target, request[NAME], from_json(request[VALUE], objects.__getitem__))
        return {VALUE: None}
    arguments = [from_json(item, objects.__getitem__) for item in request[ARGUMENTS]]
    keywords = {k: from_json(v, objects.__getitem__) for k, v in request[KEYWORDS].items()}
    value = target(*arguments, **keywords)
    if value is not None:
        return {VALUE: to_json(value, refer)}
    after = {
        str(number): to_json(argument, refer)
        for number, argument in enumerate(arguments)
        if isinstance(argument, _MUTABLE)
    }
    before = request[ARGUMENTS]
    return {VALUE: None, CHANGED: {n: a for n, a in after.items() if a != before[int(n)]}}


def _global(module: types.ModuleType, name: str) -> Any:
    try:
        return module.__dict__[name]
    except KeyError:
        raise NameError(f"name '{name}' is not defined") from None
