"""The kinds of structure that an answer can have."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Leaf:
    """A formula without relation, list or unit."""

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
class Clock:
    """A time of day; `half` is `am`, `pm` or empty."""

    hour: int
    minute: int
    half: str


@dataclass(frozen=True, slots=True)
class Ratio:
    """Parts with colons between them; `clock` = it may as well be a time."""

    parts: tuple["Node", ...]
    clock: bool


@dataclass(frozen=True, slots=True)
class Group:
    """What stands in brackets: `()`, `[]`, `(]`, `[)` or `{}`."""

    brackets: str
    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """Items without brackets, in any order; `joint` = the only word between them, if any."""

    items: tuple["Node", ...]
    joint: str = ""


@dataclass(frozen=True, slots=True)
class Relation:
    """Sides with the relations between them; an empty side is None."""

    operators: tuple[str, ...]
    sides: tuple["Node | None", ...]
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SetExpression:
    """Sets joined by one of union, intersection and difference."""

    operator: str
    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Congruence:
    """A value with its modulus."""

    value: "Node"
    modulus: "Node"


@dataclass(frozen=True, slots=True)
class Based:
    """Digits of a number in another base."""

    digits: str
    base: int


Node = (
    Leaf | Words | Quantity | Clock | Ratio | Group | Listing | Relation | SetExpression
    | Congruence | Based
)  # fmt: skip

EMPTY = Group("{}", ())
REALS = Leaf("\\mathbb{R}")
