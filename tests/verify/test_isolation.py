"""No answer runs: attempts to escape through every checker leave no trace and change no verdict."""

import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import reasoning_gym
from reasoning_gym.factory import DATASETS

from reasoning_lab.config.targets import TRUSTED_VARIABLE
from reasoning_lab.data.sources.reasoning_gym import ReasoningGymSource
from reasoning_lab.types import Problem, UserError, Verdict
from reasoning_lab.verify import Verifier
from reasoning_lab.verify.checkers import check, gold_error
from reasoning_lab.verify.extraction import nesting_depth
from reasoning_lab.verify.gym.answer_patterns import ANSWER_PATTERNS
from reasoning_lab.verify.gym.families import REFUSED_FAMILIES, REVIEWED_FAMILIES
from reasoning_lab.verify.gym.scorers import REPLACED_SCORERS

CORRECT, WRONG, UNPARSEABLE = Verdict.CORRECT, Verdict.WRONG, Verdict.UNPARSEABLE
# Part of every attempt, so that a trace of one can be told from everything else.
MARK = "zqxmark"

# `{path}` is a file that nobody else writes, `{port}` a port that nobody else listens on.
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

SHIPPED = {
    "basic_arithmetic": {},
    "bitwise_arithmetic": {},
    "calendar_arithmetic": {},
    "chain_sum": {},
    "complex_arithmetic": {},
    "count_primes": {},
    "decimal_chain_sum": {"max_decimal_places": 3},
    "dice": {},
    "fraction_simplification": {},
    "gcd": {},
    "gsm_symbolic": {},
    "lcm": {},
    "leg_counting": {},
    "polynomial_equations": {"max_degree": 3},
    "polynomial_multiplication": {"max_polynomials": 2},
    "prime_factorization": {},
    "products": {},
    "simple_equations": {},
    "simple_integration": {"max_terms": 3},
}
# Their scorers evaluate text, or call anything correct.
REPLACED = [
    "binary_matrix",
    "coin_flip",
    "countdown",
    "game_of_life_halting",
    "n_queens",
    "number_sorting",
    "puzzle24",
    "spiral_matrix",
    "string_insertion",
]
OWN_RULES = """
class Evaluates:
    @staticmethod
    def read(answer):
        return eval(answer)

    @staticmethod
    def matches(problem, value):
        return value == int(problem.gold)
"""


def items_of(family: str, count: int = 1) -> list[Problem]:
    dataset = reasoning_gym.create_dataset(family, seed=5, size=count, **SHIPPED.get(family, {}))
    return [problem_of(family, dataset[at]) for at in range(count)]


def problem_of(family: str, entry: dict[str, Any]) -> Problem:
    return Problem(
        entry["question"],
        entry["answer"],
        f"reasoning_gym/{family}",
        family,
        metadata=entry["metadata"],
    )


INTEGRAL = Problem(
    "Integrate x*cos(x).",
    "x*sin(x) + cos(x) + C",
    "reasoning_gym/intermediate_integration",
    "f",
    metadata={"integrand": "x*cos(x)", "variable": "x"},
)
PLAIN = [
    Problem("a formula?", "\\frac{1}{2}", "math", "f"),
    Problem("a number?", "18", "number", "f"),
    Problem("an option?", "C", "choice", "f", metadata={"choices": ["7", "8", "9"]}),
]


def box(answer: str) -> str:
    return f"\\boxed{{{answer}}}"


@pytest.fixture
def own_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Problem:
    (tmp_path / "rules_that_evaluate.py").write_text(OWN_RULES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(TRUSTED_VARIABLE, "rules_that_evaluate")
    return Problem("Of one's own?", "18", "rules_that_evaluate.Evaluates", "f")


@pytest.fixture
def port() -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]


def test_attempts_to_escape_leave_no_trace_and_change_no_verdict(
    tmp_path: Path, port: int, own_rule: Problem
) -> None:
    families_tried = [*SHIPPED, *REPLACED]
    targets = [*PLAIN, INTEGRAL, *(items_of(family)[0] for family in families_tried)]
    place = tmp_path / "trace"
    texts = [attempt.format(path=place / "file", port=port) for attempt in ATTEMPTS]
    place.mkdir()
    wrong = [(targets[at % len(targets)], f"{at + 10_007}") for at in range(100)]
    right = [(target, target.gold + ("" if at % 2 else " ")) for at, target in enumerate(targets)]
    rest = [*wrong, *right]
    environment = dict(os.environ)
    with Verifier(workers=2, timeout_s=4, memory_mb=512) as verifier:
        before = verifier.verify([p for p, _ in rest], [box(a) for _, a in rest])
        pairs = [(target, text) for target in targets for text in texts]
        tried = verifier.verify([p for p, _ in pairs], [box(text) for _, text in pairs])
        # A reader that evaluates runs whatever it is given, but alone and sealed.
        quick = [text for text in texts if "iter(int" not in text and "9**9" not in text]
        own = verifier.verify([own_rule] * len(quick), [box(text) for text in quick])
        after = verifier.verify([p for p, _ in rest], [box(a) for _, a in rest])
        own_after = verifier.verify([own_rule] * 2, [box("9 + 9"), box("19")])
    assert [v for _, v in before[:100] if v is CORRECT] == []
    assert {v for _, v in before[100:]} == {CORRECT}
    assert after == before
    assert [
        (p.checker, t) for (p, t), (_, v) in zip(pairs, tried, strict=True) if v is CORRECT
    ] == []
    assert [text for text, (_, v) in zip(quick, own, strict=True) if v is CORRECT] == []
    assert [v for _, v in own_after] == [CORRECT, WRONG]
    assert list(place.iterdir()) == []
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
            # At once, before the attempt reaches the process that runs the tests.
            os.write(2, f"{event}: {arguments[:2]!r}"[:500].encode())
            os._exit(1)

sys.addaudithook(hook)
for problem in problems:
    for text in texts:
        check(problem, text)
"""


def test_no_text_of_an_answer_is_ever_compiled(tmp_path: Path, port: int) -> None:
    """Python's own audit events show what is compiled, imported and opened in one process."""
    read_by_us = [family for family in [*SHIPPED, *REPLACED] if family in REPLACED_SCORERS]
    problems = [
        *PLAIN,
        INTEGRAL,
        *(items_of(family)[0] for family in [*read_by_us, "gsm_symbolic"]),
    ]
    # The pool refuses what is nested deeply, which takes math-verify minutes.
    shallow = [attempt for attempt in ATTEMPTS if nesting_depth(attempt) < 12]
    texts = [text.format(path=tmp_path / MARK, port=port) for text in shallow]
    fields = ("prompt", "gold", "checker", "family", "metadata")
    rows = [{name: getattr(problem, name) for name in fields} for problem in problems]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WATCH],
        input=json.dumps([rows, texts], default=str),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2_000:]


def test_every_family_of_reasoning_gym_has_one_kind() -> None:
    names = [*REPLACED_SCORERS, *ANSWER_PATTERNS, *REVIEWED_FAMILIES, *REFUSED_FAMILIES]
    assert sorted(names) == sorted(DATASETS)


def test_families_that_cannot_be_judged_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "of_a_later_version", DATASETS["gcd"])
    for family, because in (
        ("of_a_later_version", "never reviewed and may run an answer as code"),
        ("composite", "it mixes other families"),
        ("rubiks_cube", "without a gold answer"),
    ):
        with pytest.raises(UserError, match=rf"data\.families\.{family}: .*{because}"):
            ReasoningGymSource({family: {1: {}}}, 0.1, 0.1)
        with pytest.raises(UserError, match=because):
            check(Problem("?", "5", f"reasoning_gym/{family}", "f"), "5")


WRITINGS: list[Callable[[str], str]] = [
    str,
    lambda gold: gold.replace(" ", ""),
    lambda gold: gold.replace("*", " * ").replace("*  *", "**"),
    lambda gold: f"{gold}1",
    lambda gold: f"1{gold}",
    lambda gold: f"({gold})",
]


@pytest.mark.parametrize("family", [*SHIPPED, "binary_matrix", "n_queens", "number_sorting"])
def test_verdicts_are_those_of_reasoning_gym(family: str) -> None:
    """Of what our own grammars read; the answers here are made from golds, and so are harmless."""
    rng = random.Random(0)
    dataset = reasoning_gym.create_dataset(family, seed=5, size=20, **SHIPPED.get(family, {}))
    problems = items_of(family, count=20)
    for problem in problems:
        assert gold_error(problem) is None
        assert check(problem, problem.gold) is CORRECT
        others = [rng.choice(problems).gold for _ in range(3)]
        for answer in [*(write(problem.gold) for write in WRITINGS), *others]:
            entry = {"answer": problem.gold, "metadata": problem.metadata}
            try:
                full = dataset.score_answer(answer, entry) == 1.0
            except ValueError:
                full = False
            # reasoning-gym reads a LaTeX fraction and ignores what follows.
            if answer.endswith(("}1", "$1")):
                full = False
            assert (check(problem, answer) is CORRECT) is full, (problem.gold, answer)


def gym(family: str, gold: str, **metadata: Any) -> Problem:
    return Problem("?", gold, f"reasoning_gym/{family}", family, metadata=metadata)


PRODUCT = gym("polynomial_multiplication", "6*x**2 - 6")
PARABOLA = gym("simple_integration", "x**3/3 - x + C", integrand="x**2 - 1", variable="x")
HALF = gym("coin_flip", "0.25")


@pytest.mark.parametrize(
    ("problem", "answer", "expected"),
    [
        (PRODUCT, "-6 + 6*x**2", CORRECT),
        (PRODUCT, "2*(3*x*x-3)", CORRECT),
        (PRODUCT, "x**2*12/2-6", CORRECT),
        # To multiply is the task.
        (PRODUCT, "6*(x-1)*(x+1)", WRONG),
        (PRODUCT, "6*x**2 - 5", WRONG),
        (PRODUCT, "6*y**2 - 6", WRONG),
        (PRODUCT, "6x^2 - 6", UNPARSEABLE),
        (PRODUCT, "6*x**2 - 6)", UNPARSEABLE),
        (PRODUCT, "x**999999999", UNPARSEABLE),
        (PRODUCT, "2**2**2**2**2", UNPARSEABLE),
        (PRODUCT, "1/0", UNPARSEABLE),
        (PARABOLA, "(x**3 - 3*x)/3", CORRECT),
        (PARABOLA, "x*(x**2/3 - 1) + 7 + K", CORRECT),
        (PARABOLA, "x**3/3 + C", WRONG),
        (PARABOLA, "0.333*x**3 - x", WRONG),
        (INTEGRAL, "cos(x) + sin(x)*x", CORRECT),
        (INTEGRAL, "x*sin(x) - cos(x) + C", WRONG),
        (INTEGRAL, "Integral(x*cos(x), x)", UNPARSEABLE),
        (gym("countdown", "4*(5 + 1)", numbers=[4, 5, 1], target=24), "(1+5)*4", CORRECT),
        (gym("countdown", "4*(5 + 1)", numbers=[4, 5, 1], target=24), "4*5+4", WRONG),
        (gym("countdown", "4*(5 + 1)", numbers=[4, 5, 1], target=24), "24", WRONG),
        (gym("puzzle24", "6*4*1*1", numbers=[6, 4, 1, 1]), "4*6/1/1", CORRECT),
        # The four numbers are others; reasoning-gym calls it correct.
        (gym("puzzle24", "6*4*1*1", numbers=[6, 4, 1, 1]), "8*3*1*1", WRONG),
        (gym("bitwise_arithmetic", "0x1e", problem="(0xf << 0x1)"), "30", CORRECT),
        (gym("bitwise_arithmetic", "0x1e", problem="(0xf << 0x1)"), "0x1f", WRONG),
        (gym("number_sorting", "['1.5', '2']"), "[1.5, 2.0]", CORRECT),
        (gym("number_sorting", "['1.5', '2']"), "[2, 1.5]", WRONG),
        (gym("number_sorting", "['1.5', '2']"), "[NaN, NaN]", UNPARSEABLE),
        (HALF, "1/4", CORRECT),
        (HALF, "25%", CORRECT),
        (HALF, "0", WRONG),
        (gym("game_of_life_halting", "True"), "true", CORRECT),
        (gym("game_of_life_halting", "True"), "False", WRONG),
        (gym("gsm_symbolic", "18"), "18 dollars", CORRECT),
        (gym("gsm_symbolic", "18"), "18\\text{ dollars}", CORRECT),
        (gym("gsm_symbolic", "18"), "18 or 19", UNPARSEABLE),
        (gym("gsm_symbolic", "1"), "1/2", UNPARSEABLE),
    ],
)
def test_rules_of_families(problem: Problem, answer: str, expected: Verdict) -> None:
    assert check(problem, answer) is expected


@pytest.mark.parametrize(
    "problem",
    [
        gym("polynomial_multiplication", "open('x')"),
        gym("simple_integration", "x", integrand="__import__('os')", variable="x"),
        gym("bitwise_arithmetic", "print(1)", problem="print(1)"),
        gym("number_sorting", "[print(1)]"),
        gym("countdown", "4", numbers=None),
    ],
)
def test_golds_are_not_evaluated_either(problem: Problem) -> None:
    assert gold_error(problem) is not None


def test_no_answer_writes_into_a_problem_that_others_share() -> None:
    (problem,) = items_of("knight_swap")
    before = repr(problem.metadata)
    check(problem, problem.gold)
    assert repr(problem.metadata) == before
