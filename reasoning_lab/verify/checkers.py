"""Compare an answer with gold by the problem's own rule; runs inside the pool's workers.

Two kinds of checker: `reasoning_gym/<family>` is that family's `score_answer`, `math` is
math-verify (https://github.com/huggingface/Math-Verify). Neither limits its own time or memory:
the pool does. Some reasoning-gym scorers (e.g. `countdown`) evaluate the answer as a Python
expression, and a worker process is no sandbox against that.
"""

import logging
import re
from functools import cache, lru_cache
from typing import Any

import math_verify
import reasoning_gym

from reasoning_lab.types import Problem, UserError, Verdict

_NUMERIC = re.compile(r"(?:\\[dt]?frac|[-+*/.,_(){}$\s0-9eEijIJ])+")
# With these left in, "3$ or $5" would be read as its last part alone.
_MATH_MODE = re.compile(r"(?<!\\)\$")
_DIGIT = re.compile(r"[0-9]")

# It warns once a process that its timeouts are off, which is what the pool wants.
logging.getLogger("math_verify").setLevel(logging.ERROR)


def check(problem: Problem, answer: str) -> Verdict:
    """Say whether `answer` matches `problem.gold` under `problem.checker`.

    Never returns TIMEOUT, which is the pool's to give.

    Raises:
        UserError: The checker is unknown, or can't read the problem's gold: a data error.
        MemoryError: The worker's cap was reached and the checker's library didn't swallow it.
    """
    kind, _, family = problem.checker.partition("/")
    if problem.checker == "math":
        return _check_math(problem, answer)
    if kind == "reasoning_gym":
        return _check_reasoning_gym(problem, answer, family)
    raise UserError(
        f"{_name(problem)}: unknown checker '{problem.checker}'; "
        "use 'math' or 'reasoning_gym/<family>'"
    )


def _check_math(problem: Problem, answer: str) -> Verdict:
    gold = _parse_math(problem.gold)
    if not gold:
        raise UserError(
            f"{_name(problem)}: math-verify can't read the gold {problem.gold!r}; "
            "correct or drop this problem in its data source"
        )
    parsed = _parse_math(answer)
    if not parsed:
        return Verdict.UNPARSEABLE
    # Not symmetric: gold comes first.
    equal = math_verify.verify(gold, parsed, timeout_seconds=None)
    return Verdict.CORRECT if equal else Verdict.WRONG


@lru_cache(maxsize=256)
def _parse_math(text: str) -> list[Any]:
    """Read `text` as one formula; empty when math-verify can't.

    Cached because the samples of one problem share its gold.
    """
    formula = _MATH_MODE.sub("", text)
    # It reads no percentage inside a box, and outside one it reads what it can of a broken formula.
    wrapped = f"${formula}$" if formula.endswith("%") else f"\\boxed{{{formula}}}"
    parsed: list[Any] = math_verify.parse(
        wrapped, fallback_mode="no_fallback", parsing_timeout=None
    )
    return parsed


def _check_reasoning_gym(problem: Problem, answer: str, family: str) -> Verdict:
    """Call a full score correct; a partial one (reasoning-gym gives some) is wrong.

    Where gold is a number, what doesn't look like one is unparseable.
    """
    dataset = _dataset(problem, family)
    entry = {"question": problem.prompt, "answer": problem.gold, "metadata": problem.metadata}
    numeric = _NUMERIC.fullmatch(problem.gold) and _DIGIT.search(problem.gold)
    # `complex_arithmetic` scores min(1.0, exp(-distance)), which is 1.0 for a distance of NaN.
    if numeric and "nan" in answer.lower():
        return Verdict.UNPARSEABLE
    try:
        score = dataset.score_answer(answer, entry)
    except MemoryError:
        raise
    except Exception:
        _require_scorable_gold(problem, dataset, entry)
        score = 0.0
    if score == 1.0:
        return Verdict.CORRECT
    return Verdict.UNPARSEABLE if numeric and not _NUMERIC.fullmatch(answer) else Verdict.WRONG


def _require_scorable_gold(problem: Problem, dataset: Any, entry: dict[str, Any]) -> None:
    """Tell a scorer that chokes on the answer from one that chokes on the problem."""
    try:
        dataset.score_answer(problem.gold, entry)
    except Exception as error:
        raise UserError(
            f"{_name(problem)}: '{problem.checker}' can't score the gold {problem.gold!r} "
            f"({type(error).__name__}: {error}); correct its gold and metadata in the data source"
        ) from error


def _dataset(problem: Problem, family: str) -> Any:
    try:
        return _dataset_of(family)
    except ValueError as error:
        raise UserError(
            f"{_name(problem)}: reasoning-gym has no family '{family}' (checker "
            f"'{problem.checker}'); see its gallery for the names"
        ) from error


@cache
def _dataset_of(family: str) -> Any:
    return reasoning_gym.create_dataset(family)


def _name(problem: Problem) -> str:
    return f"problem {problem.id} ({' '.join(problem.prompt.split())[:60]!r})"
