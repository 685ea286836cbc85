"""The figure of `staleness.py`, whose time is counted and therefore the same on any machine."""

import pytest

from .staleness import GROUP_SIZE, MEAN_TOKENS, PROMPTS, SLOTS, measure


@pytest.mark.long
def test_partial_rollouts_four_steps_ahead_take_at_most_60_percent_of_the_time() -> None:
    draw = measure(0, "finish", 0.0, steps=40).draw
    update = draw / 3
    in_turn = measure(0, "finish", update, steps=40)
    assert in_turn.step == pytest.approx(draw + update)
    partial = measure(4, "continue", update, steps=40)
    assert partial.step <= 0.6 * in_turn.step
    assert partial.age_mean <= partial.age_max <= 4
    assert partial.stale == 0
    # All that is trained on was drawn: the mean of the lengths, less what the limit cuts off.
    drawn = partial.busy_frac * partial.step * SLOTS / (PROMPTS * GROUP_SIZE)
    assert 0.85 * MEAN_TOKENS < drawn < MEAN_TOKENS
