"""No answer runs: attempts to escape through every checker leave no trace and change no verdict."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reasoning_lab.config.targets import TRUSTED_VARIABLE
from reasoning_lab.types import Problem, Verdict
from reasoning_lab.verify import Verifier
from reasoning_lab.verify.extraction import nesting_depth
from reasoning_lab.verify.gym.scorers import SCORERS
from tests.support.verification import (
    INTEGRAL,
    REPLACED_FAMILIES,
    SHIPPED_FAMILIES,
    boxed,
    generated_problems,
)

CORRECT, WRONG = Verdict.CORRECT, Verdict.WRONG

# Every attempt contains this mark, so its traces can be recognised.
MARK = "zqxmark"


# No other process writes the file `{path}` or listens on `{port}`.
ATTEMPTS = [
    "__import__('os').system('touch {path} #zqxmark')",
    "open('{path}', 'w').write('zqxmark')",
    "__import__('pathlib').Path('{path}').touch() or 'zqxmark'",
    "exec('import os; os.mkdir(chr(47) + {path!r}[1:]) #zqxmark')",
    "eval(compile('open({path!r}, chr(119))', 'zqxmark', 'eval'))",
    "().__class__.__base__.__subclasses__()[zqxmark]",
    "[c for c in ().__class__.__mro__[1].__subclasses__() if c.__name__ == 'zqxmark']",
    "(lambda zqxmark: open('{path}', 'w'))(0)",
    "(zqxmark := open('{path}', 'w'))",
    "f'{{open(chr(47) + {path!r}[1:], chr(119))}}zqxmark'",
    "__import__('subprocess').run(['touch', '{path}', 'zqxmark'])",
    "__import__('os').fork() and 'zqxmark'",
    "__import__('os').kill(__import__('os').getppid(), 9) or 'zqxmark'",
    "__import__('signal').alarm(1) or zqxmark",
    "__import__('os').environ.update({{'ZQXMARK': '1'}}) or 'zqxmark'",
    "__import__('socket').create_server(('127.0.0.1', {port})) and 'zqxmark'",
    "__import__('urllib.request').request.urlopen('http://127.0.0.1:{port}/zqxmark')",
    "__import__('ctypes').CDLL(None).system(b'touch {path} #zqxmark')",
    "__import__('ctypes').string_at(0) and 'zqxmark'",
    "setattr(__import__('sys').modules['reasoning_lab.verify.checkers'], 'check', lambda *a: 1)"
    " or 'zqxmark'",
    "__import__('sys').modules.clear() or 'zqxmark'",
    "__import__('reasoning_lab.types').types.Verdict.CORRECT or 'zqxmark'",
    "__import__('builtins').__dict__.update(len=lambda zqxmark: 0)",
    "__import__('gc').get_objects() and 'zqxmark'",
    "__import__('os')._exit(0) or 'zqxmark'",
    "[0] * 10**9 + ['zqxmark']",
    "9**9**9**9 + zqxmark",
    "Symbol('zqxmark').func.__globals__",
    'S(\'__import__("os").system("touch {path} #zqxmark")\')',
    "Function('zqxmark')(open('{path}', 'w'))",
    "lambdify(x, 'open({path!r}, chr(119)) and zqxmark')(1)",
    "sympify('open({path!r}, chr(119)) and zqxmark')",
    "x.__class__.__init__.__globals__['__builtins__']['open']('{path}', 'w') + zqxmark",
    # Python reads these full-width letters as ASCII.
    "\uff4f\uff50\uff45\uff4e('{path}', 'w') and zqxmark",
    "__\uff49\uff4d\uff50\uff4f\uff52\uff54__('os').system('touch {path} #zqxmark')",
    "1 if open('{path}', 'w') else zqxmark",
    "x**2 + C; open('{path}', 'w') #zqxmark",
    "x**2 + C\nimport os\nos.system('touch {path} #zqxmark')",
    "getattr(x, '_' + '_class_' + '_') + zqxmark",
    "(" * 60 + "zqxmark" + ")" * 60,
    "-" * 500 + "zqxmark",
    "zqxmark(zqxmark(zqxmark(1)))",
    "[zqxmark for zqxmark in iter(int, 1)]",
    "\\text{{open('{path}', 'w') and zqxmark}}",
    "\\operatorname{{exec}}(\\text{{open('{path}', 'w')}}) zqxmark",
]


USER_CHECKERS = """
class Evaluates:
    @staticmethod
    def read(answer):
        return eval(answer)

    @staticmethod
    def matches(problem, value):
        return value == int(problem.gold)
"""


PLAIN = [
    Problem("a formula?", "\\frac{1}{2}", "math", "f"),
    Problem("a number?", "18", "number", "f"),
    Problem("an option?", "C", "choice", "f", metadata={"choices": ["7", "8", "9"]}),
]


@pytest.fixture
def user_checker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Problem:
    (tmp_path / "checkers_that_evaluate.py").write_text(USER_CHECKERS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(TRUSTED_VARIABLE, "checkers_that_evaluate")
    return Problem("A user's checker?", "18", "checkers_that_evaluate.Evaluates", "f")


@pytest.fixture
def port() -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]


def test_attempts_to_escape_leave_no_trace_and_change_no_verdict(
    tmp_path: Path, port: int, user_checker: Problem
) -> None:
    families = [*SHIPPED_FAMILIES, *REPLACED_FAMILIES]
    targets = [*PLAIN, INTEGRAL, *(generated_problems(family)[0] for family in families)]
    trace_dir = tmp_path / "trace"
    texts = [attempt.format(path=trace_dir / "file", port=port) for attempt in ATTEMPTS]
    trace_dir.mkdir()
    wrong = [(targets[at % len(targets)], f"{at + 10_007}") for at in range(100)]
    right = [(target, target.gold + ("" if at % 2 else " ")) for at, target in enumerate(targets)]
    rest = [*wrong, *right]
    environment = dict(os.environ)
    with Verifier(workers=2, timeout_s=4, memory_mb=512) as verifier:
        before = verifier.verify([p for p, _ in rest], [boxed(a) for _, a in rest])
        pairs = [(target, text) for target in targets for text in texts]
        attempted = verifier.verify([p for p, _ in pairs], [boxed(text) for _, text in pairs])
        # A checker that evaluates runs every answer, but alone and in the sandbox.
        quick = [text for text in texts if "iter(int" not in text and "9**9" not in text]
        evaluated = verifier.verify([user_checker] * len(quick), [boxed(text) for text in quick])
        after = verifier.verify([p for p, _ in rest], [boxed(a) for _, a in rest])
        evaluated_after = verifier.verify([user_checker] * 2, [boxed("9 + 9"), boxed("19")])
    assert [v for _, v in before[:100] if v is CORRECT] == []
    assert {v for _, v in before[100:]} == {CORRECT}
    assert after == before
    assert [
        (p.checker, t) for (p, t), (_, v) in zip(pairs, attempted, strict=True) if v is CORRECT
    ] == []
    assert [text for text, (_, v) in zip(quick, evaluated, strict=True) if v is CORRECT] == []
    assert [v for _, v in evaluated_after] == [CORRECT, WRONG]
    assert list(trace_dir.iterdir()) == []
    assert dict(os.environ) == environment
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) != 0


WATCH = """
import json, os, sys
from reasoning_lab.types import Problem
from reasoning_lab.verify.checkers import check

problems, texts = json.load(sys.stdin)
problems = [Problem(**problem) for problem in problems]
for problem in problems:
    check(problem, problem.gold + " ")

def hook(event, arguments):
    if event in ("compile", "exec", "open", "import", "os.system", "subprocess.Popen"):
        if "zqxmark" in repr(arguments[:2])[:100_000]:
            # Exit before the attempt can reach the process that runs the tests.
            os.write(2, f"{event}: {arguments[:2]!r}"[:500].encode())
            os._exit(1)

sys.addaudithook(hook)
for problem in problems:
    for text in texts:
        check(problem, text)
"""


def test_no_text_of_an_answer_is_ever_compiled(tmp_path: Path, port: int) -> None:
    """Python's own audit events show what is compiled, imported and opened in one process."""
    lab_scored = [family for family in [*SHIPPED_FAMILIES, *REPLACED_FAMILIES] if family in SCORERS]
    problems = [
        *PLAIN,
        INTEGRAL,
        *(generated_problems(family)[0] for family in [*lab_scored, "gsm_symbolic"]),
    ]
    # The verifier refuses deeply nested answers, which take math-verify minutes.
    shallow = [attempt for attempt in ATTEMPTS if nesting_depth(attempt) < 12]
    texts = [text.format(path=tmp_path / MARK, port=port) for text in shallow]
    fields = ("prompt", "gold", "checker", "family", "metadata")
    rows = [{name: getattr(problem, name) for name in fields} for problem in problems]
    completed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WATCH],
        input=json.dumps([rows, texts], default=str),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert completed.returncode == 0, completed.stderr[-2_000:]
