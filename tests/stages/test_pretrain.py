"""What the base policy learns from: single steps, cut out of thoughts and put into rows."""

from collections import Counter

import pytest

from reasoning_lab.stages.pretrain.module import single_steps, worksheets


def test_single_steps_by_hand() -> None:
    thought = "<think>\n3 + 4 = 7\n13: 1\n7 - -2 = 9\n</think>\n\\boxed{9}"
    assert single_steps([thought, "2 * 6 = 12"]) == [
        ("3 + 4 = ", "7\n"),
        ("7 - -2 = ", "9\n"),
        ("2 * 6 = ", "12\n"),
    ]


def test_worksheets_are_full_and_draw_frequent_steps_more_often() -> None:
    steps = [("1 + 1 = ", "2\n")] * 3 + [("9 - 2 = ", "7\n")]
    sheets = worksheets(steps, rows=400, steps_per_row=6, seed=1)
    assert [len(sheet) for sheet in sheets] == [6] * 400
    counts = Counter(step for sheet in sheets for step in sheet)
    assert counts[steps[0]] / 2400 == pytest.approx(0.75, abs=0.05)
    assert sheets == worksheets(steps, 400, 6, seed=1)
    assert sheets != worksheets(steps, 400, 6, seed=2)
