"""Levels of rows: whole numbers and texts, names of difficulty, pass rates, lists of verdicts."""

import logging
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.config.identity import identity_of
from reasoning_lab.data.sources.config import HubConfig
from reasoning_lab.data.sources.row_levels import mapped_level, read_level
from reasoning_lab.data.sources.row_mapping import RowMapping
from reasoning_lab.data.sources.row_values import JsonFloat, RowError
from reasoning_lab.types import Split, UserError
from tests.conftest import Compose
from tests.support.sources import file_source, write_lines

NAMES = {"easy": 1, "medium": 2, "hard": 3, "": 2}
# Solved in three of four cases or more, in one of four or more, in fewer.
RATES = {"0": 3, "0.25": 2, "0.75": 1}


@pytest.mark.parametrize(
    ("value", "level"),
    [(3, 3), ("Level 5", 5), (2.0, 2), (Decimal("4"), 4), (None, 1), (float("nan"), 1), (" ", 1)],
)
def test_a_level_is_a_whole_number(value: Any, level: int) -> None:
    assert read_level(value, "level") == level


@pytest.mark.parametrize("value", ["Level ?", "easy", 0, -1, 2.5, True, [1], "1.5"])
def test_what_is_no_level_is_refused_with_the_way_to_say_what_it_means(value: Any) -> None:
    with pytest.raises(RowError, match=r"'d' is .*data\.rows\.levels") as refusal:
        read_level(value, "d")
    assert refusal.value.reason == "unreadable_level"


@pytest.mark.parametrize(
    ("levels", "value", "level"),
    [
        (NAMES, "medium", 2),
        (NAMES, " hard ", 3),
        (NAMES, None, 2),
        (RATES, 0, 3),
        (RATES, 0.2499, 3),
        (RATES, JsonFloat("0.25"), 2),
        (RATES, Decimal("0.75"), 1),
        (RATES, 1, 1),
        (RATES, "0.5", 2),
        # One of two generations is right, then none, then all.
        (RATES, [True, False], 2),
        (RATES, [False, False], 3),
        (RATES, [True], 1),
        # A text is taken before a range.
        ({"0": 5, "0.0": 7}, "0.0", 7),
        # Hydra gives numbers as keys, and a saved job gives texts.
        ({0: 3, 0.25: 2}, 0.25, 2),
        ({"-1": 2, "10": 1}, -0.5, 2),
    ],
)
def test_a_value_has_the_level_that_the_mapping_gives(
    levels: dict[Any, int], value: Any, level: int
) -> None:
    assert mapped_level(value, "solve_rate", levels) == level


@pytest.mark.parametrize(
    ("levels", "value"),
    [
        (NAMES, "Hard"),
        (NAMES, 1),
        (RATES, -0.1),
        (RATES, None),
        (RATES, []),
        (RATES, [True, None]),
        (RATES, True),
        (RATES, "nan"),
        (RATES, "often"),
        (RATES, float("nan")),
    ],
)
def test_a_value_without_a_level_is_no_silent_level(levels: dict[str, int], value: Any) -> None:
    with pytest.raises(RowError, match=r"data\.rows\.levels does not have") as refusal:
        mapped_level(value, "solve_rate", levels)
    assert refusal.value.reason == "unreadable_level"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"level": 1, "levels": RATES}, "rows.level=1 is no column"),
        ({"level": "d", "levels": {"easy": 0}}, "'easy' has level 0; give 1 or more"),
        ({"level": 0}, "0 is no level"),
    ],
)
def test_options_that_fit_no_row_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        RowMapping(**options).check("data.rows")


def test_problems_are_drawn_by_the_levels_of_their_pass_rates(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rates = [0.0, 0.1, 0.5, 0.9, 1.0, None]
    rows = [{"prompt": f"{n}?", "gold": "1", "rate": rate} for n, rate in enumerate(rates)]
    file = write_lines(tmp_path / "rows.jsonl", rows)
    with caplog.at_level(logging.INFO):
        source = file_source(file, rows={"level": "rate", "levels": RATES}, unreadable="drop")
    prompts = {
        level: {problem.prompt for problem in source.problems(Split.TRAIN, [level], count, 0)}
        for level, count in ((1, 2), (2, 1), (3, 2))
    }
    assert prompts == {1: {"3?", "4?"}, 2: {"2?"}, 3: {"0?", "1?"}}
    assert "3 levels: 2 of level 1, 1 of level 2, 2 of level 3" in caplog.text
    assert "1 unreadable level" in caplog.text


def test_levels_are_options_of_the_command(composed: Compose) -> None:
    words = ["data.rows.level=solve_rate", "data.rows.levels={0: 3, 0.25: 2, 0.75: 1}"]
    data = composed("data=deepscaler", *words).root.data
    assert isinstance(data, HubConfig)
    assert data.rows.levels == {0: 3, 0.25: 2, 0.75: 1}
    assert mapped_level(0.3, "solve_rate", data.rows.levels) == 2
    assert "levels" not in identity_of(RowMapping())
    assert "levels" in identity_of(data.rows)
