"""The scratchpad on which a solver writes its chain, and the slips that it makes."""

import random
from collections.abc import Sequence
from typing import TypeVar

# What one step of a chain arrives at.
Value = TypeVar("Value", int, str)


class Scratchpad:
    """The lines of one chain of thought, with slips at fixed rates.

    A noticed slip is written, then repaired; an unnoticed one is believed.

    Attributes:
        lines: What has been written.
    """

    def __init__(
        self, rng: random.Random, noticed_slip_rate: float, unnoticed_slip_rate: float
    ) -> None:
        self._rng = rng
        self._noticed_slip_rate = noticed_slip_rate
        self._unnoticed_slip_rate = unnoticed_slip_rate
        self.lines: list[str] = []

    def step(self, template: str, value: Value, alternatives: Sequence[Value] = ()) -> Value:
        """Write `template` with its `{}` filled by the value, or by a slip of it.

        Args:
            template: The line; only its `{}` may be a brace.
            value: What is right.
            alternatives: What may be written by mistake; `value` may be among them. A number
                without alternatives slips to one nearby. A text without any other never slips.

        Returns:
            What the rest of the chain uses: the value, or a wrong one after an unnoticed slip.
        """
        draw = self._rng.random()
        if draw < self._noticed_slip_rate:
            slipped = self._slip(value, alternatives)
            if slipped != value:
                self.lines.append(template.format(slipped))
                template = "Wait, " + template
        elif draw < self._noticed_slip_rate + self._unnoticed_slip_rate:
            value = self._slip(value, alternatives)
        self.lines.append(template.format(value))
        return value

    def _slip(self, value: Value, alternatives: Sequence[Value]) -> Value:
        others = [other for other in alternatives if other != value]
        if others:
            return self._rng.choice(others)
        if isinstance(value, str):
            return value
        slipped = value + self._rng.choice([-2, -1, -1, 1, 1, 2, -10, 10])
        return slipped if (slipped < 0) == (value < 0) else value + 1
