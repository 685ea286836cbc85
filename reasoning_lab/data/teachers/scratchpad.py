"""The scratchpad on which the procedural teacher writes a chain of thought, with slips."""

import random


class Scratchpad:
    """The lines of one chain of thought, with slips at fixed rates.

    A solver writes its working through `step`. Its result is the value that the rest of the chain
    uses: the right one, or a wrong one after an unnoticed slip.

    Args:
        rng: Draws the slips.
        noticed_slip_rate: Chance that a step is first written wrong, then repaired.
        unnoticed_slip_rate: Chance that a step is written wrong and believed.

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

    def write(self, line: str) -> None:
        self.lines.append(line)

    def step(self, template: str, value: int) -> int:
        """Write `template` with its `{}` filled by the value, or by a slip of it."""
        draw = self._rng.random()
        if draw < self._noticed_slip_rate:
            self.write(template.format(self._slip(value)))
            self.write("Wait, " + template.format(value))
        elif draw < self._noticed_slip_rate + self._unnoticed_slip_rate:
            value = self._slip(value)
            self.write(template.format(value))
        else:
            self.write(template.format(value))
        return value

    def _slip(self, value: int) -> int:
        slipped = value + self._rng.choice([-2, -1, -1, 1, 1, 2, -10, 10])
        return slipped if (slipped < 0) == (value < 0) else value + 1
