"""What draws leave out, counted in the ledger of the stage that makes them.

A source may draw the same problems twice, the second time more of them. Such a draw counts once.
"""

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from reasoning_lab.graph.ledger import Ledger


class _Draw(NamedTuple):
    # It lives as long as its draws are counted, so that no other source gets its id.
    source: object
    unit: str
    taken: int
    dropped: Mapping[str, int]


_draws: ContextVar[dict[tuple[Hashable, ...], _Draw] | None] = ContextVar("draws", default=None)


@contextmanager
def draws_counted(ledger: Ledger) -> Iterator[None]:
    """Count in `ledger`, in the end, what the draws that are made meanwhile leave out."""
    draws: dict[tuple[Hashable, ...], _Draw] = {}
    token = _draws.set(draws)
    try:
        yield
    finally:
        _draws.reset(token)
        for draw in draws.values():
            ledger.take(draw.unit, draw.taken)
            for reason, count in draw.dropped.items():
                ledger.drop(draw.unit, reason, count, selected=True)


def note_draw(
    source: object,
    arguments: tuple[Hashable, ...],
    unit: str,
    taken: int,
    dropped: Mapping[str, int],
) -> None:
    """Note what a draw has taken and dropped so far; this does nothing where nobody counts.

    Args:
        source: What is drawn from.
        arguments: Of the draw, but for its length. Of two draws from one source with the same
            arguments, the longer one counts, which has what the other has.
        unit: As in `Ledger.take`.
        taken: How many things of the unit it has looked at.
        dropped: How many of these it left out, by reason.
    """
    draws, key = _draws.get(), (id(source), *arguments)
    if draws is not None and (key not in draws or draws[key].taken <= taken):
        draws[key] = _Draw(source, unit, taken, dropped)
