"""Two teachers for one mixture of problems: a problem's family decides which of them solves it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from reasoning_lab.config.components import TeacherConfig
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.data.teachers.solvers import SOLVERS
from reasoning_lab.data.teachers.teacher import ObservingTeacher, SolutionWriter, Teacher
from reasoning_lab.types import Completion, Problem


class MixedTeacher:
    """The procedural teacher for the families that it has a solver for, another for all others.

    Its arguments are the fields of `MixedTeacherConfig`, which describes them.
    """

    def __init__(self, procedural: TeacherConfig, otherwise: TeacherConfig) -> None:
        self._procedural: Teacher = procedural.build()
        self._otherwise: Teacher = otherwise.build()
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
                rule_completions = iter(write_by_rule(by_rule, samples, seed))
                other_completions = iter(write_otherwise(others, samples, seed))
                return [
                    next(rule_completions if problem.family in SOLVERS else other_completions)
                    for problem in problems
                ]

            yield write
