"""A procedural teacher: the stand-in for DeepSeek-R1 where no large model can run.

It writes long chain-of-thought for each problem family and makes two kinds of slip, as a
sampled teacher does: one that it notices and repairs ("Wait"), and one that it does not,
so that its answer is wrong. The second kind gives rejection sampling something to reject.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.types import Completion, Problem, UserError


class Writing(Protocol):
    """A teacher at work."""

    def __call__(
        self, problems: Sequence[Problem], samples: int, seed: int
    ) -> list[list[Completion]]:
        """Return the completions of each problem, at most `samples`; seeded.

        They carry no token ids: the student's tokenizer need not be the teacher's. One that was cut
        off is `truncated`, and has no end of a thought that the author did not write.
        """
        ...


class Teacher(Protocol):
    """Whatever writes worked solutions for the `distill` stage.

    Made at composition to check its options, so making one must be cheap.

    Attributes:
        name: The author that its rollouts name.
    """

    name: str

    def open(self, hardware: HardwareConfig) -> AbstractContextManager[Writing]:
        """Take what writing needs, e.g. a loaded model, and free it at the end."""
        ...

    def refusal(self, problem: Problem) -> str | None:
        """Why it cannot work `problem`, with the remedy; None = it can."""
        ...

    def preview(self, problem: Problem, seed: int) -> Sequence[str]:
        """What it would write of `problem`; empty where only a model could say."""
        ...


@runtime_checkable
class Surveying(Protocol):
    """A teacher that must see all problems before it writes."""

    def survey(self, problems: Iterator[Problem]) -> Iterator[Problem]:
        """The problems as they come."""
        ...


class Scratchpad:
    """The lines of one chain of thought, with slips at set rates.

    A family writes its working through `step`, which returns the value that the rest of
    the chain goes on with: the right one, or, after an unnoticed slip, a wrong one.
    """

    def __init__(
        self, rng: random.Random, noticed_slip_rate: float, unnoticed_slip_rate: float
    ) -> None:
        self._rng = rng
        self._noticed = noticed_slip_rate
        self._unnoticed = unnoticed_slip_rate
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def step(self, template: str, value: int) -> int:
        """Write `template` with its `{}` filled by the value, or by a slip of it."""
        draw = self._rng.random()
        if draw < self._noticed:
            self.say(template.format(self._slip(value)))
            self.say("Wait, " + template.format(value))
        elif draw < self._noticed + self._unnoticed:
            value = self._slip(value)
            self.say(template.format(value))
        else:
            self.say(template.format(value))
        return value

    def _slip(self, value: int) -> int:
        near = value + self._rng.choice([-2, -1, -1, 1, 1, 2, -10, 10])
        return near if (near < 0) == (value < 0) else value + 1


class ProceduralTeacher:
    """Writes chain-of-thought by rule; see the module's docstring for what it stands in for.

    Args:
        noticed_slip_rate: Chance that a step is first written wrong, then repaired.
        unnoticed_slip_rate: Chance that a step is written wrong and believed.

    Raises:
        UserError: When it writes, for a problem family it has no method for.
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
        self._noticed = noticed_slip_rate
        self._unnoticed = unnoticed_slip_rate

    def open(self, hardware: HardwareConfig) -> AbstractContextManager[Writing]:
        return nullcontext(self._write)

    def refusal(self, problem: Problem) -> str | None:
        from reasoning_lab.data.teachers.methods import METHODS

        if problem.family in METHODS:
            return None
        return (
            f"the procedural teacher has no method for the problem family '{problem.family}' "
            f"({problem.origin}); it knows {', '.join(sorted(METHODS))}; draw problems of "
            "these families, choose another teacher, or leave a stage out whose teacher is fixed"
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
        """`samples` texts, each a thought and a boxed answer."""
        from reasoning_lab.data.teachers.methods import METHODS

        if (refusal := self.refusal(problem)) is not None:
            raise UserError(f"teacher: {refusal}")
        method = METHODS[problem.family]
        texts = []
        for sample in range(samples):
            rng = random.Random(f"{problem.id}/{seed}/{sample}")
            pad = Scratchpad(rng, self._noticed, self._unnoticed)
            answer = method(problem.metadata, pad)
            texts.append("<think>\n" + "\n".join(pad.lines) + "\n</think>\n" + boxed(answer))
        return texts


def boxed(answer: str) -> str:
    """The final-answer format of the recipe."""
    return f"\\boxed{{{answer}}}"
