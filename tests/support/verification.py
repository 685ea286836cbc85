"""Problems for tests of the verifier, and the verdicts on them."""

from typing import Any

import reasoning_gym

from reasoning_lab.types import Problem, Verdict
from reasoning_lab.verify.checkers import check

# Families that the lab ships, with the options that its data sources use.
SHIPPED_FAMILIES: dict[str, dict[str, Any]] = {
    "aiw": {"task_type_weights": [0, 1, 0]},
    "basic_arithmetic": {},
    "bitwise_arithmetic": {},
    "caesar_cipher": {},
    "calendar_arithmetic": {},
    "chain_sum": {},
    "complex_arithmetic": {},
    "count_primes": {},
    "course_schedule": {},
    "decimal_chain_sum": {"max_decimal_places": 3},
    "dice": {},
    "family_relationships": {},
    "fraction_simplification": {},
    "gcd": {},
    "gsm_symbolic": {},
    "knights_knaves": {},
    "lcm": {},
    "leg_counting": {},
    "letter_counting": {},
    "path_star": {},
    "polynomial_equations": {"max_degree": 3},
    "polynomial_multiplication": {"max_polynomials": 2},
    "prime_factorization": {},
    "products": {},
    "simple_equations": {},
    "simple_integration": {"max_terms": 3},
    "spell_backward": {},
    "syllogism": {},
    "word_sorting": {},
}
# Further families whose scorer the lab replaces: it evaluates text, or accepts wrong answers.
REPLACED_FAMILIES = [
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
INTEGRAL = Problem(
    "Integrate x*cos(x).",
    "x*sin(x) + cos(x) + C",
    "reasoning_gym/intermediate_integration",
    "f",
    metadata={"integrand": "x*cos(x)", "variable": "x"},
)


def boxed(answer: str) -> str:
    return f"\\boxed{{{answer}}}"


def gym_problem(family: str, gold: str, **metadata: Any) -> Problem:
    return Problem(f"{family}?", gold, f"reasoning_gym/{family}", family, metadata=metadata)


def generated_problems(family: str, count: int = 1) -> list[Problem]:
    """Problems that reasoning-gym generates."""
    options = SHIPPED_FAMILIES.get(family, {})
    entries = reasoning_gym.create_dataset(family, seed=5, size=count, **options)
    return [
        Problem(
            entries[at]["question"],
            entries[at]["answer"],
            f"reasoning_gym/{family}",
            family,
            metadata=entries[at]["metadata"],
        )
        for at in range(count)
    ]


def verdict(checker: str, gold: str, answer: str, **metadata: Any) -> Verdict:
    return check(Problem("q?", gold, checker, "f", metadata=metadata), answer)
