"""The procedural teacher: right unless it slips, seeded, and refusing what it cannot solve."""

from collections import Counter
from itertools import islice
from typing import Any

import pytest
from omegaconf import OmegaConf

from reasoning_lab.config.folder import CONF
from reasoning_lab.data.sources.reasoning_gym import generated_problems
from reasoning_lab.data.teachers.config import ProceduralTeacherConfig
from reasoning_lab.data.teachers.solvers import SOLVERS
from reasoning_lab.types import Problem, UserError, Verdict
from reasoning_lab.verify import extract_answer
from reasoning_lab.verify.checkers import check

TINY: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(CONF / "data" / "tiny.yaml"))  # type: ignore[assignment]
FAMILIES: dict[str, dict[int, Any]] = TINY["families"]
CELLS = [(family, level) for family, levels in FAMILIES.items() for level in levels]


def verdict(problem: Problem, text: str) -> Verdict:
    answer = extract_answer(text)
    return Verdict.UNPARSEABLE if answer is None else check(problem, answer)


def generated(family: str, level: int) -> list[Problem]:
    """Forty problems of a cell, without regard to splits: a small family has few of each."""
    return list(islice(generated_problems(family, level, FAMILIES[family][level], seed=5), 40))


def test_shipped_families_are_at_least_six_with_three_levels_and_a_solver() -> None:
    assert len(FAMILIES) >= 6
    assert all(sorted(levels) == [1, 2, 3] for levels in FAMILIES.values())
    assert set(FAMILIES) <= set(SOLVERS)


@pytest.mark.parametrize(("family", "level"), CELLS)
def test_teacher_without_slips_is_right(family: str, level: int) -> None:
    teacher = ProceduralTeacherConfig(0.0, 0.0)
    for problem in generated(family, level):
        (text,) = teacher.texts(problem, 1, 0)
        assert verdict(problem, text) is Verdict.CORRECT, (problem.prompt, text)
        assert text.startswith("<think>\n")
        assert "Wait" not in text


@pytest.mark.parametrize(("family", "level"), CELLS)
def test_noticed_slips_are_repaired(family: str, level: int) -> None:
    teacher = ProceduralTeacherConfig(0.5, 0.0)
    waits = 0
    for problem in generated(family, level):
        for text in teacher.texts(problem, 2, 0):
            waits += "Wait" in text
            assert verdict(problem, text) is Verdict.CORRECT, (problem.prompt, text)
    assert waits > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_unnoticed_slips_leave_wrong_answers(family: str) -> None:
    teacher = ProceduralTeacherConfig(0.0, 0.5)
    verdicts = Counter(
        verdict(problem, text)
        for problem in generated(family, 2)
        for text in teacher.texts(problem, 2, 0)
    )
    assert verdicts[Verdict.WRONG] > 10
    assert verdicts[Verdict.UNPARSEABLE] == verdicts[Verdict.TIMEOUT] == 0


def test_rollouts_are_seeded_and_differ() -> None:
    teacher = ProceduralTeacherConfig(0.4, 0.0)
    problem = generated("chain_sum", 3)[0]
    first = list(teacher.texts(problem, 4, 0))
    assert first == list(teacher.texts(problem, 4, 0))
    assert list(teacher.texts(problem, 2, 0)) == first[:2]
    assert len({*first, *teacher.texts(problem, 4, 1)}) > 2


@pytest.mark.parametrize("rates", [(1.0, 0.1), (0.6, 0.6)])
def test_impossible_slip_rates_are_refused(rates: tuple[float, float]) -> None:
    with pytest.raises(UserError, match="sum to at most 1"):
        ProceduralTeacherConfig(*rates).build()


def test_family_without_a_solver_is_named() -> None:
    with pytest.raises(UserError, match=r"'sudoku'.*chain_sum"):
        ProceduralTeacherConfig(0, 0).texts(Problem("?", "1", "math", "sudoku"), 1, 0)
