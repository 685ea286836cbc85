"""A sandboxed process of an answer reaches no file, network, process or secret."""

import os
from pathlib import Path

import pytest

from reasoning_lab.config.targets import TRUSTED_VARIABLE
from reasoning_lab.types import Problem, Verdict
from reasoning_lab.verify.checkers import check
from reasoning_lab.verify.sandbox import is_available

CHECKER = """
import os, pathlib, socket

def read(answer):
    try:
        eval(answer, {"os": os, "Path": pathlib.Path, "socket": socket})
    except PermissionError:
        return "refused"
    return "reached"

def matches(problem, value):
    return value == problem.gold
"""


@pytest.mark.skipif(not is_available(), reason="this kernel has no Landlock")
def test_the_process_of_an_answer_reaches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkers").mkdir()
    (tmp_path / "checkers" / "checker_that_attempts.py").write_text(CHECKER)
    monkeypatch.syspath_prepend(tmp_path / "checkers")
    # A package, so that its module may be named.
    (tmp_path / "checkers" / "package_that_attempts").mkdir()
    (tmp_path / "checkers" / "package_that_attempts" / "__init__.py").write_text(
        "import checker_that_attempts as checker"
    )
    monkeypatch.setenv(TRUSTED_VARIABLE, "package_that_attempts")
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    pid = os.getpid()
    attempts = {
        "write": f"Path({str(tmp_path / 'new')!r}).touch()",
        "read": f"Path({str(secret)!r}).read_text()",
        "remove": f"Path({str(secret)!r}).unlink()",
        "mode": f"Path({str(secret)!r}).chmod(0o777)",
        "times": f"os.utime({str(secret)!r})",
        "memory of the verifier": f"Path('/proc/{pid}/mem').read_bytes()",
        "memory of the parent": "Path(f'/proc/{os.getppid()}/mem').read_bytes()",
        "signal": f"os.kill({pid}, 0)",
        "signal to the parent": "os.kill(os.getppid(), 0)",
        "network": "socket.socket()",
        "local socket": "socket.socket(socket.AF_UNIX)",
        "fork": "os.fork()",
        "program": "os.execv('/bin/true', ['true'])",
        "limits of the parent": f"os.sched_setaffinity({pid}, {{0}})",
        "own limits": "__import__('resource').prlimit(0, 7, (20, 20))",
    }
    problem = Problem("?", "refused", "package_that_attempts.checker", "f")
    assert {name: check(problem, text) for name, text in attempts.items()} == dict.fromkeys(
        attempts, Verdict.CORRECT
    )
    assert check(problem, "1 + 1") is Verdict.WRONG
    # A name that is missing raises KeyError, which leaves the answer without a value.
    assert check(problem, "os.environ['SECRET_TOKEN']") is Verdict.UNPARSEABLE
    assert secret.read_text() == "hunter2"
