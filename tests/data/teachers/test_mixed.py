"""Two teachers for one mixture: whose business a problem is, and that their order is kept."""

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import pytest

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.data.teachers.config import (
    MixedTeacherConfig,
    ProceduralTeacherConfig,
    RecordedOrModelConfig,
    RecordedTeacherConfig,
)
from reasoning_lab.data.teachers.recorded import RecordedTeacher
from reasoning_lab.data.teachers.teacher import ObservingTeacher, SolutionWriter
from reasoning_lab.types import Problem

RECORDED = RecordedTeacherConfig()
PROCEDURAL = ProceduralTeacherConfig()


def test_each_problem_has_its_own_teachers_solution_in_its_own_place() -> None:
    story = Problem("How many?", "5", "number", "gsm8k", 1, {"solutions": ["2+3 = 5\n#### 5"]})
    legs = [
        Problem(f"{count} dogs?", str(4 * count), "number", "leg_counting", 1, {"animals": animals})
        for count, animals in ((2, {"dog": 2}), (3, {"dog": 3}))
    ]
    problems = [legs[0], story, legs[1]]
    teacher = MixedTeacherConfig(PROCEDURAL, RECORDED).build()
    with teacher.open(HardwareConfig()) as writing:
        written = [[done.text for done in completions] for completions in writing(problems, 2, 7)]
    recorded = RecordedTeacher(RECORDED)
    assert written[0] == PROCEDURAL.texts(legs[0], 2, 7)
    assert written[1] == [recorded.completion("2+3 = 5\n#### 5").text]
    assert written[2] == PROCEDURAL.texts(legs[1], 2, 7)
    assert teacher.name == "procedural, recorded"


@dataclass
class RefusingTeacherConfig(ProceduralTeacherConfig):
    """Fails if it is opened."""

    def open(self, hardware: HardwareConfig) -> AbstractContextManager[SolutionWriter]:
        raise AssertionError("nobody needs this teacher")


def test_recorded_solutions_need_no_model() -> None:
    story = Problem("How many?", "5", "number", "gsm8k", 1, {"solutions": ["2+3 = 5\n#### 5"]})
    teacher = RecordedOrModelConfig(RECORDED, RefusingTeacherConfig()).build()
    with teacher.open(HardwareConfig()) as writing:
        ((completion,),) = writing([story], 4, 7)
    assert completion.text.endswith("\\boxed{5}")


def test_a_row_without_a_solution_has_the_other_teacher(caplog: pytest.LogCaptureFixture) -> None:
    story = Problem("How many?", "5", "number", "gsm8k", 1, {"solutions": ["2+3 = 5\n#### 5"]})
    legs = Problem("2 dogs?", "8", "number", "leg_counting", 1, {"animals": {"dog": 2}})
    empty = replace(legs, metadata={**legs.metadata, "solutions": []})
    teacher = RecordedOrModelConfig(RECORDED, PROCEDURAL).build()
    assert isinstance(teacher, ObservingTeacher)
    problems = [legs, story, empty]
    assert list(teacher.observe(iter(problems))) == problems
    with caplog.at_level(logging.INFO), teacher.open(HardwareConfig()) as writing:
        written = [len(completions) for completions in writing(problems, 2, 7)]
    assert written == [2, 1, 2]
    assert "Of 3 problems 1 have 'recorded' as teacher, and 2 have 'procedural'." in caplog.text
