"""Two teachers for one mixture of problems: each problem is the business of one of them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from reasoning_lab.config.components import TeacherConfig
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.data.teachers.procedural import Surveying, Teacher, Writing
from reasoning_lab.types import Completion, Problem


class MixedTeacher:
    """The procedural teacher for the families that it has a method for, another for all others.

    Args:
        procedural: Options of a `ProceduralTeacher`.
        otherwise: Options of the other teacher.
    """

    def __init__(self, procedural: TeacherConfig, otherwise: TeacherConfig) -> None:
        self._procedural: Teacher = procedural.build()
        self._otherwise: Teacher = otherwise.build()
        self.name = f"{self._procedural.name}, {self._otherwise.name}"

    def refusal(self, problem: Problem) -> str | None:
        return self._teacher_of(problem).refusal(problem)

    def preview(self, problem: Problem, seed: int) -> Sequence[str]:
        return self._teacher_of(problem).preview(problem, seed)

    def _teacher_of(self, problem: Problem) -> Teacher:
        from reasoning_lab.data.teachers.methods import METHODS

        return self._procedural if problem.family in METHODS else self._otherwise

    def survey(self, problems: Iterator[Problem]) -> Iterator[Problem]:
        """The problems as they come, which the other teacher may have to see."""
        other = self._otherwise
        return other.survey(problems) if isinstance(other, Surveying) else problems

    @contextmanager
    def open(self, hardware: HardwareConfig) -> Iterator[Writing]:
        from reasoning_lab.data.teachers.methods import METHODS

        with (
            self._procedural.open(hardware) as by_rule,
            self._otherwise.open(hardware) as otherwise,
        ):

            def write(
                problems: Sequence[Problem], samples: int, seed: int
            ) -> list[list[Completion]]:
                known = [problem for problem in problems if problem.family in METHODS]
                rest = [problem for problem in problems if problem.family not in METHODS]
                ruled = iter(by_rule(known, samples, seed))
                others = iter(otherwise(rest, samples, seed))
                return [
                    next(ruled if problem.family in METHODS else others) for problem in problems
                ]

            yield write
