"""Teachers that load no model, and their options.

`ProceduralTeacherConfig` is the stand-in for DeepSeek-R1 where no large model can run. It makes two
kinds of slip, as a sampled teacher does. One kind is noticed and repaired ("Wait"). The other is
not, so the answer is wrong and rejection sampling has something to reject.
"""

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field

from omegaconf import MISSING

from reasoning_lab.config.components import TeacherConfig, register_component
from reasoning_lab.config.fields import fraction
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.data.teachers.solvers import SOLVERS, Scratchpad, solve, solver_of
from reasoning_lab.data.teachers.teacher import ObservingTeacher, SolutionWriter, Teacher
from reasoning_lab.types import Completion, Problem, UserError
from reasoning_lab.verify.extraction import boxed

log = logging.getLogger(__name__)

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
        if solver_of(problem) is not None:
            return None
        is_generated = problem.checker.startswith("reasoning_gym/")
        remedy = "name one in data.solvers" if is_generated else "draw problems of these families"
        return (
            f"the procedural teacher has no solver for the problem family '{problem.family}' "
            f"({problem.origin}); it knows {', '.join(sorted(SOLVERS))}; {remedy}, choose another "
            "teacher, or remove the stage whose teacher is fixed"
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
        solver = solver_of(problem)
        if solver is None:
            raise UserError(f"teacher: {self.refusal(problem)}")
        texts = []
        for sample in range(samples):
            rng = random.Random(f"{problem.id}/{seed}/{sample}")
            pad = Scratchpad(rng, self.noticed_slip_rate, self.unnoticed_slip_rate)
            answer = solve(solver, problem, pad)
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
        return MixedTeacher(
            self.procedural.build(),
            self.otherwise.build(),
            lambda one: solver_of(one) is not None,
        )


@dataclass
class RecordedOrModelConfig(TeacherConfig):
    """A problem's recorded solutions where it has some, else another teacher, such as a model.

    Attributes:
        recorded: Options of the recorded teacher.
        otherwise: The other teacher; a model is loaded only if a problem has no solution.
    """

    recorded: RecordedTeacherConfig = field(default_factory=RecordedTeacherConfig)
    otherwise: TeacherConfig = MISSING

    def check(self, key: str) -> None:
        self.recorded.check(f"{key}.recorded")
        self.otherwise.check(f"{key}.otherwise")

    def build(self) -> Teacher:
        return MixedTeacher(
            self.recorded.build(),
            self.otherwise.build(),
            lambda one: bool(one.metadata.get("solutions")),
        )


class MixedTeacher:
    """Two teachers for one mixture of problems.

    Args:
        first: Solves the problems for which `knows` holds.
        otherwise: Solves all others; it is opened when the first of them comes.
        knows: Of a problem.
    """

    def __init__(
        self, first: Teacher, otherwise: Teacher, knows: Callable[[Problem], bool]
    ) -> None:
        self._first, self._otherwise, self._knows = first, otherwise, knows
        self._observed: Counter[bool] = Counter()
        self.name = f"{first.name}, {otherwise.name}"

    def refusal(self, problem: Problem) -> str | None:
        return self._teacher_for(problem).refusal(problem)

    def preview(self, problem: Problem, seed: int) -> Sequence[str]:
        return self._teacher_for(problem).preview(problem, seed)

    def _teacher_for(self, problem: Problem) -> Teacher:
        return self._first if self._knows(problem) else self._otherwise

    def observe(self, problems: Iterator[Problem]) -> Iterator[Problem]:
        """Yield the problems unchanged; a teacher may need to see those that it solves."""
        for problem in problems:
            teacher = self._teacher_for(problem)
            if isinstance(teacher, ObservingTeacher):
                yield from teacher.observe(iter([problem]))
            else:
                yield problem
            self._observed[self._knows(problem)] += 1

    @contextmanager
    def open(self, hardware: HardwareConfig) -> Iterator[SolutionWriter]:
        """What writes; the log says how many of the observed problems each teacher solves."""
        log.info(
            "Of %s problems %s have '%s' as teacher, and %s have '%s'.",
            f"{self._observed.total():,}",
            f"{self._observed[True]:,}",
            self._first.name,
            f"{self._observed[False]:,}",
            self._otherwise.name,
        )
        with ExitStack() as opened:
            write_first = opened.enter_context(self._first.open(hardware))
            writers = {True: write_first}

            def write(
                problems: Sequence[Problem], samples: int, seed: int
            ) -> list[list[Completion]]:
                by_first = [problem for problem in problems if self._knows(problem)]
                others = [problem for problem in problems if not self._knows(problem)]
                if others and False not in writers:
                    writers[False] = opened.enter_context(self._otherwise.open(hardware))
                completions = {
                    solves: iter(writers[solves](part, samples, seed))
                    for solves, part in ((True, by_first), (False, others))
                    if part
                }
                return [next(completions[self._knows(problem)]) for problem in problems]

            yield write


register_component("teacher", "procedural", ProceduralTeacherConfig)
register_component("teacher", "recorded", RecordedTeacherConfig)
register_component("teacher", "mixed", MixedTeacherConfig)
register_component("teacher", "recorded_or_model", RecordedOrModelConfig)
