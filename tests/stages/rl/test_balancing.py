"""Which rank trains on which rows, and that rows stay where they were drawn as far as they can."""

import random

import pytest

from reasoning_lab.stages.rl.balancing import balanced_micro_batches


def test_one_rank_cuts_up_the_rows_in_order_of_length() -> None:
    planned = balanced_micro_batches([5, 1, 4, 2, 3], [0] * 5, 1, 2)
    assert planned == [[[1, 3], [4, 2], [0]]]
    assert balanced_micro_batches([], [], 2, 8) == [[], []]


def test_what_one_rank_drew_is_shared_out() -> None:
    """Of lengths 1, 2, 3, 4 it keeps 2 and 4, of 5, 6, 7, 8 then 6 and 8."""
    planned = balanced_micro_batches([1, 2, 3, 4, 5, 6, 7, 8], [0] * 8, 2, 2)
    assert planned == [[[1, 3], [5, 7]], [[0, 2], [4, 6]]]
    # The shorter of two goes to the other rank, and a third one stays; the other rank is idle.
    assert balanced_micro_batches([7, 8, 9], [1, 1, 1], 2, 1) == [[[0], []], [[1], [2]]]


def test_rows_that_are_spread_evenly_stay() -> None:
    lengths = [length for length in (7, 3, 9, 4, 4, 8) for _ in range(3)]
    drawn_by = [0, 1, 2] * 6
    planned = balanced_micro_batches(lengths, drawn_by, 3, 4)
    for number, parts in enumerate(planned):
        assert {drawn_by[row] for part in parts for row in part} == {number}


@pytest.mark.parametrize("seed", range(20))
def test_ranks_are_equally_busy_and_few_rows_move(seed: int) -> None:
    rng = random.Random(seed)
    ranks, most = rng.randint(2, 6), rng.randint(1, 9)
    count = ranks * most * rng.randint(3, 9) + rng.randint(0, 9)
    lengths = [round(rng.lognormvariate(5, 0.8)) for _ in range(count)]
    drawn_by = [rng.randrange(ranks) for _ in range(count)]
    planned = balanced_micro_batches(lengths, drawn_by, ranks, most)
    rows = [row for parts in planned for part in parts for row in part]
    assert sorted(rows) == list(range(count))
    assert len({len(parts) for parts in planned}) == 1
    for number, together in enumerate(zip(*planned, strict=True)):
        sizes = [len(part) for part in together]
        assert max(sizes) <= most
        assert max(sizes) - min(sizes) <= (number == len(planned[0]) - 1)
        # All are as long as each other: none is longer than the shortest one of the next.
        shortest_after = [
            lengths[row] for parts in planned for part in parts[number + 1 :] for row in part
        ]
        longest = max(lengths[row] for part in together for row in part)
        assert longest <= min(shortest_after, default=longest)
    # Dealt out without regard to who drew them, all but one in `ranks` would move.
    moved = sum(
        drawn_by[row] != number
        for number, parts in enumerate(planned)
        for part in parts
        for row in part
    )
    assert moved < 0.6 * count * (ranks - 1) / ranks
