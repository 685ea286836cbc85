"""Problems on the disk are read as they were drawn."""

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import pytest

from reasoning_lab.data.problem_file import ProblemFile, Selected
from reasoning_lab.types import Problem

PROBLEMS = [
    Problem(f"prompt é {number} " * number, str(number), "math", "f", number % 3, {"of": [number]})
    for number in range(50)
]


@pytest.fixture
def problems(tmp_path: Path) -> ProblemFile:
    return ProblemFile(iter(PROBLEMS), tmp_path / "work")


def test_problems_are_those_that_were_given(problems: ProblemFile, tmp_path: Path) -> None:
    assert list(problems) == list(problems) == PROBLEMS
    assert (problems[0], problems[-1], len(problems)) == (PROBLEMS[0], PROBLEMS[-1], 50)
    for place in (50, -51):
        with pytest.raises(IndexError):
            problems[place]
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize("part", [slice(1, None, 2), slice(3, 9), slice(40, 99), slice(0, 0)])
def test_slices_are_those_of_a_list(part: slice, problems: ProblemFile) -> None:
    assert list(problems[part]) == PROBLEMS[part]
    assert list(problems[5:45][part]) == PROBLEMS[5:45][part]
    places = list(range(49, 0, -3))
    selected = Selected(problems, places)
    assert len(selected[part]) == len(places[part])
    assert list(selected[part]) == [PROBLEMS[place] for place in places[part]]


def test_what_a_checker_reads_keeps_its_type(tmp_path: Path) -> None:
    problem = Problem("a?", "3", "reasoning_gym/x", "x", 1, {"part": Fraction(1, 3), "at": (1, 2)})
    assert list(ProblemFile([problem], tmp_path)) == [problem]
    assert list(ProblemFile([], tmp_path)) == []


def test_threads_read_at_once(problems: ProblemFile) -> None:
    with ThreadPoolExecutor(4) as threads:
        places = [place % 50 for place in range(2000)]
        read = list(threads.map(lambda place: problems[place], places))
    assert read == [PROBLEMS[place] for place in places]
