"""How long a training is: `3 epochs`, `500 steps` or `2B tokens`."""

import re
from dataclasses import dataclass
from typing import Literal, Self, cast

from reasoning_lab.types import UserError

Unit = Literal["steps", "epochs", "tokens"]

_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*([KMB]?)\s*(step|epoch|token)s?", re.IGNORECASE)
_SIZES = {"B": 10**9, "M": 10**6, "K": 10**3}
_REMEDY = "write a length like 3 epochs, 500 steps or 2B tokens"


@dataclass(frozen=True, slots=True)
class Length:
    """A number of optimizer steps, of passes over a stage's rows, or of tokens.

    Attributes:
        amount: How many; whole for steps and tokens.
        unit: Of what.
    """

    amount: float
    unit: Unit

    @classmethod
    def parse(cls, text: str, key: str) -> Self:
        """Read `text`, which `key` of the config gives.

        Raises:
            UserError: It is no length, nothing, or a part of a step.
        """
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise UserError(f"{key}: '{text}' does not say how long; {_REMEDY}")
        number, size, word = match.groups()
        amount = float(number) * _SIZES.get(size.upper(), 1)
        unit = cast(Unit, f"{word.lower()}s")
        if amount <= 0 or (unit != "epochs" and not amount.is_integer()):
            raise UserError(f"{key}: '{text}' is not a whole number above 0 of {unit}; {_REMEDY}")
        return cls(amount, unit)

    def __str__(self) -> str:
        """The shortest text that `parse` reads as this length."""
        whole_sizes = [item for item in _SIZES.items() if self.amount % item[1] == 0]
        suffix, size = whole_sizes[0] if self.unit == "tokens" and whole_sizes else ("", 1)
        amount = self.amount / size
        unit = self.unit.removesuffix("s") if self.amount == 1 else self.unit
        return f"{int(amount) if amount.is_integer() else amount}{suffix} {unit}"

    def steps(self, rows: int, batch_size: int, tokens_per_row: float) -> int:
        """Whole optimizer steps that are no longer than this, and at least one.

        Args:
            rows: Of the stage: those of one epoch.
            batch_size: Rows an optimizer step.
            tokens_per_row: Mean over the rows.
        """
        if self.unit == "steps":
            return int(self.amount)
        step = batch_size * (tokens_per_row if self.unit == "tokens" else 1)
        whole = self.amount if self.unit == "tokens" else self.amount * rows
        return max(1, int(whole / step))
