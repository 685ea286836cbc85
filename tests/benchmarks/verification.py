r"""Figures of the verifier, one JSON line each: speed, hostile answers, agreement with labels.

    python -m tests.benchmarks.verification [--data DIR] [--math-verify DIR] [--only NAME …]

`--data` is a folder that may hold `gsm8k_train.jsonl`, `--math-verify` the unpacked sdist of
math-verify, whose own tests are run as they are and then, where gold and prediction are one
formula each, through the checker `math`. A figure whose file is missing is left out.
"""

import argparse
import ast
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from reasoning_lab.config.targets import TRUSTED_VARIABLE
from reasoning_lab.types import Problem, Verdict
from reasoning_lab.verify import Verifier, extract_answer
from tests.support.processes import fork_server_children

WORKERS = 2
HOSTILE = 10_000
HOSTILE_TIMEOUT_S = 1.0
BOMB = "10^{10^{10^{10}}}"


def box(answer: str) -> str:
    return f"\\boxed{{{answer}}}"


def print_figure(figure: str, **values: Any) -> None:
    print(json.dumps({"figure": figure, **values}), flush=True)


def speed(arguments: argparse.Namespace) -> None:
    """Answers a second in a warm pool; none equals its gold's text, about a half are right.

    Of `math`, ordinary numbers, which need no math-verify, and roots, which do.
    """
    spellings = ["{0}.0", "{0:,}.0", "\\frac{{{1}}}{{2}}", "\\${0}"]
    roots = ["\\frac{{\\sqrt{{{2}}}}}{{2}}", "\\sqrt{{{0}}}+0"]
    for checker, answers, golds_are, count, spelt in (
        ("math", "numbers", "{0}", 60_000, spellings),
        ("math", "roots", "\\sqrt{{{0}}}", 3_000, roots),
        ("number", "numbers", "{0}", 60_000, spellings),
    ):
        rng = random.Random(0)
        golds, texts = [], []
        for _ in range(count):
            value = rng.randrange(2, 100_000)
            golds.append(golds_are.format(value))
            value += rng.randrange(2)
            texts.append(box(rng.choice(spelt).format(value, 2 * value, 4 * value)))
        problems = [Problem(f"q{at}", gold, checker, "f") for at, gold in enumerate(golds)]
        with Verifier(WORKERS, timeout_s=10, memory_mb=512) as verifier:
            verifier.verify(problems[:100], texts[:100])
            start, busy_s = time.perf_counter(), cpu_s()
            verdicts = verifier.verify(problems, texts)
            took_s, busy_s = time.perf_counter() - start, cpu_s() - busy_s
        print_figure(
            "speed",
            checker=checker,
            answers=answers,
            answers_per_s=round(len(verdicts) / took_s),
            answers_per_worker_cpu_s=round(len(verdicts) / busy_s),
            load_average=os.getloadavg()[0],
            **Counter(str(verdict) for _, verdict in verdicts),
        )


OWN_RULES = """
def same(problem, answer):
    return int(answer) == int(problem.gold)

class Evaluates:
    @staticmethod
    def read(answer):
        return eval(answer)

    @staticmethod
    def matches(problem, value):
        return value == int(problem.gold)
"""


def isolated(arguments: argparse.Namespace) -> None:
    """Answers a second that our grammars parse, and that checkers of the user judge isolated."""
    polynomials = [f"{n}*x**2 - {n + 1}*x + 7" for n in range(2, 2_002)]
    wrong = [f"{n}*x**2 - {n}*x + 7" for n in range(2, 2_002)]
    checker = "reasoning_gym/polynomial_multiplication"
    numbers = [str(n) for n in range(400)]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "rules_of_benchmark.py").write_text(OWN_RULES)
        os.environ[TRUSTED_VARIABLE] = "rules_of_benchmark"
        sys.path.insert(0, folder)
        cases = [(checker, polynomials, wrong)]
        for rule in ("same", "Evaluates"):
            cases.append((f"rules_of_benchmark.{rule}", numbers, numbers[::-1]))
        for name, golds, answers in cases:
            problems = [Problem(f"q{at}", gold, name, "f") for at, gold in enumerate(golds)]
            texts = [box(answer) for answer in answers]
            with Verifier(WORKERS, timeout_s=10, memory_mb=512) as verifier:
                verifier.verify(problems[:100], texts[:100])
                start = time.perf_counter()
                verdicts = verifier.verify(problems, texts)
                took_s = time.perf_counter() - start
            counts = Counter(str(verdict) for _, verdict in verdicts)
            print_figure(
                "isolated", checker=name, answers_per_s=round(len(verdicts) / took_s), **counts
            )
        sys.path.remove(folder)


def cpu_s() -> float:
    """CPU time that the workers have used, which other work on the machine does not change."""
    ticks = 0
    for pid in fork_server_children():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def hostile_answers(count: int) -> Iterator[str]:
    """Seeded: towers of powers, deep nesting, huge digits, broken LaTeX, noise; some big."""
    rng = random.Random(0)
    pieces = (
        r"\frac { } \sqrt ^ _ 10 ! ( ) \int \sum x , \infty & \\ = < \cup \{ \} $ % \text é ∞ - /"
    )
    pieces += r" \begin{pmatrix} \end{pmatrix} \boxed{ 3.5"
    marks = [*pieces.split(), "\x00", "\n"]
    kinds: Sequence[Callable[[], str]] = [
        lambda: "".join(rng.choices(marks, k=rng.randrange(1, 60))),
        lambda: "".join(rng.choices(marks, k=rng.randrange(1, 60))),
        lambda: "{" * (deep := rng.randrange(1, 900)) + "5" + "}" * deep,
        lambda: "(" * (deep := rng.randrange(1, 90)) + "5" + ")" * deep,
        lambda: "|" * (deep := 2 * rng.randrange(1, 90)) + "5" + "|" * deep,
        lambda: "9" * rng.randrange(1, 2_500),
        lambda: "\\frac{1}{" * (deep := rng.randrange(1, 60)) + "2" + "}" * deep,
        lambda: "-" * rng.randrange(1, 500) + "5",
        lambda: "1,111" * rng.randrange(1, 200),
        lambda: "".join(chr(rng.randrange(1, 0x3000)) for _ in range(rng.randrange(1, 200))),
        lambda: "x=" * rng.randrange(1, 100) + "5",
    ]
    bombs = [BOMB, BOMB + "!", "9^{9^{9^{9}}}", "2^{10^{10}}", "(10^{10})!", "1" + "!" * 20]
    bombs += ["\\sum_{n=1}^{10^{12}}\\frac{1}{n^2+n!}", "(x+y+z+1)^{3000}=5"]
    bombs += ["\\binom{10^9}{5000000}", "\\int_0^1 x^{x^{x^x}} dx"]
    for at in range(count):
        if at % 64 == 0:
            yield rng.choice(["{", "\\boxed{5}", "\\", "7", "</think>"]) * 200_000
        elif at % 64 == 32:
            yield rng.choice(bombs)
        else:
            yield rng.choice(kinds)()


def hostile(arguments: argparse.Namespace) -> None:
    golds = [("math", "5"), ("math", "\\frac{1}{2}"), ("number", "5"), ("choice", "C")]
    counts: Counter[str] = Counter()
    parent_mib, workers_mib, slowest_s = [], [], 0.0
    start = time.perf_counter()
    with Verifier(WORKERS, HOSTILE_TIMEOUT_S, memory_mb=512) as verifier:
        verifier.verify([Problem("warm", "5", "math", "f")] * 64, [box("6")] * 64)
        batch: list[str] = []
        problems: list[Problem] = []
        for at, answer in enumerate(hostile_answers(HOSTILE), 1):
            checker, gold = golds[at % len(golds)]
            batch.append(box(answer))
            problems.append(Problem(f"q{at}", gold, checker, "f"))
            if at % 1_000 == 0:
                counts.update(str(verdict) for _, verdict in verifier.verify(problems, batch))
                probe_started = time.perf_counter()
                probe = verifier.verify([Problem("probe", "5", "math", "f")], [box("10/2")])
                slowest_s = max(slowest_s, time.perf_counter() - probe_started)
                if probe[0][1] is not Verdict.CORRECT:
                    counts["probe_failed"] += 1
                print(f"{at} answers, {time.perf_counter() - start:.0f} s", file=sys.stderr)
                batch, problems = [], []
                parent_mib.append(rss_mib(os.getpid()))
                workers_mib.append(sum(rss_mib(pid) for pid in fork_server_children()))
        hung = max(0, len(fork_server_children()) - WORKERS)
    print_figure(
        "hostile",
        answers=HOSTILE,
        wall_s=round(time.perf_counter() - start),
        hung_workers=hung + len(fork_server_children()),
        slowest_probe_s=round(slowest_s, 2),
        parent_rss_mib=[round(mib) for mib in parent_mib],
        workers_rss_mib=[round(mib) for mib in workers_mib],
        **counts,
    )


def rss_mib(pid: int) -> float:
    try:
        return (
            int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            * os.sysconf("SC_PAGESIZE")
            / 2**20
        )
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


# Spellings that LaTeX has and those of plain text; `{0}` the number, `{1}` its double.
LATEX = ["{0}", "{0:,}", "\\${0}", "\\${0:,}.00", "{0}.0", "${0}$", "{0}\\%", "\\textbf{{{0}}}"]
LATEX += [
    "\\frac{{{1}}}{{2}}",
    "\\dfrac{{{1}}}{{2}}",
    "{0}\\text{{ dollars}}",
    "{0}\\,\\text{{cm}}",
]
PLAIN = ["{0} dollars", "${0}", "${0:,}.00", "{0}.", "{0} eggs", "{0}%", "{1}/2", "{0} miles/hour"]


def gsm8k(arguments: argparse.Namespace) -> None:
    """One right and one wrong answer a row, the spellings in turn."""
    path = arguments.data / "gsm8k_train.jsonl"
    if not path.exists():
        return
    rng = random.Random(0)
    rows = [json.loads(line)["answer"] for line in path.read_text().splitlines()]
    golds = [row.rpartition("####")[2].strip() for row in rows]
    for checker, spellings in (("number", LATEX + PLAIN), ("math", LATEX), ("math", PLAIN)):
        problems, texts, kinds = [], [], []
        for at, gold in enumerate(golds):
            value = int(gold.replace(",", ""))
            other = rng.choice([value + 1, value - 1, value * 10, value + 10, -value - 1])
            spelling = spellings[at % len(spellings)]
            for label, number in ((True, value), (False, other if other != value else value + 1)):
                problems.append(Problem(f"q{at}", gold, checker, "gsm8k"))
                texts.append(box(spelling.format(number, 2 * number)))
                kinds.append((label, spelling))
        with Verifier(WORKERS, timeout_s=10, memory_mb=512) as verifier:
            unreadable = len(verifier.unreadable_golds(problems))
            verdicts = verifier.verify(problems, texts)
        missed = Counter(
            spelling if label else f"FALSE POSITIVE {spelling}"
            for (label, spelling), (_, verdict) in zip(kinds, verdicts, strict=True)
            if (verdict is Verdict.CORRECT) is not label
        )
        print_figure(
            "gsm8k",
            checker=checker,
            spellings="plain" if spellings is PLAIN else "latex" if spellings is LATEX else "all",
            n=len(verdicts),
            agree_pct=round(100 * (1 - missed.total() / len(verdicts)), 3),
            unreadable_golds=unreadable,
            missed=missed,
        )


def published(arguments: argparse.Namespace) -> None:
    if arguments.math_verify is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        tests = shutil.copytree(arguments.math_verify / "tests", Path(folder) / "tests")
        # They import each other, and the sdist leaves out what makes them a package.
        (tests / "__init__.py").touch()
        command = [sys.executable, "-m", "pytest", "-q", "tests", f"--junitxml={report}"]
        subprocess.run(
            command, cwd=folder, env={**os.environ, "PYTHONPATH": folder}, capture_output=True
        )
        suite = ElementTree.parse(report).getroot().find("testsuite")
        assert suite is not None
        counts = {key: int(suite.attrib[key]) for key in ("tests", "failures", "errors", "skipped")}
        failed = [case.attrib["name"][:80] for case in suite if case.find("failure") is not None]
    print_figure("math_verify_own_settings", **counts, failed=failed)
    cases = [
        case
        for path in sorted((arguments.math_verify / "tests").glob("*.py"))
        for case in cases_of(path)
    ]
    pairs = [(formula(gold), formula(pred), bool(expected)) for gold, pred, expected in cases]
    usable = [(gold, pred, right) for gold, pred, right in pairs if gold and pred]
    problems = [Problem(gold, gold, "math", "published") for gold, _, _ in usable]
    with Verifier(WORKERS, timeout_s=10, memory_mb=1024) as verifier:
        unreadable = verifier.unreadable_golds(problems)
        readable = [
            (p, case) for p, case in zip(problems, usable, strict=True) if p not in unreadable
        ]
        verdicts = verifier.verify(
            [p for p, _ in readable], [box(pred) for _, (_, pred, _) in readable]
        )
    differ = [
        {"gold": gold, "answer": pred, "published": right, "found": str(verdict)}
        for (_, (gold, pred, right)), (_, verdict) in zip(readable, verdicts, strict=True)
        if (verdict is Verdict.CORRECT) is not right
    ]
    print_figure(
        "math_verify_published_as_boxed_answers",
        published=len(cases),
        one_formula_each=len(usable),
        unreadable_golds=[p.gold for p in unreadable],
        agree=len(readable) - len(differ),
        agree_pct=round(100 * (1 - len(differ) / max(1, len(readable))), 2),
        differ=differ,
    )


def cases_of(path: Path) -> Iterator[tuple[str, str, int]]:
    """The (gold, prediction, expected) of the file's parametrized tests; it is never imported."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not ast.unparse(node.func).endswith("parametrize"):
            continue
        names, values = node.args[:2]
        if not isinstance(names, ast.Constant) or len(str(names.value).split(",")) != 3:
            continue
        for value in values.elts if isinstance(values, ast.List) else []:
            try:
                gold, pred, expected = ast.literal_eval(value)
            except ValueError:
                continue
            if isinstance(gold, str) and isinstance(pred, str) and expected in (0, 1):
                yield gold, pred, expected


def formula(text: str) -> str | None:
    """What the text's only box or only pair of dollars holds; None when there is more than that."""
    answer = extract_answer(text) if text.count("\\boxed") == 1 else None
    if answer is not None:
        return answer
    match = re.fullmatch(r"\${1,2}([^$]+)\${1,2}", text.strip())
    return match[1].strip() if match and "\\boxed" not in text else None


FIGURES = {
    "speed": speed,
    "isolated": isolated,
    "hostile": hostile,
    "gsm8k": gsm8k,
    "published": published,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path())
    parser.add_argument("--math-verify", type=Path)
    parser.add_argument("--only", nargs="*", choices=FIGURES, default=list(FIGURES))
    arguments = parser.parse_args()
    for name in arguments.only:
        FIGURES[name](arguments)


if __name__ == "__main__":
    main()
