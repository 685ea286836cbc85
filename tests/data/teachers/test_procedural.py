"""The procedural teacher: right unless it slips, seeded, and refusing what it cannot solve."""

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
from omegaconf import OmegaConf

from reasoning_lab.config.folder import CONF
from reasoning_lab.config.targets import TRUSTED_VARIABLE
from reasoning_lab.data.sources.reasoning_gym import generated_problems
from reasoning_lab.data.teachers.config import ProceduralTeacherConfig
from reasoning_lab.data.teachers.solvers import SOLVER_KEY, SOLVERS, Scratchpad
from reasoning_lab.types import Problem, UserError, Verdict
from reasoning_lab.verify import extract_answer
from reasoning_lab.verify.checkers import check

OPTIONS: list[dict[str, Any]] = [
    OmegaConf.to_container(OmegaConf.load(CONF / "data" / f"{name}.yaml"))  # type: ignore[misc]
    for name in ("tiny", "logic", "strings", "graphs")
]
# The families of the options that the procedural teacher solves alone.
FAMILIES: dict[str, dict[int, Any]] = {
    family: levels for option in OPTIONS for family, levels in option["families"].items()
}
CELLS = [(family, level) for family, levels in FAMILIES.items() for level in levels]
# Two wrong steps may cancel where an answer is one of two, or a small number.
FORGIVING = {"aiw", "count_primes", "course_schedule", "gcd", "letter_counting", "syllogism"}


def verdict(problem: Problem, text: str) -> Verdict:
    answer = extract_answer(text)
    return Verdict.UNPARSEABLE if answer is None else check(problem, answer)


@functools.cache
def generated(family: str, level: int, count: int = 40) -> list[Problem]:
    """Problems of a cell, without regard to splits: a small family has few of each."""
    return list(islice(generated_problems(family, level, FAMILIES[family][level], seed=5), count))


def test_the_teacher_solves_every_family_of_its_options_at_three_levels() -> None:
    assert len(FAMILIES) >= 17
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


@pytest.mark.parametrize(("family", "level"), CELLS)
def test_a_chain_of_slips_ends_and_is_mostly_wrong(family: str, level: int) -> None:
    teacher = ProceduralTeacherConfig(0.0, 1.0)
    problems = generated(family, level)
    wrong = sum(
        verdict(problem, teacher.texts(problem, 1, 0)[0]) is not Verdict.CORRECT
        for problem in problems
    )
    assert wrong > len(problems) * (0.3 if family in FORGIVING else 0.7)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_solver_reads_the_gold(family: str) -> None:
    teacher = ProceduralTeacherConfig(0.2, 0.2)
    solutions = ("solution", "solvable", "is_valid", "relationship", "clear_text", "sorted_words")
    for problem in generated(family, 2)[:10]:
        rest = {key: value for key, value in problem.metadata.items() if key not in solutions}
        del rest["source_index"]
        hidden = dataclasses.replace(problem, gold="?", metadata={**rest, "goal_path": []})
        assert teacher.texts(hidden, 2, 0) == teacher.texts(problem, 2, 0)


@pytest.mark.long
@pytest.mark.parametrize(("family", "level"), CELLS)
def test_teacher_without_slips_is_right_on_hundreds(family: str, level: int) -> None:
    teacher = ProceduralTeacherConfig(0.0, 0.0)
    for problem in generated(family, level, 400):
        (text,) = teacher.texts(problem, 1, 0)
        assert verdict(problem, text) is Verdict.CORRECT, (problem.prompt, text)


def test_metadata_that_was_stored_as_json_gives_the_same_chains() -> None:
    teacher = ProceduralTeacherConfig(0.1, 0.1)
    for family in FAMILIES:
        problem = generated(family, 3)[0]
        stored = Problem(**json.loads(json.dumps(dataclasses.asdict(problem))))
        assert teacher.texts(stored, 2, 0) == teacher.texts(problem, 2, 0)


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


def failing(problem: Problem, pad: Scratchpad) -> str:
    return str(problem.metadata["nothing of this name"])


def silent(problem: Problem, pad: Scratchpad) -> None:
    pad.lines.append("I give up.")


def of_our_own(problem: Problem, pad: Scratchpad) -> str:
    return str(pad.step("I see {}", len(problem.prompt)))


def with_solver(monkeypatch: pytest.MonkeyPatch, solver: Callable[..., Any]) -> Problem:
    monkeypatch.setenv(TRUSTED_VARIABLE, "tests")
    metadata = {SOLVER_KEY: f"{__name__}.{solver.__name__}"}
    return Problem("How long?", "9", "number", "gcd", metadata=metadata)


def test_a_solver_of_the_users_own_takes_the_place_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = with_solver(monkeypatch, of_our_own)
    (text,) = ProceduralTeacherConfig(0.0, 0.0).texts(problem, 1, 0)
    assert text == "<think>\nI see 9\n</think>\n\\boxed{9}"


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (failing, "fails on .*KeyError.*nothing of this name"),
        (silent, "answer is None; return a text"),
    ],
)
def test_a_solver_that_fails_is_named(
    monkeypatch: pytest.MonkeyPatch, solver: Callable[..., Any], message: str
) -> None:
    problem = with_solver(monkeypatch, solver)
    with pytest.raises(UserError, match=rf"data\.solvers\.gcd: .*{message}"):
        ProceduralTeacherConfig(0.0, 0.0).texts(problem, 1, 0)


def test_a_problem_cannot_name_code_that_is_not_trusted() -> None:
    problem = Problem("?", "1", "number", "gcd", metadata={SOLVER_KEY: "os.system"})
    with pytest.raises(UserError, match=r"data\.solvers\.gcd: 'os\.system' may not be named"):
        ProceduralTeacherConfig(0.0, 0.0).texts(problem, 1, 0)
