"""Which rank trains on which rollouts of an update, and the tokens that move for it.

Rollouts are sorted by length. Of each window of them every rank gets as many, one micro-batch, so
that all ranks are busy for as long: sharded ranks wait for each other at every layer. A rank keeps
what it drew as far as its places reach, and what is over fills the places of others. Gradients do
not depend on it, since a token's weight is of the whole update.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from heapq import heapify, heappop, heappush

from reasoning_lab.sampling.remote import drawing_rank
from reasoning_lab.stages.rl.records import TrainingRow
from reasoning_lab.system.ranks import Peers, rank, world_size
from reasoning_lab.types import Completion, Example


def balanced_micro_batches(
    lengths: Sequence[int], drawn_by: Sequence[int], ranks: int, rows: int
) -> list[list[list[int]]]:
    """The micro-batches of each rank, as indices of rows in order of length.

    Args:
        lengths: Tokens of each row of the update.
        drawn_by: The rank that drew it.
        ranks: How many there are.
        rows: Most rows of a micro-batch. There are fewer where some rank would have none.

    Returns:
        Equally many micro-batches for each rank. The last one is empty where rows are too few.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    size = max(1, min(rows, -(-len(order) // ranks)))
    loads = [0] * ranks
    planned: list[list[list[int]]] = [[] for _ in range(ranks)]
    for start in range(0, len(order), ranks * size):
        window = order[start : start + ranks * size]
        for number, part in enumerate(_divided(window, lengths, drawn_by, loads)):
            planned[number].append(sorted(part, key=lengths.__getitem__))
            loads[number] += _total(part, lengths)
    return planned


def _divided(
    window: Sequence[int], lengths: Sequence[int], drawn_by: Sequence[int], loads: Sequence[int]
) -> list[list[int]]:
    """The rows of a window, for each rank; `loads` are the tokens that the ranks have already."""
    drawn: list[list[int]] = [[] for _ in loads]
    for row in window:
        drawn[drawn_by[row]].append(row)
    share, over = divmod(len(window), len(loads))
    # Those who drew most have a place more, so that fewer rows move.
    by_count = sorted(range(len(loads)), key=lambda number: -len(drawn[number]))
    places = [share] * len(loads)
    for number in by_count[:over]:
        places[number] += 1
    parts = [_evenly(rows, count) for rows, count in zip(drawn, places, strict=True)]
    moved = set(window).difference(*parts)
    # The lightest of those with a place left; a search over all would be slow with many ranks.
    open_ranks = [
        (load + _total(parts[number], lengths), number)
        for number, load in enumerate(loads)
        if len(parts[number]) < places[number]
    ]
    heapify(open_ranks)
    for row in sorted(moved, key=lambda row: (-lengths[row], row)):
        load, number = heappop(open_ranks)
        parts[number].append(row)
        if len(parts[number]) < places[number]:
            heappush(open_ranks, (load + lengths[row], number))
    return parts


def _evenly(rows: list[int], count: int) -> list[int]:
    """At most `count` of the rows, evenly spread over their lengths."""
    if len(rows) <= count:
        return rows
    return [rows[(2 * number + 1) * len(rows) // (2 * count)] for number in range(count)]


def _total(rows: Iterable[int], lengths: Sequence[int]) -> int:
    return sum(lengths[row] for row in rows)


def micro_batches_of_rank(
    rows: Sequence[TrainingRow], most: int, peers: Peers
) -> list[list[TrainingRow]]:
    """This rank's part of an update's rows, with their tokens; every rank calls it.

    A row's tokens are sent to the one rank that trains on it, unless that drew it.

    Args:
        rows: All of the update's, in one order on every rank.
        most: Rows of a micro-batch, at most.
        peers: Exchange the tokens.
    """
    drawn_by = [drawing_rank(row.rollout) for row in rows]
    lengths = [row.example.length for row in rows]
    planned = balanced_micro_batches(lengths, drawn_by, world_size(), most)
    sent: list[list[Completion]] = [
        [
            _without_text(rows[row].rollout.completion)
            for part in parts
            for row in part
            if drawn_by[row] == rank() != number
        ]
        for number, parts in enumerate(planned)
    ]
    received = list(map(iter, peers.all_to_all(sent)))
    return [
        [
            rows[row]
            if drawn_by[row] == rank()
            else _with_tokens(rows[row], next(received[drawn_by[row]]))
            for row in part
        ]
        for part in planned[rank()]
    ]


def _without_text(completion: Completion) -> Completion:
    return replace(completion, text="")


def _with_tokens(row: TrainingRow, completion: Completion) -> TrainingRow:
    return replace(
        row,
        rollout=replace(row.rollout, completion=completion),
        example=Example(row.example.prompt_ids, completion.token_ids),
    )
