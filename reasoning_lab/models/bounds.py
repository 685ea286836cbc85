"""What a figure that is planned lies between."""

from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Bounds:
    """Two bounds of one figure.

    Attributes:
        least: The lower one; None = unknown.
        most: The upper one; None = unknown.
        extrapolated: True = they are the least and the most of runs that are alike, or follow from
            these, so that another run may be outside; False = they follow from the config.
    """

    least: float | None = None
    most: float | None = None
    extrapolated: bool = False

    @classmethod
    def exactly(cls, value: float) -> "Bounds":
        """Both bounds are the same."""
        return cls(value, value)

    def __add__(self, other: "Bounds") -> "Bounds":
        return Bounds(
            _sum(self.least, other.least),
            _sum(self.most, other.most),
            self.extrapolated or other.extrapolated,
        )

    def map(self, function: Callable[[float], float]) -> "Bounds":
        """`function`, which must not decrease, of both."""
        least, most = (None if b is None else function(b) for b in (self.least, self.most))
        return replace(self, least=least, most=most)


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
