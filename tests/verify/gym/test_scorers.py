"""The lab's own scorers for families of reasoning-gym."""

import pytest

from reasoning_lab.types import Problem, Verdict
from reasoning_lab.verify.checkers import check, gold_error
from tests.support.verification import INTEGRAL, gym_problem

CORRECT, WRONG, UNPARSEABLE = Verdict.CORRECT, Verdict.WRONG, Verdict.UNPARSEABLE

PRODUCT = gym_problem("polynomial_multiplication", "6*x**2 - 6")


PARABOLA = gym_problem("simple_integration", "x**3/3 - x + C", integrand="x**2 - 1", variable="x")


HALF = gym_problem("coin_flip", "0.25")


@pytest.mark.parametrize(
    ("problem", "answer", "expected"),
    [
        (PRODUCT, "-6 + 6*x**2", CORRECT),
        (PRODUCT, "2*(3*x*x-3)", CORRECT),
        (PRODUCT, "x**2*12/2-6", CORRECT),
        # The task is to expand the product.
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
        (gym_problem("countdown", "4*(5 + 1)", numbers=[4, 5, 1], target=24), "(1+5)*4", CORRECT),
        (gym_problem("countdown", "4*(5 + 1)", numbers=[4, 5, 1], target=24), "4*5+4", WRONG),
        (gym_problem("countdown", "4*(5 + 1)", numbers=[4, 5, 1], target=24), "24", WRONG),
        (gym_problem("puzzle24", "6*4*1*1", numbers=[6, 4, 1, 1]), "4*6/1/1", CORRECT),
        # The four numbers differ; reasoning-gym accepts the answer.
        (gym_problem("puzzle24", "6*4*1*1", numbers=[6, 4, 1, 1]), "8*3*1*1", WRONG),
        (gym_problem("bitwise_arithmetic", "0x1e", problem="(0xf << 0x1)"), "30", CORRECT),
        (gym_problem("bitwise_arithmetic", "0x1e", problem="(0xf << 0x1)"), "0x1f", WRONG),
        (gym_problem("number_sorting", "['1.5', '2']"), "[1.5, 2.0]", CORRECT),
        (gym_problem("number_sorting", "['1.5', '2']"), "[2, 1.5]", WRONG),
        (gym_problem("number_sorting", "['1.5', '2']"), "[NaN, NaN]", UNPARSEABLE),
        (HALF, "1/4", CORRECT),
        (HALF, "25%", CORRECT),
        (HALF, "0", WRONG),
        (gym_problem("game_of_life_halting", "True"), "true", CORRECT),
        (gym_problem("game_of_life_halting", "True"), "False", WRONG),
        (gym_problem("gsm_symbolic", "18"), "18 dollars", CORRECT),
        (gym_problem("gsm_symbolic", "18"), "18\\text{ dollars}", CORRECT),
        (gym_problem("gsm_symbolic", "18"), "18 or 19", UNPARSEABLE),
        (gym_problem("gsm_symbolic", "1"), "1/2", UNPARSEABLE),
    ],
)
def test_scorers_of_families(problem: Problem, answer: str, expected: Verdict) -> None:
    assert check(problem, answer) is expected


@pytest.mark.parametrize(
    "problem",
    [
        gym_problem("polynomial_multiplication", "open('x')"),
        gym_problem("simple_integration", "x", integrand="__import__('os')", variable="x"),
        gym_problem("bitwise_arithmetic", "print(1)", problem="print(1)"),
        gym_problem("number_sorting", "[print(1)]"),
        gym_problem("countdown", "4", numbers=None),
    ],
)
def test_golds_are_not_evaluated_either(problem: Problem) -> None:
    assert gold_error(problem) is not None
