"""An engine with scripted completions, for tests of what calls engines."""

from collections.abc import Mapping, Sequence
from typing import Any

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.types import Completion, Prompt, messages_of


class ScriptedEngine:
    """Answers by a prompt's first line: a text, with the seed at its end, or a completion.

    Attributes:
        calls: Last turns of the prompts of every call of any engine, in order.
        closed: How many engines were closed.
        lost_at: Fails in the call with a prompt that begins so.
    """

    calls: list[list[str]] = []  # noqa: RUF012 - shared on purpose: engines come and go
    closed = 0
    lost_at: str | None = None

    def __init__(
        self,
        model: str,
        answers: Mapping[str, Any],
        hardware: HardwareConfig,
        ending: str = " (seed {})",
    ) -> None:
        self._answers = answers
        self._ending = ending

    @classmethod
    def reset(cls, lost_at: str | None = None) -> None:
        cls.calls, cls.closed, cls.lost_at = [], 0, lost_at

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        texts = [messages_of(prompt)[-1].content for prompt in prompts]
        self.calls.append(texts)
        firsts = [text.splitlines()[0] for text in texts]
        if self.lost_at in firsts:
            raise RuntimeError("the machine is lost")
        return [
            self._completion(self._answers[first], seed)
            for first, seed in zip(firsts, seeds, strict=True)
        ]

    def _completion(self, answer: str | Completion, seed: int) -> Completion:
        if isinstance(answer, Completion):
            return answer
        return Completion([7, 8], answer + self._ending.format(seed), [-1.0, -1.0])

    def close(self) -> None:
        type(self).closed += 1
