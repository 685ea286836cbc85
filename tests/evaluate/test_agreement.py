r"""The same completions under our verifier, lighteval's own code and lm-evaluation-harness's.

The peers' columns are figures: lighteval 0.13.0 (its `pass_at_k_math` for `math`, its
`expr_gold_metric` for `number`) and lm-eval 0.4.13 (math_verify of `minerva_math500` for `math`,
flexible-extract of `gsm8k` for `number`), unmodified, each in an environment of its own: lighteval
pins another latex2sympy2 than math-verify does. They wrote them for exactly these rows on
2026-11-24.
"""

import pytest

from reasoning_lab.evaluate.statistics import pass_at_k
from reasoning_lab.types import Problem
from reasoning_lab.verify import Verifier

# Checker, gold, completion; 1 = correct by ours, lighteval's, lm-eval's; why they differ.
ROWS = [
    ("math", "\\frac{3}{4}", "$\\boxed{\\frac{3}{4}}$.", 1, 1, 1, ""),
    ("math", "\\frac{3}{4}", "$\\boxed{\\dfrac{3}{4}}$.", 1, 1, 1, ""),
    ("math", "\\frac{3}{4}", "$\\boxed{3/4}$.", 1, 1, 1, ""),
    ("math", "\\frac{3}{4}", "$\\boxed{0.75}$.", 1, 1, 1, ""),
    ("math", "\\frac{3}{4}", "$\\boxed{\\frac{6}{8}}$.", 1, 1, 1, ""),
    ("math", "\\frac{3}{4}", "$\\boxed{x = \\frac{3}{4}}$.", 1, 1, 1, ""),
    ("math", "\\frac{3}{4}", "$\\boxed{\\frac{4}{3}}$.", 0, 0, 0, ""),
    ("math", "\\frac{3}{4}", "$\\boxed{-\\frac{3}{4}}$.", 0, 0, 0, ""),
    ("math", "\\frac{3}{4}", "$\\boxed{0.7501}$.", 0, 0, 0, ""),
    (
        "math",
        "\\frac{3}{4}",
        "$\\boxed{75\\%}$.",
        1,
        1,
        0,
        "math-verify reads no percentage in a box",
    ),
    ("math", "5", "$\\boxed{5}$.", 1, 1, 1, ""),
    ("math", "5", "$\\boxed{5.0}$.", 1, 1, 1, ""),
    ("math", "5", "$\\boxed{5\\%}$.", 1, 0, 0, "a percentage of 5 is 5, as MATH's golds have it"),
    ("math", "5", "$\\boxed{5\\text{ cm}}$.", 1, 1, 1, ""),
    ("math", "5", "$\\boxed{5 cm}$.", 1, 0, 1, "lighteval reads no unit outside \\\\text"),
    ("math", "5", "$\\boxed{x=5}$.", 1, 1, 1, ""),
    ("math", "5", "$\\boxed{5.}$.", 1, 0, 0, "neither reads a full stop in a box"),
    ("math", "5", "$\\boxed{4+1}$.", 1, 1, 1, ""),
    ("math", "5", "$\\boxed{6}$.", 0, 0, 0, ""),
    ("math", "(1,2)", "$\\boxed{(1, 2)}$.", 1, 1, 1, ""),
    ("math", "(1,2)", "$\\boxed{\\left(1,2\\right)}$.", 1, 1, 1, ""),
    ("math", "(1,2)", "$\\boxed{(2,1)}$.", 0, 0, 0, ""),
    ("math", "(1,2)", "$\\boxed{[1,2]}$.", 0, 0, 0, ""),
    ("math", "2\\sqrt{3}", "$\\boxed{2\\sqrt{3}}$.", 1, 1, 1, ""),
    ("math", "2\\sqrt{3}", "$\\boxed{\\sqrt{12}}$.", 1, 1, 1, ""),
    (
        "math",
        "2\\sqrt{3}",
        "$\\boxed{3.464102}$.",
        0,
        0,
        1,
        "math-verify rounds to six decimals",
    ),
    ("math", "2\\sqrt{3}", "$\\boxed{3.4641}$.", 0, 0, 0, ""),
    ("math", "2\\sqrt{3}", "$\\boxed{2\\sqrt3}$.", 1, 1, 1, ""),
    ("math", "2\\sqrt{3}", "$\\boxed{3\\sqrt{2}}$.", 0, 0, 0, ""),
    (
        "math",
        "1+27i",
        "$\\boxed{1 + 27 i}$.",
        1,
        1,
        0,
        "math-verify reads `27 i` and `27i` as two things",
    ),
    ("math", "1+27i", "$\\boxed{1+27i}$.", 1, 1, 1, ""),
    ("math", "1+27i", "$\\boxed{1-27i}$.", 0, 0, 0, ""),
    ("math", "31_4", "$\\boxed{31_4}$.", 1, 1, 1, ""),
    ("math", "31_4", "$\\boxed{31_{4}}$.", 1, 1, 1, ""),
    ("math", "31_4", "$\\boxed{31_{\\text{four}}}$.", 1, 0, 0, "neither reads the base"),
    ("math", "31_4", "$\\boxed{(31)_4}$.", 1, 0, 0, "neither reads the base"),
    ("math", "31_4", "$\\boxed{31_5}$.", 0, 1, 1, "neither reads the base"),
    ("math", "12\\%", "$\\boxed{0.12}$.", 1, 1, 0, "math-verify reads no percentage in a box"),
    ("math", "12\\%", "$\\boxed{12\\%}$.", 1, 1, 1, ""),
    ("math", "12\\%", "$\\boxed{12}$.", 1, 0, 0, "12% as 12, as MATH's golds have it"),
    ("math", "12\\%", "$\\boxed{0.012}$.", 0, 0, 0, ""),
    ("math", "0.12", "$\\boxed{12\\%}$.", 1, 1, 0, "math-verify reads no percentage in a box"),
    ("math", "0.12", "$\\boxed{12}$.", 0, 0, 0, ""),
    ("math", "1234", "$\\boxed{1,234}$.", 1, 1, 1, ""),
    ("math", "1234", "$\\boxed{1234}$.", 1, 1, 1, ""),
    ("math", "1234", "$\\boxed{1{,}234}$.", 1, 1, 1, ""),
    ("math", ".0000672", "$\\boxed{0.0000672}$.", 1, 1, 1, ""),
    ("math", "12", "So \\boxed {12}.", 1, 0, 0, "a space before the brace"),
    (
        "math",
        "12",
        "First \\boxed{11}, no: \\boxed{12}",
        1,
        1,
        0,
        "math-verify takes the first of two boxes",
    ),
    ("math", "12", "First \\boxed{12}, no: \\boxed{11}", 0, 0, 0, ""),
    ("math", "12", "The answer is 12.", 0, 1, 1, "only a boxed answer counts here"),
    (
        "math",
        "12",
        "<think>\\boxed{12}</think> So it is.",
        0,
        0,
        1,
        "a box in the thought is a draft",
    ),
    (
        "math",
        "12",
        "<think>\\boxed{12}? Let me check",
        0,
        1,
        1,
        "a thought that never ends leaves no answer",
    ),
    ("math", "5", "$\\boxed{\\leq 5}$.", 0, 1, 1, "both drop a relation without a left side"),
    ("math", "1234", "$\\boxed{1\\,234}$.", 1, 0, 0, "both read a mixed number"),
    ("math", "1234", "$\\boxed{1 234}$.", 1, 0, 0, "both read a mixed number"),
    ("math", ".0000672", "$\\boxed{0.000067}$.", 0, 1, 1, "both round to six decimals"),
    ("math", "12", "-\\boxed{12}", 0, 1, 1, "both lose the sign before the box"),
    ("number", "18", "\\boxed{18}", 1, 1, 1, ""),
    ("number", "18", "\\boxed{\\$18}", 1, 1, 1, ""),
    ("number", "18", "\\boxed{18 apples}", 1, 0, 1, "lighteval reads no unit outside \\\\text"),
    ("number", "18", "\\boxed{18.00}", 1, 1, 0, "flexible-extract compares texts"),
    ("number", "18", "\\boxed{x = 18}", 1, 1, 1, ""),
    ("number", "18", "\\boxed{9 \\times 2 = 18}", 1, 1, 1, ""),
    (
        "number",
        "18",
        "\\boxed{18\\%}",
        1,
        0,
        1,
        "a percentage of 18 is 18, as GSM8K's golds have it",
    ),
    ("number", "18", "\\boxed{1{,}8}", 0, 0, 0, ""),
    ("number", "18", "\\boxed{19}", 0, 0, 0, ""),
    ("number", "18", "\\boxed{36/2}", 1, 1, 0, "flexible-extract takes the last number"),
    ("number", "18", "The answer is 18.", 0, 1, 1, "only a boxed answer counts here"),
    ("number", "18", "#### 18", 0, 1, 1, "only a boxed answer counts here"),
]


def ours(rows: list[tuple[str, str, str]]) -> list[int]:
    problems = [Problem(f"{n}", gold, checker, "f") for n, (checker, gold, _) in enumerate(rows)]
    with Verifier(workers=1, timeout_s=20, memory_mb=1024) as verifier:
        verdicts = verifier.verify(problems, [text for _, _, text in rows])
    return [int(verdict == "correct") for _, verdict in verdicts]


def test_verdicts_are_the_peers_but_where_it_says_why() -> None:
    verdicts = ours([(checker, gold, text) for checker, gold, text, *_ in ROWS])
    assert verdicts == [row[3] for row in ROWS]
    for checker, gold, text, lab, lighteval, lm_eval, why in ROWS:
        assert (lab == lighteval == lm_eval) == (not why), (checker, gold, text)


@pytest.mark.parametrize(
    ("correct", "samples", "k", "expected"),
    # lighteval's PassAtK on the same counts.
    [
        (3, 8, 2, 9 / 14),
        (1, 64, 16, 1 / 4),
        (32, 64, 4, 0.9434035909445745),
        (5, 16, 8, 0.9871794871794872),
    ],
)
def test_pass_at_k_is_the_peers(correct: int, samples: int, k: int, expected: float) -> None:
    right = [[place < correct for place in range(samples)]]
    assert pass_at_k(right, k).mean == pytest.approx(expected, rel=1e-11)


def test_a_variable_with_an_index_is_no_number_in_a_base() -> None:
    rows = [("math", "c_1", f"\\boxed{{{answer}}}") for answer in ("c_1", "b_1")]
    assert ours([*rows, ("math", "A3_16", "\\boxed{a3_{16}}")]) == [1, 0, 1]
