"""Checkers of the user that evaluate: no answer can change its own verdict or another one."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from reasoning_lab.config.targets import TRUSTED_VARIABLE
from reasoning_lab.types import Problem, UserError, Verdict
from reasoning_lab.verify import Verifier
from reasoning_lab.verify.checkers import check, gold_error
from reasoning_lab.verify.sandbox import is_available

needs_sandbox = pytest.mark.skipif(not is_available(), reason="this kernel has no Landlock")
CORRECT, WRONG, UNPARSEABLE = Verdict.CORRECT, Verdict.WRONG, Verdict.UNPARSEABLE

RULES = """
import ast, base64, marshal, pickle, subprocess, types
from collections import namedtuple
from dataclasses import dataclass

import yaml

# A module may evaluate while it is imported.
SEVEN = eval("7")

def evaluates(problem, answer):
    try:
        return eval(answer) == 7
    except BaseException:
        return False

def executes(problem, answer):
    try:
        exec(answer)
    finally:
        return False

def calls(problem, answer):
    return types.FunctionType(compile(answer, __file__, "eval"), {})() == 7

def parses(problem, answer):
    from sympy.parsing.sympy_parser import parse_expr
    return parse_expr(answer) == 7

def unpickles(problem, answer):
    return pickle.loads(base64.b64decode(answer)) == 7

def unmarshals(problem, answer):
    return marshal.loads(base64.b64decode(answer)) == 7

def loads_yaml(problem, answer):
    return yaml.unsafe_load(answer) == 7

def starts(problem, answer):
    return subprocess.run(["python", "-c", answer]).returncode == 0

def same(problem, answer):
    return int(answer) == int(problem.gold)

def honest(problem, answer):
    from late_import import Late
    Pair = namedtuple("Pair", "left right")

    @dataclass
    class Box:
        value: object

    return Box(Pair(Late(ast.literal_eval(answer)).value, SEVEN)).value == Pair(7, 7)

class Evaluates:
    @staticmethod
    def read(answer):
        return eval(answer)

    @staticmethod
    def matches(problem, value):
        return abs(value - float(problem.gold)) < 1e-9

class Clean:
    @staticmethod
    def read(answer):
        return eval(answer)

    @staticmethod
    def matches(problem, value):
        return value == "clean" if problem.gold else None

class MatchesEvaluates:
    @staticmethod
    def read(answer):
        return answer

    @staticmethod
    def matches(problem, value):
        return eval(value) == 7

class Half:
    @staticmethod
    def read(answer):
        return answer

number = 7
"""
LATE = "from dataclasses import dataclass\n@dataclass\nclass Late:\n    value: int\n"


@pytest.fixture(autouse=True, scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the checkers; one server serves all tests of this file."""
    folder = tmp_path_factory.mktemp("rules")
    (folder / "user_module.py").write_text(RULES)
    (folder / "late_import.py").write_text(LATE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv(TRUSTED_VARIABLE, "user_module")
        yield folder


def problem(name: str, gold: str = "7") -> Problem:
    return Problem("Which?", gold, f"user_module.{name}", "f")


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("evaluates", "7"),
        ("evaluates", "__import__('os').write(6, b'{\"value\": true}')"),
        ("executes", "import sys; sys._getframe(1).f_locals"),
        ("calls", "7"),
        ("parses", "3 + 4"),
        # Two pickles: of `os.getcwd()` and of the text `x`.
        ("unpickles", "Y29zCmdldGN3ZAoodFIu"),
        ("unmarshals", "6QcAAAA="),
        ("loads_yaml", "!!python/object/apply:eval ['7']"),
        ("loads_yaml", "!!python/object/apply:os.system ['true']"),
        ("starts", "7"),
        ("MatchesEvaluates", "7"),
    ],
)
def test_no_text_runs_where_the_gold_is(name: str, answer: str) -> None:
    with pytest.raises(UserError, match=rf"'user_module\.{name}.*' runs text as code .*YOUR_OWN"):
        check(problem(name), answer)


def test_a_checker_that_evaluates_is_refused_with_its_gold() -> None:
    with pytest.raises(UserError, match="runs text as code"):
        gold_error(problem("evaluates"))


def test_no_call_that_text_chooses_can_write_a_verdict() -> None:
    """YAML may call `os.write`, which is no audit event; the reply needs a token."""
    for descriptor in range(3, 40):
        write = f"!!python/object/apply:os.write [{descriptor}, !!binary eyJ2YWx1ZSI6IHRydWV9]"
        with pytest.raises((MemoryError, OSError)):
            check(problem("loads_yaml"), f"[{write}, !!python/object/apply:os._exit [0]]")


def test_a_checker_that_compares_may_import_late_and_build_classes() -> None:
    assert check(problem("honest"), "7") is CORRECT
    assert check(problem("honest"), "8") is WRONG
    assert check(problem("honest"), "open('x')") is UNPARSEABLE


@needs_sandbox
@pytest.mark.parametrize(
    "answer",
    [
        "8",
        "[7]",
        "{'value': True}",
        "True",
        "float('nan')",
        "object()",
        "'7' * 10**6",
        "__import__('nothing')",
        "1/0",
        "exit()",
        "(_ for _ in ()).throw(KeyboardInterrupt)",
        "[__import__('os').write(f, b'{\"value\": 7}') for f in range(3, 40)]",
        "[__import__('os').closerange(0, 100), 7][2]",
        "__import__('os')._exit(0)",
        "__import__('builtins').__dict__.clear()",
        "__import__('sys').modules.clear() or 7.5",
        # Replies that pretend to come from a step that sees the gold, or to be an error.
        "__import__('json').__dict__.update(dumps=lambda *a, **k: '{\"refused\": \"exec\"}')",
        "__import__('json').__dict__.update(dumps=lambda *a, **k: '{\"error\": \"KeyError\"}')",
        "__import__('json').__dict__.update(dumps=lambda *a, **k: '[' * 10**4)",
    ],
)
def test_an_evaluated_answer_is_correct_only_with_the_right_value(answer: str) -> None:
    try:
        assert check(problem("Evaluates"), answer) in (WRONG, UNPARSEABLE)
    except MemoryError:
        # The verifier makes a timeout of it.
        assert answer not in ("8", "1/0")
    assert check(problem("Evaluates"), "3.5 * 2") is CORRECT
    assert check(problem("Evaluates"), "3.5 * 3") is WRONG


def search(mark: str) -> str:
    """An answer that is "clean" when no object of its process holds `mark` or is a problem."""
    return (
        "(lambda gc, mark: 'seen' if any("
        "p is not mark and mark in str(p) if isinstance(p, (str, bytes)) "
        "else type(p).__name__ == 'Problem' "
        "for o in gc.get_objects() for p in (o, *gc.get_referents(o))) else 'clean')"
        f"(__import__('gc'), '-'.join({mark.split('-')}))"
    )


@needs_sandbox
def test_the_process_that_evaluates_an_answer_never_saw_a_gold(rules: Path) -> None:
    secret = problem("Clean", gold="-".join(["gold", "of", "nobody"]))
    assert check(secret, "'clean'") is CORRECT
    assert check(secret, search(secret.gold)) is CORRECT
    # The search finds what is there.
    assert check(secret, search("Evaluates")) is WRONG
    # The server that forked it has seen no gold either.
    (server,) = processes_of(rules)
    assert secret.gold.encode() not in memory_of(server)
    assert b"user_module.Clean" in memory_of(server)


@needs_sandbox
def test_an_answer_that_does_not_end_costs_only_itself(rules: Path) -> None:
    servers = processes_of(rules)
    texts = ["3 + 4", "[0] * 10**9", "any(iter(int, 1))", "__import__('os')._exit(0)"]
    texts += ["__import__('time').sleep(600)", "8", "7.0"]
    target = problem("Evaluates")
    with Verifier(workers=2, timeout_s=1, memory_mb=256) as verifier:
        verified = verifier.verify([target] * len(texts), [f"\\boxed{{{text}}}" for text in texts])
        assert len(processes_of(rules)) > len(servers)
    timeout = Verdict.TIMEOUT
    verdicts = [CORRECT, timeout, timeout, timeout, timeout, WRONG, CORRECT]
    assert [verdict for _, verdict in verified] == verdicts
    deadline = time.monotonic() + 10
    while processes_of(rules) != servers and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(rules) == servers


@needs_sandbox
def test_an_error_in_two_steps_makes_an_answer_unparseable_and_a_gold_unreadable() -> None:
    assert check(problem("Evaluates"), "nothing_of_this_name") is UNPARSEABLE
    assert check(problem("Evaluates"), "'text'") is UNPARSEABLE
    complaint = gold_error(problem("Evaluates", gold="nothing_of_this_name"))
    assert "does not accept its own gold" in str(complaint)
    assert "NameError" in str(complaint)
    assert gold_error(problem("Evaluates", gold="7")) is None


def test_an_object_of_neither_form_is_refused() -> None:
    for name in ("Half", "number"):
        with pytest.raises(UserError, match=rf"'user_module.{name}' is no checker; make it"):
            check(problem(name), "7")


# The kernel stacks at most 16 rulesets, so that no further one can be added.
WITHOUT_SANDBOX = """
import ctypes, struct
from reasoning_lab.types import Problem, UserError
from reasoning_lab.verify.user_checkers import check_with_user_checker as check

libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)
making_sockets = struct.pack("=Q", 1 << 9)
for _ in range(16):
    ruleset = libc.syscall(444, making_sockets, len(making_sockets), 0)
    assert libc.syscall(446, ruleset, 0) == 0
print(check(Problem("?", "7", "user_module.same", "f"), "07"))
for name in ("Evaluates", "evaluates"):
    try:
        check(Problem("?", "7", f"user_module.{name}", "f"), "7")
    except UserError as error:
        print(error)
"""


@needs_sandbox
def test_without_a_sandbox_only_a_checker_with_two_steps_is_refused(rules: Path) -> None:
    completed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT_SANDBOX],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([".", str(rules)])},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    same, two_steps, function = completed.stdout.splitlines()
    assert same == "correct"
    assert "'user_module.Evaluates.read'" in two_steps
    assert "cannot isolate it" in two_steps
    assert "'user_module.evaluates' runs text as code" in function


def processes_of(rules: Path) -> set[int]:
    """Pids of the servers that import from this test's folder, and of their children."""
    pids = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            command = (folder / "cmdline").read_bytes()
            if b"user_checker_server" in command and str(rules).encode() in command:
                pids.add(int(folder.name))
    return pids


def memory_of(pid: int) -> bytes:
    parts = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights = line.split()[:2]
            start, end = (int(number, 16) for number in span.split("-"))
            if "w" in rights and end - start < 2**28:
                memory.seek(start)
                parts.append(memory.read(end - start) or b"")
    return b"".join(parts)
