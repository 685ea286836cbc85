"""How the procedural teacher solves each problem family: one function a family.

A solver reads a problem's prompt, or the metadata that reasoning-gym stores with it, and writes its
working on the scratchpad. It returns the answer that the working leads to. Everything that could be
wrong goes through `Scratchpad.step`; nothing reads the gold answer.
"""

from collections.abc import Callable, Mapping

from reasoning_lab.config.targets import resolve
from reasoning_lab.data.teachers.solvers import arithmetic, graphs, logic, strings
from reasoning_lab.data.teachers.solvers.scratchpad import Scratchpad
from reasoning_lab.types import Problem, UserError

__all__ = ["SOLVERS", "SOLVER_KEY", "Scratchpad", "Solver", "solve", "solver_of"]

# Where a problem's metadata names a solver of the user's own, as `data.solvers` has it.
SOLVER_KEY = "solver"

Solver = Callable[[Problem, Scratchpad], str]

SOLVERS: Mapping[str, Solver] = {
    "aiw": logic.aiw,
    "caesar_cipher": strings.caesar_cipher,
    "chain_sum": arithmetic.chain_sum,
    "complex_arithmetic": arithmetic.complex_arithmetic,
    "count_primes": arithmetic.count_primes,
    "course_schedule": graphs.course_schedule,
    "family_relationships": graphs.family_relationships,
    "fraction_simplification": arithmetic.fraction_simplification,
    "gcd": arithmetic.gcd,
    "knights_knaves": logic.knights_knaves,
    "leg_counting": arithmetic.leg_counting,
    "letter_counting": strings.letter_counting,
    "path_star": graphs.path_star,
    "simple_equations": arithmetic.simple_equations,
    "spell_backward": strings.spell_backward,
    "syllogism": logic.syllogism,
    "word_sorting": strings.word_sorting,
}


def solver_of(problem: Problem) -> Solver | None:
    """What solves the problem: its own solver if its source named one, else that of its family.

    Raises:
        UserError: Its own solver is no import path that a config may name.
    """
    path = problem.metadata.get(SOLVER_KEY)
    if path is None:
        return SOLVERS.get(problem.family)
    return resolve(str(path), f"data.solvers.{problem.family}")


def solve(solver: Solver, problem: Problem, pad: Scratchpad) -> str:
    """The answer to which the chain on `pad` leads.

    Raises:
        UserError: The solver fails, or its answer is no text.
    """
    where = f"data.solvers.{problem.family}"
    try:
        answer = solver(problem, pad)
    except Exception as error:
        raise UserError(
            f"{where}: the solver fails on {problem.origin} ({type(error).__name__}: {error}); "
            "correct it"
        ) from error
    if not isinstance(answer, str):
        raise UserError(f"{where}: the solver's answer is {answer!r}; return a text")
    return answer
