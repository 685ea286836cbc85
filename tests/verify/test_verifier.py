"""From completions to verdicts: order, limits, unreadable golds, and hostile answers."""

import gc
import json
import time
import weakref
from collections.abc import Iterator

import pytest

from reasoning_lab.types import Problem, UserError, Verdict
from reasoning_lab.verify import Verifier
from tests.support.processes import fork_server_children, settled_children
from tests.support.verification import boxed, gym_problem

CORRECT, WRONG = Verdict.CORRECT, Verdict.WRONG
UNPARSEABLE, TIMEOUT = Verdict.UNPARSEABLE, Verdict.TIMEOUT

BOMB = "10^{10^{10^{10}}}"


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


def instructions(*listed: dict[str, object]) -> Problem:
    return Problem("a text?", json.dumps(listed), "instructions", "instructions")


GCD = gym_problem("gcd", "12")


SUM = gym_problem("chain_sum", "12")


COMPLEX = gym_problem("complex_arithmetic", "-15 + 3i", result=[-15, 3])


FRACTION = gym_problem(
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
    with Verifier(workers=2, timeout_s=1, memory_mb=512) as shared:
        yield shared


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


def test_each_problem_is_checked_by_its_own_checker_in_order(verifier: Verifier) -> None:
    repeated = CASES * 6
    verified = verifier.verify([c[0] for c in repeated], [boxed(c[1]) for c in repeated])
    assert [answer for answer, _ in verified] == [case[1] for case in repeated]
    wrong = [
        (problem.gold, answer, verdict)
        for (problem, answer, expected), (_, verdict) in zip(repeated, verified, strict=True)
        if verdict is not expected
    ]
    assert not wrong


def test_a_bomb_times_out_alone(impatient: Verifier) -> None:
    half = formula("\\frac{1}{2}")
    problems = [GCD, half, formula("5"), half, SUM, half]
    texts = [boxed(a) for a in ("13", "0.5", BOMB, "0.4", "12.0", "\\frac{2}{4}")]
    start = time.perf_counter()
    verified = impatient.verify(problems, texts)
    assert [verdict for _, verdict in verified] == [
        WRONG,
        CORRECT,
        TIMEOUT,
        WRONG,
        CORRECT,
        CORRECT,
    ]
    # A second in its chunk and one alone.
    assert time.perf_counter() - start < 8
    assert impatient.verify([formula("5")], [boxed("5.0")]) == [("5.0", CORRECT)]


def test_deep_nesting_is_refused_without_a_worker() -> None:
    before = settled_children()
    deep = ["5"] * 5
    for _ in range(13):
        wrapped = zip(["{%s}", "(%s)", "[%s]", "\\frac{1}{%s}", "\\sqrt{%s}"], deep, strict=True)
        deep = [nested % text for nested, text in wrapped]
    with Verifier(workers=1, timeout_s=1, memory_mb=64) as idle:
        verified = idle.verify([formula("6")] * 5, [boxed(text) for text in deep])
        assert verified == [(text, UNPARSEABLE) for text in deep]
        assert fork_server_children() == before


def test_a_continued_fraction_is_not_too_deep(verifier: Verifier) -> None:
    """1 + 1/(1 + ...) of seven ones is 21/13: neighbours in Fibonacci's sequence."""
    deep = "1"
    for _ in range(6):
        deep = f"1+\\frac{{1}}{{{deep}}}"
    assert verifier.verify([formula("\\frac{21}{13}")], [boxed(deep)]) == [(deep, CORRECT)]


def test_a_timeout_keeps_no_text_alive(impatient: Verifier) -> None:
    class Text(str):
        """A str that can be referred to weakly."""

    text = Text("so it is " + boxed(BOMB))
    watched = weakref.ref(text)
    gc.disable()
    try:
        [(_, verdict)] = impatient.verify([formula("5")], [text])
        del text
        assert verdict is TIMEOUT
        assert watched() is None
    finally:
        gc.enable()


def test_verdicts_without_parsing_start_no_process() -> None:
    before = settled_children()
    with Verifier(workers=1, timeout_s=1, memory_mb=64) as idle:
        texts = ["no boxed", boxed("9" * 3_000), boxed("{" * 10**6 + "5" + "}" * 10**6)]
        verdicts = [verdict for _, verdict in idle.verify([GCD] * 3, texts)]
        assert idle.verify([], []) == []
        assert idle.unreadable_golds([]) == []
        assert fork_server_children() == before
    assert verdicts == [UNPARSEABLE] * 3


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (formula("???"), "can't read the gold '???'"),
        (gym_problem("complex_arithmetic", "5"), "can't score the gold '5'"),
        (gym_problem("no_such_family", "5"), "no family 'no_such_family'"),
        (Problem("a?", "5", "exact", "f"), "unknown checker 'exact'"),
    ],
)
def test_a_bad_problem_is_an_error_that_names_it(
    verifier: Verifier, problem: Problem, message: str
) -> None:
    with pytest.raises(UserError) as error:
        verifier.verify([GCD, problem], [boxed("13"), boxed("6")])
    assert message in str(error.value)
    assert problem.id in str(error.value)


def test_unreadable_golds_are_returned_in_order(verifier: Verifier) -> None:
    golds = ["5", "???", "1/2", "\\frac{", "???", "5"]
    problems = [on_line(line, gold, "math") for line, gold in enumerate(golds, 1)]
    problems += [
        on_line(7, "18", "number"),
        on_line(8, "many", "number"),
        on_line(9, "K", "choice"),
    ]
    problems += [GCD, gym_problem("complex_arithmetic", "5"), COMPLEX, choice("D"), choice("A")]
    assert verifier.unreadable_golds(problems) == [problems[at] for at in (1, 3, 4, 7, 8, 10, 12)]


def test_a_gold_that_exceeds_its_limits_is_unreadable(impatient: Verifier) -> None:
    bomb = on_line(2, BOMB, "math")
    problems = [formula("5"), bomb, formula("6")]
    assert impatient.unreadable_golds(problems) == [bomb]
    with pytest.raises(UserError, match=r"^gsm8k.jsonl, line 2: .* takes more than 1 s or 512 MiB"):
        impatient.verify(problems, [boxed("5"), boxed(bomb.gold), boxed("6")])


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
            verifier.verify([GCD, problem], [boxed("12"), boxed(gold)])


def test_a_gold_is_parsed_once_for_all_problems_that_share_it() -> None:
    """Without a worker left, only answers whose gold is known to be readable get a verdict."""
    with Verifier(workers=1, timeout_s=20, memory_mb=256) as verifier:
        problems = [on_line(line, gold, "math") for line, gold in enumerate(["5", "6"] * 50)]
        assert verifier.unreadable_golds(problems) == []
        verifier.close()
        before = settled_children()
        verified = verifier.verify(problems, [boxed(problem.gold) for problem in problems])
        assert {verdict for _, verdict in verified} == {CORRECT}
        assert verifier.unreadable_golds(problems) == []
        assert fork_server_children() == before


def test_texts_and_problems_must_pair(verifier: Verifier) -> None:
    with pytest.raises(ValueError, match="zip"):
        verifier.verify([GCD, GCD], [boxed("12")])


def test_instructions_are_checked_on_the_whole_response_behind_the_thought(
    verifier: Verifier,
) -> None:
    no_comma = instructions({"id": "punctuation:no_comma"})
    french = instructions({"id": "language:response_language", "language": "fr"})
    expected = [
        (no_comma, "<think>a, b</think>\n No comma \\boxed{5}. ", "No comma \\boxed{5}.", CORRECT),
        (no_comma, "One, two.", "One, two.", WRONG),
        (no_comma, "<think>It never ends", None, UNPARSEABLE),
        (no_comma, "x" * 200_001, "x" * 200_001, UNPARSEABLE),
        (french, "Bonjour, je suis un chat noir.", "Bonjour, je suis un chat noir.", CORRECT),
        (french, "Hello, I am a black cat.", "Hello, I am a black cat.", WRONG),
        # What repeats the gold follows no instruction by that.
        (french, french.gold, french.gold, WRONG),
    ]
    problems = [problem for problem, *_ in expected]
    outcomes = verifier.verify(problems, [text for _, text, *_ in expected])
    assert outcomes == [(answer, verdict) for *_, answer, verdict in expected]


def test_instructions_that_cannot_be_checked_are_unreadable_golds(verifier: Verifier) -> None:
    unknown = instructions({"id": "count:emoji"})
    readable = instructions({"id": "detectable_format:title"})
    assert verifier.unreadable_golds([readable, unknown]) == [unknown]
