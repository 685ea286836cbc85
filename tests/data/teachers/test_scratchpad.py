"""Slips on the scratchpad: their rates and what they change."""

import random

from hypothesis import given
from hypothesis import strategies as st

from reasoning_lab.data.teachers.solvers import Scratchpad


def test_slips_come_at_their_rates() -> None:
    pad = Scratchpad(random.Random(0), 0.2, 0.1)
    steps = 4000
    wrong = sum(pad.step("{}", 50) != 50 for _ in range(steps))
    waits = sum(line.startswith("Wait") for line in pad.lines)
    # Four standard deviations of a binomial count.
    assert abs(waits - 0.2 * steps) < 4 * (steps * 0.2 * 0.8) ** 0.5
    assert abs(wrong - 0.1 * steps) < 4 * (steps * 0.1 * 0.9) ** 0.5


@given(st.integers(-500, 500), st.integers())
def test_a_slip_differs_and_keeps_the_sign(value: int, seed: int) -> None:
    pad = Scratchpad(random.Random(seed), 0.0, 1.0)
    slipped = pad.step("{}", value)
    assert slipped != value
    assert (slipped < 0) == (value < 0) or value == -1


def test_a_slip_of_a_text_is_another_alternative() -> None:
    pad = Scratchpad(random.Random(0), 0.0, 1.0)
    assert {pad.step("{}", "no", ["yes", "no", "maybe"]) for _ in range(50)} == {"yes", "maybe"}
    assert {pad.step("{}", 3, [3, 8]) for _ in range(5)} == {8}


def test_a_text_without_another_alternative_never_slips() -> None:
    for rates in ((1.0, 0.0), (0.0, 1.0)):
        pad = Scratchpad(random.Random(0), *rates)
        assert pad.step("a = {}", "b") == pad.step("a = {}", "b", ["b"]) == "b"
        assert pad.lines == ["a = b", "a = b"]


def test_a_noticed_slip_of_a_text_is_repaired() -> None:
    pad = Scratchpad(random.Random(0), 1.0, 0.0)
    assert pad.step("T and F = {}", "F", "TF") == "F"
    assert pad.lines == ["T and F = T", "Wait, T and F = F"]
