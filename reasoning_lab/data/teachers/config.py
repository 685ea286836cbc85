"""Teachers that load no model, and their options.

`ProceduralTeacherConfig` is the stand-in for DeepSeek-R1 where no large model can run. It makes two
kinds of slip, as a sampled teacher does. One kind is noticed and repaired ("Wait"). The other is
not, so the answer is wrong and rejection sampling has something to reject.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

from omegaconf import MISSING

from reasoning_lab.config.components import TeacherConfig, register_component
from reasoning_lab.config.fields import fraction
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.data.teachers.solvers import SOLVERS, Scratchpad
from reasoning_lab.data.teachers.teacher import ObservingTeacher, SolutionWriter, Teacher, boxed
from reasoning_lab.types import Completion, Problem, UserError

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
    """Chains of thought by rule, one solver a problem family; it is the teacher itself.

    Attributes:
        noticed_slip_rate: Chance that a step is first written wrong, then repaired.
        unnoticed_slip_rate: Chance that a step is written wrong and left so.
    """

    name = "procedural"

    noticed_slip_rate: float = fraction(0.03)
    unnoticed_slip_rate: float = fraction(0.02)

    def build(self) -> Teacher:
        """The teacher.

        Raises:
            UserError: The two rates are no chances of one step.
        """
        if self.noticed_slip_rate + self.unnoticed_slip_rate > 1:
            raise UserError(
                "teacher: noticed_slip_rate and unnoticed_slip_rate are chances that share one "
                f"step, got {self.noticed_slip_rate} and {self.unnoticed_slip_rate}; choose two in "
                "[0, 1] that sum to at most 1"
            )
        return self

    def open(self, hardware: HardwareConfig) -> AbstractContextManager[SolutionWriter]:
        return nullcontext(self._write)

    def refusal(self, problem: Problem) -> str | None:
        if problem.family in SOLVERS:
            return None
        return (
            f"the procedural teacher has no solver for the problem family '{problem.family}' "
            f"({problem.origin}); it knows {', '.join(sorted(SOLVERS))}; draw problems of "
            "these families, choose another teacher, or remove the stage whose teacher is fixed"
        )

    def preview(self, problem: Problem, seed: int) -> Sequence[str]:
        return self.texts(problem, 1, seed)

    def _write(
        self, problems: Sequence[Problem], samples: int, seed: int
    ) -> list[list[Completion]]:
        return [
            [Completion([], text) for text in self.texts(problem, samples, seed)]
            for problem in problems
        ]

    def texts(self, problem: Problem, samples: int, seed: int) -> list[str]:
        """Write `samples` texts, each a thought and a boxed answer.

        Raises:
            UserError: The problem's family has no solver.
        """
        if (refusal := self.refusal(problem)) is not None:
            raise UserError(f"teacher: {refusal}")
        texts = []
        for sample in range(samples):
            rng = random.Random(f"{problem.id}/{seed}/{sample}")
            pad = Scratchpad(rng, self.noticed_slip_rate, self.unnoticed_slip_rate)
            answer = SOLVERS[problem.family](problem.metadata, pad)
            texts.append("<think>\n" + "\n".join(pad.lines) + "\n</think>\n" + boxed(answer))
        return texts


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

        return RecordedTeacher(self)


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
        return MixedTeacher(self)


class MixedTeacher:
    """Two teachers for one mixture of problems: a problem's family decides which one solves it."""

    def __init__(self, config: MixedTeacherConfig) -> None:
        self._procedural = config.procedural.build()
        self._otherwise: Teacher = config.otherwise.build()
        self.name = f"{self._procedural.name}, {self._otherwise.name}"

    def refusal(self, problem: Problem) -> str | None:
        return self._teacher_for(problem).refusal(problem)

    def preview(self, problem: Problem, seed: int) -> Sequence[str]:
        return self._teacher_for(problem).preview(problem, seed)

    def _teacher_for(self, problem: Problem) -> Teacher:
        return self._procedural if problem.family in SOLVERS else self._otherwise

    def observe(self, problems: Iterator[Problem]) -> Iterator[Problem]:
        """Yield the problems unchanged; the other teacher may need to see them."""
        other = self._otherwise
        return other.observe(problems) if isinstance(other, ObservingTeacher) else problems

    @contextmanager
    def open(self, hardware: HardwareConfig) -> Iterator[SolutionWriter]:
        with (
            self._procedural.open(hardware) as write_by_rule,
            self._otherwise.open(hardware) as write_otherwise,
        ):

            def write(
                problems: Sequence[Problem], samples: int, seed: int
            ) -> list[list[Completion]]:
                by_rule = [problem for problem in problems if problem.family in SOLVERS]
                others = [problem for problem in problems if problem.family not in SOLVERS]
                completions = {
                    True: iter(write_by_rule(by_rule, samples, seed)),
                    False: iter(write_otherwise(others, samples, seed)),
                }
                return [next(completions[problem.family in SOLVERS]) for problem in problems]

            yield write


register_component("teacher", "procedural", ProceduralTeacherConfig)
register_component("teacher", "recorded", RecordedTeacherConfig)
register_component("teacher", "mixed", MixedTeacherConfig)
