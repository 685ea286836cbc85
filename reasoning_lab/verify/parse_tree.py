"""Nodes of the tree that the parser makes of an answer."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Formula:
    """A formula without relation, list or unit, as LaTeX; `formulas` parses it."""

    text: str


@dataclass(frozen=True, slots=True)
class Words:
    """Prose, in small letters and without articles."""

    text: str


@dataclass(frozen=True, slots=True)
class Quantity:
    """A value with the words of its unit."""

    value: "Node"
    unit: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TimeOfDay:
    """A time of day; `am_pm` is `am`, `pm` or empty."""

    hour: int
    minute: int
    am_pm: str


@dataclass(frozen=True, slots=True)
class Ratio:
    """Parts with colons between them; `may_be_time` = the text is also a valid time of day."""

    parts: tuple["Node", ...]
    may_be_time: bool


@dataclass(frozen=True, slots=True)
class Bracketed:
    """Items in brackets: `()`, `[]`, `(]`, `[)` or `{}`."""

    brackets: str
    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class PlainList:
    """Items without brackets; `conjunction` = `and` or `or` if nothing else separates them."""

    items: tuple["Node", ...]
    conjunction: str = ""


@dataclass(frozen=True, slots=True)
class Relation:
    """Sides with operators between them; the node of an empty side is None."""

    operators: tuple[str, ...]
    sides: tuple["Node | None", ...]
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SetExpression:
    """Sets joined by one operator: union, intersection or difference."""

    operator: str
    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Congruence:
    """A value modulo another."""

    value: "Node"
    modulus: "Node"


@dataclass(frozen=True, slots=True)
class BasedNumber:
    """Digits of a number with a base in its index."""

    digits: str
    base: int


Node = (
    Formula | Words | Quantity | TimeOfDay | Ratio | Bracketed | PlainList | Relation
    | SetExpression | Congruence | BasedNumber
)  # fmt: skip

EMPTY_SET = Bracketed("{}", ())
REALS = Formula("\\mathbb{R}")
