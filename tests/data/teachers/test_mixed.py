"""Two teachers for one mixture: whose business a problem is, and that their order is kept."""

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.data.teachers.config import (
    MixedTeacherConfig,
    ProceduralTeacherConfig,
    RecordedTeacherConfig,
)
from reasoning_lab.data.teachers.recorded import RecordedTeacher
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
