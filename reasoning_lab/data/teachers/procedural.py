"""A procedural teacher: the stand-in for DeepSeek-R1 where no large model can run.

It writes a long chain of thought for each problem family and makes two kinds of slip, as a sampled
teacher does. One kind is noticed and repaired ("Wait"). The other is not, so the answer is wrong
and rejection sampling has something to reject.
"""

import random
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.data.teachers.scratchpad import Scratchpad
from reasoning_lab.data.teachers.solvers import SOLVERS
from reasoning_lab.data.teachers.teacher import SolutionWriter, boxed
from reasoning_lab.types import Completion, Problem, UserError


class ProceduralTeacher:
    """Writes a chain of thought by rule, one solver a problem family.

    Its arguments are the fields of `ProceduralTeacherConfig`, which describes them.

    Raises:
        UserError: The two rates are no chances of one step. Writing raises it for a problem family
            without a solver.
    """

    name = "procedural"

    def __init__(self, noticed_slip_rate: float, unnoticed_slip_rate: float) -> None:
        if min(noticed_slip_rate, unnoticed_slip_rate) < 0 or (
            noticed_slip_rate + unnoticed_slip_rate > 1
        ):
            raise UserError(
                "teacher: noticed_slip_rate and unnoticed_slip_rate are chances that share one "
                f"step, got {noticed_slip_rate} and {unnoticed_slip_rate}; choose two in [0, 1] "
                "that sum to at most 1"
            )
        self._noticed_slip_rate = noticed_slip_rate
        self._unnoticed_slip_rate = unnoticed_slip_rate

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
        """Write `samples` texts, each a thought and a boxed answer."""
        if (refusal := self.refusal(problem)) is not None:
            raise UserError(f"teacher: {refusal}")
        solve = SOLVERS[problem.family]
        texts = []
        for sample in range(samples):
            rng = random.Random(f"{problem.id}/{seed}/{sample}")
            pad = Scratchpad(rng, self._noticed_slip_rate, self._unnoticed_slip_rate)
            answer = solve(problem.metadata, pad)
            texts.append("<think>\n" + "\n".join(pad.lines) + "\n</think>\n" + boxed(answer))
        return texts
