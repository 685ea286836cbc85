"""The verifier against hostile, sloppy and honest answers: extraction, equivalence, isolation."""

import gc
import os
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from reasoning_lab.types import Problem, UserError, Verdict
from reasoning_lab.verify import Verifier, extract_answer
from tests.support.processes import fork_server_children, settled_children

CORRECT, WRONG = Verdict.CORRECT, Verdict.WRONG
UNPARSEABLE, TIMEOUT = Verdict.UNPARSEABLE, Verdict.TIMEOUT

BOMB = "10^{10^{10^{10}}}"


def gym(family: str, gold: str, **metadata: Any) -> Problem:
    return Problem(f"{family}?", gold, f"reasoning_gym/{family}", family, metadata=metadata)


def formula(gold: str) -> Problem:
    return Problem("a formula?", gold, "math", "math")


def number(gold: str) -> Problem:
    return Problem("a number?", gold, "number", "number")


def choice(gold: str) -> Problem:
    options = {"choices": ["7", "8", "9"]}
    return Problem("a choice?", gold, "choice", "choice", metadata=options)


def on_line(line: int, gold: str, checker: str) -> Problem:
    row = {"row": f"gsm8k.jsonl, line {line}"}
    return Problem(f"question {line}?", gold, checker, "rows", metadata=row)


GCD = gym("gcd", "12")
SUM = gym("chain_sum", "12")
COMPLEX = gym("complex_arithmetic", "-15 + 3i", result=[-15, 3])
FRACTION = gym(
    "fraction_simplification",
    "3/4",
    numerator=6,
    denominator=8,
    simplified_numerator=3,
    simplified_denominator=4,
)


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(workers=2, timeout_s=10, memory_mb=512) as shared:
        yield shared


@pytest.fixture(scope="module")
def impatient() -> Iterator[Verifier]:
    with Verifier(workers=2, timeout_s=2, memory_mb=512) as shared:
        yield shared


def box(answer: str) -> str:
    return f"\\boxed{{{answer}}}"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (box("7"), "7"),
        ("first \\boxed{1}, then \\boxed{2}, so \\boxed{3}.", "3"),
        ("<think>\\boxed{1}</think> so \\boxed{2}", "2"),
        ("<think>\\boxed{1}</think> I forgot the box", None),
        ("<think>a</think>\\boxed{1}</think>\\boxed{2}", "2"),
        ("<think>no end, \\boxed{1}", None),
        ("so \\boxed {12}", "12"),
        (box("\\frac{1}{\\sqrt{2}}"), "\\frac{1}{\\sqrt{2}}"),
        (box("\\{ x \\mid x < 1 \\"), None),
        (box("a \\} b"), "a \\} b"),
        ("\\boxed{\\boxed{5}}", "5"),
        (box("  12\n"), "12"),
        (box(""), None),
        (box("  "), None),
        ("\\boxed{1} and \\boxed{2", None),
        ("boxed{1}", None),
        ("\\fbox{42}", "42"),
        ("$\\boxed 18$.", "18"),
        ("\\boxed\\frac12", "\\frac12"),
        ("-\\boxed{5}", "-5"),
        ("\\boxed{5} is marked with \\boxed{}", "5"),
        ("\\boxed{\\text{ }}", None),
        ("\\boxed{(1,2)} and \\boxed{(2,1)}", "(1,2), (2,1)"),
        ("$x = \\boxed{3}$, or $x = \\boxed{5}$", "3, 5"),
        ("\\boxed{4}\n\n**Final answer**\n\\boxed{7}", "7"),
        ("\\boxed{x = \\boxed{5} + 1}", "x = \\boxed{5} + 1"),
        ("<think>a</think>\\boxed{5}</think>", "5"),
        ("So \\boxed{5}</think>\n", "5"),
        ("draft \\boxed{1}</think> no answer", None),
        ("<think>a</think>\\boxed{2}<think>b \\boxed{3}", "2"),
        ("", None),
    ],
)
def test_last_closed_box_after_the_thought_is_the_answer(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\\boxed{" * 300_000, None),
        ("\\boxed{1}" * 300_000, "1"),
        ("\\boxed{" + "{" * 1_000_000, None),
        (
            "\\boxed{" + "{" * 1_000_000 + "5" + "}" * 1_000_001,
            "{" * 1_000_000 + "5" + "}" * 1_000_000,
        ),
        ("\\boxed{" + "\\" * 2_000_000, None),
        ("</think>" * 300_000 + "\\boxed{2}", "2"),
    ],
    ids=["open boxes", "closed boxes", "open braces", "nested", "backslashes", "thoughts"],
)
def test_megabytes_are_extracted_in_linear_time(text: str, answer: str | None) -> None:
    start = time.process_time()
    assert extract_answer(text) == answer
    # Quadratic time would be 10^12 steps.
    assert time.process_time() - start < 3


# Expected verdicts follow from the families' documented tolerance, worked out by hand.
CASES = [
    (GCD, "12", CORRECT),
    (GCD, "13", WRONG),
    (GCD, "120", WRONG),
    (GCD, "twelve", UNPARSEABLE),
    (SUM, "12.0", CORRECT),
    (SUM, "+012", CORRECT),
    (SUM, "-12", WRONG),
    (SUM, "x = 12", UNPARSEABLE),
    (COMPLEX, "-15.0 + 3.0i", CORRECT),
    (COMPLEX, "(-15+3i)", CORRECT),
    (COMPLEX, "-15 - 3i", WRONG),
    (COMPLEX, "nan", UNPARSEABLE),
    (COMPLEX, "nan+nanj", UNPARSEABLE),
    (FRACTION, "\\frac{3}{4}", CORRECT),
    (FRACTION, "3 / 4", CORRECT),
    (FRACTION, "6/8", WRONG),
    (FRACTION, "0.75", WRONG),
    (formula("\\frac{1}{2}"), "0.5", CORRECT),
    (formula("0.5"), "\\dfrac{2}{4}", CORRECT),
    (formula("\\frac{1}{2}"), "0.51", WRONG),
    (formula("10\\%"), "$10\\%$", CORRECT),
    (formula("5"), "3$ or $5", WRONG),
    (formula("5"), "5 )(", UNPARSEABLE),
    (formula("5"), "???", UNPARSEABLE),
    (number("1,234"), "\\$1234.00", CORRECT),
    (number("18"), "18 dollars", CORRECT),
    (number("18"), "17", WRONG),
    (number("18"), "20!", UNPARSEABLE),
    (number("5"), BOMB, UNPARSEABLE),
    (choice("C"), "\\textbf{(C)}", CORRECT),
    (choice("C"), "9", CORRECT),
    (choice("C"), "B", WRONG),
    (choice("C"), "10", UNPARSEABLE),
    (choice("C"), BOMB, UNPARSEABLE),
    # Not symmetric: an interval may answer an inequality, not the reverse.
    (formula("1<x<2"), "(1,2)", CORRECT),
    (formula("(1,2)"), "1<x<2", WRONG),
]


def test_each_problem_is_judged_by_its_own_checker_in_order(verifier: Verifier) -> None:
    repeated = CASES * 6
    found = verifier.verify([c[0] for c in repeated], [box(c[1]) for c in repeated])
    assert [answer for answer, _ in found] == [case[1] for case in repeated]
    wrong = [
        (problem.gold, answer, verdict)
        for (problem, answer, expected), (_, verdict) in zip(repeated, found, strict=True)
        if verdict is not expected
    ]
    assert not wrong


def test_a_bomb_times_out_alone(impatient: Verifier) -> None:
    half = formula("\\frac{1}{2}")
    problems = [GCD, half, formula("5"), half, SUM, half]
    texts = [box(a) for a in ("13", "0.5", BOMB, "0.4", "12.0", "\\frac{2}{4}")]
    start = time.perf_counter()
    found = impatient.verify(problems, texts)
    assert [verdict for _, verdict in found] == [WRONG, CORRECT, TIMEOUT, WRONG, CORRECT, CORRECT]
    # 2 s in its chunk and 2 s alone.
    assert time.perf_counter() - start < 8
    assert impatient.verify([formula("5")], [box("5.0")]) == [("5.0", CORRECT)]


@pytest.mark.parametrize("nested", ["{%s}", "(%s)", "[%s]", "\\frac{1}{%s}", "\\sqrt{%s}"])
def test_deep_nesting_is_refused_without_a_worker(nested: str) -> None:
    before = settled_children()
    deep = "5"
    for _ in range(13):
        deep = nested % deep
    with Verifier(workers=1, timeout_s=1, memory_mb=64) as idle:
        assert idle.verify([formula("6")], [box(deep)]) == [(deep, UNPARSEABLE)]
        assert fork_server_children() == before


def test_a_continued_fraction_is_not_too_deep(verifier: Verifier) -> None:
    """1 + 1/(1 + ...) of seven ones is 21/13: neighbours in Fibonacci's sequence."""
    deep = "1"
    for _ in range(6):
        deep = f"1+\\frac{{1}}{{{deep}}}"
    assert verifier.verify([formula("\\frac{21}{13}")], [box(deep)]) == [(deep, CORRECT)]


def test_a_timeout_keeps_no_text_alive(impatient: Verifier) -> None:
    class Text(str):
        """A str that can be referred to weakly."""

    text = Text("so it is " + box(BOMB))
    watched = weakref.ref(text)
    gc.disable()
    try:
        [(_, verdict)] = impatient.verify([formula("5")], [text])
        del text
        assert verdict is TIMEOUT
        assert watched() is None
    finally:
        gc.enable()


def test_the_memory_cap_holds() -> None:
    # 2^(10^10) needs 1.25 GB; without the cap it runs into the time limit.
    with Verifier(workers=1, timeout_s=30, memory_mb=32) as small:
        start = time.perf_counter()
        [(_, verdict)] = small.verify([formula("5")], [box("2^{10^{10}}")])
        assert verdict in (TIMEOUT, UNPARSEABLE, WRONG)
        assert time.perf_counter() - start < 15
        assert small.verify([formula("5")], [box("5.0")]) == [("5.0", CORRECT)]


def test_what_needs_no_parsing_starts_no_process() -> None:
    before = settled_children()
    with Verifier(workers=1, timeout_s=1, memory_mb=64) as idle:
        texts = ["no box", box("9" * 3_000), box("{" * 10**6 + "5" + "}" * 10**6)]
        verdicts = [verdict for _, verdict in idle.verify([GCD] * 3, texts)]
        assert idle.verify([], []) == []
        assert idle.unreadable_golds([]) == []
        assert fork_server_children() == before
    assert verdicts == [UNPARSEABLE] * 3


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (formula("???"), "can't read the gold '???'"),
        (gym("complex_arithmetic", "5"), "can't score the gold '5'"),
        (gym("no_such_family", "5"), "no family 'no_such_family'"),
        (Problem("a?", "5", "exact", "f"), "unknown checker 'exact'"),
    ],
)
def test_a_bad_problem_is_an_error_that_names_it(
    verifier: Verifier, problem: Problem, said: str
) -> None:
    with pytest.raises(UserError) as caught:
        verifier.verify([GCD, problem], [box("13"), box("6")])
    assert said in str(caught.value)
    assert problem.id in str(caught.value)


def test_unreadable_golds_are_found_in_order(verifier: Verifier) -> None:
    golds = ["5", "???", "1/2", "\\frac{", "???", "5"]
    problems = [on_line(line, gold, "math") for line, gold in enumerate(golds, 1)]
    problems += [
        on_line(7, "18", "number"),
        on_line(8, "many", "number"),
        on_line(9, "K", "choice"),
    ]
    problems += [GCD, gym("complex_arithmetic", "5"), COMPLEX, choice("D"), choice("A")]
    found = verifier.unreadable_golds(problems)
    assert found == [problems[at] for at in (1, 3, 4, 7, 8, 10, 12)]


def test_a_gold_that_exceeds_its_limits_is_unreadable(impatient: Verifier) -> None:
    bomb = on_line(2, BOMB, "math")
    problems = [formula("5"), bomb, formula("6")]
    assert impatient.unreadable_golds(problems) == [bomb]
    with pytest.raises(UserError, match=r"^gsm8k.jsonl, line 2: .* takes more than 2 s or 512 MiB"):
        impatient.verify(problems, [box("5"), box(bomb.gold), box("6")])


@pytest.mark.parametrize(
    ("checker", "gold"),
    [("math", "???"), ("number", "???"), ("choice", "K"), ("reasoning_gym/gcd", "12")],
)
def test_repeating_an_unreadable_gold_is_no_reward(
    verifier: Verifier, checker: str, gold: str
) -> None:
    if checker.startswith("reasoning_gym"):
        checker, gold = "reasoning_gym/complex_arithmetic", "5"
    problem = on_line(7, gold, checker)
    for _ in range(2):
        with pytest.raises(UserError, match=r"gsm8k\.jsonl, line 7: .*can't"):
            verifier.verify([GCD, problem], [box("12"), box(gold)])


def test_a_gold_is_read_once_for_all_that_repeat_it() -> None:
    """Without a worker left, only answers whose gold is known to be readable get a verdict."""
    with Verifier(workers=1, timeout_s=20, memory_mb=256) as own:
        problems = [on_line(line, gold, "math") for line, gold in enumerate(["5", "6"] * 50)]
        assert own.unreadable_golds(problems) == []
        own.close()
        before = settled_children()
        found = own.verify(problems, [box(problem.gold) for problem in problems])
        assert {verdict for _, verdict in found} == {CORRECT}
        assert own.unreadable_golds(problems) == []
        assert fork_server_children() == before


def test_texts_and_problems_must_pair(verifier: Verifier) -> None:
    with pytest.raises(ValueError, match="zip"):
        verifier.verify([GCD, GCD], [box("12")])


def test_workers_hold_no_torch_and_end_with_the_pool() -> None:
    assert torch.__version__
    before = settled_children()
    with Verifier(workers=2, timeout_s=5, memory_mb=256) as own:
        own.verify([GCD] * 4, [box("13")] * 4)
        started = fork_server_children() - before
        assert len(started) == 2
        assert "libtorch" in Path("/proc/self/maps").read_text()
        for pid in started:
            assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()
        first = started
        own.verify([GCD] * 4, [box("14")] * 4)
        assert fork_server_children() - before == first
        os.kill(min(first), 9)
        time.sleep(0.5)
        assert own.verify([GCD], [box("13")]) == [("13", WRONG)]
    assert fork_server_children() == before


def test_checks_inside_a_worker_of_joblibs() -> None:
    """Its default start method is unknown to any process that is not a worker of joblib's."""
    joblib = pytest.importorskip("joblib")
    (verdicts,) = joblib.Parallel(n_jobs=2)([joblib.delayed(_verdicts_of_a_new_pool)()])
    assert verdicts == [Verdict.CORRECT, Verdict.WRONG]


def _verdicts_of_a_new_pool() -> list[Verdict]:
    problem = Problem("1/2 of 4?", "2", "math", "halves")
    with Verifier(workers=1, timeout_s=20, memory_mb=1024) as verifier:
        answers = ["\\boxed{4/2}", "\\boxed{3}"]
        return [verdict for _, verdict in verifier.verify([problem] * 2, answers)]
