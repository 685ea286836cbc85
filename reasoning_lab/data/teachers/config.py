"""Options of the teachers that load no model; a teacher is imported when it is built."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from reasoning_lab.config.components import TeacherConfig, register_component
from reasoning_lab.config.fields import fraction
from reasoning_lab.data.teachers.teacher import Teacher

# "answer is (B)", "Option B"; "B is correct"; what "answer is:" says; a letter alone at the end.
ANSWER_PATTERN = (
    r"(?i:answer|ans|option|choice)[^A-Za-z0-9]{0,9}"
    r"(?:(?i:is|will be|option|choice)[^A-Za-z0-9]{1,9}){0,2}([A-E])\b"
    r"|\b([A-E]) is (?i:the )?(?i:correct|right|answer)"
    r"|(?i:answer is:)([^\n]+)"
    r"|[=\s]([A-E])\W{0,9}\Z"
)


@dataclass
class ProceduralTeacherConfig(TeacherConfig):
    """Chains of thought by rule, with slips at set rates.

    Attributes:
        noticed_slip_rate: Chance that a step is first written wrong, then repaired.
        unnoticed_slip_rate: Chance that a step is written wrong and left so.
    """

    noticed_slip_rate: float = fraction(0.03)
    unnoticed_slip_rate: float = fraction(0.02)

    def build(self) -> Teacher:
        from reasoning_lab.data.teachers.procedural import ProceduralTeacher

        return ProceduralTeacher(**self.arguments())


@dataclass
class RecordedTeacherConfig(TeacherConfig):
    """The dataset's own solutions, from the column that `data.rows.solutions` names.

    Attributes:
        answer_pattern: Regular expression of a final answer in prose, for solutions without a box
            or `####`. The answer is its only group that matches; the last match counts.
        marks: Pairs of marks that open and close a thought in the dataset's texts, in addition to
            those of the common families, e.g. `[['<cot>', '</cot>']]`. Case is ignored. They become
            `<think>` and `</think>`.
    """

    answer_pattern: str = ANSWER_PATTERN
    marks: list[list[str]] = field(default_factory=list)

    def build(self) -> Teacher:
        from reasoning_lab.data.teachers.recorded import RecordedTeacher

        return RecordedTeacher(**self.arguments())


@dataclass
class MixedTeacherConfig(TeacherConfig):
    """The procedural teacher for the families that it has a solver for, another for all others.

    Attributes:
        procedural: Options of the procedural teacher.
        otherwise: The other teacher.
    """

    procedural: ProceduralTeacherConfig = field(default_factory=ProceduralTeacherConfig)
    otherwise: TeacherConfig = MISSING

    def check(self, key: str) -> None:
        self.procedural.check(f"{key}.procedural")
        self.otherwise.check(f"{key}.otherwise")

    def build(self) -> Teacher:
        from reasoning_lab.data.teachers.mixed import MixedTeacher

        return MixedTeacher(**self.arguments())


register_component("teacher", "procedural", ProceduralTeacherConfig)
register_component("teacher", "recorded", RecordedTeacherConfig)
register_component("teacher", "mixed", MixedTeacherConfig)
