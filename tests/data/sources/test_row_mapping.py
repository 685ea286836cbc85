"""From a row to a problem: which column holds what, and which rows are refused."""

from collections.abc import Mapping
from typing import Any

import pytest

from reasoning_lab.data.sources.row_mapping import RowMapping
from reasoning_lab.types import Problem, UserError


def problem_of(options: Mapping[str, Any], row: Mapping[str, Any]) -> Problem | None:
    return RowMapping(**options).problem(row, "f.jsonl, line 7")


@pytest.mark.parametrize(
    ("gold_in", "text", "gold"),
    [
        ("whole", " 7 ", "7"),
        ("boxed", "so \\boxed{1}, no: \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("after ####", "#### 1\n2 #### 1,000 ", "1,000"),
        ("after The answer is:", "The answer is: 64", "64"),
    ],
)
def test_gold_is_taken_from_where_it_stands(gold_in: str, text: str, gold: str) -> None:
    problem = problem_of({"gold": "a", "gold_in": gold_in}, {"prompt": "?", "a": text})
    assert problem is not None
    assert problem.gold == gold


@pytest.mark.parametrize("gold_in", ["boxed", "after ####"])
def test_gold_that_is_not_where_it_should_be_is_refused(gold_in: str) -> None:
    options = {"gold_in": gold_in}
    row = {"prompt": "?", "gold": "the answer is 3"}
    with pytest.raises(UserError, match=rf"'gold'.*without an answer {gold_in}.*no_gold"):
        problem_of(options, row)
    assert problem_of(options | {"no_gold": [""]}, row) is None


def test_columns_may_be_paths_and_names_with_dots() -> None:
    row = {
        "turns": [{"from": "user", "value": "1 + 1?"}, {"value": "\\boxed{2}"}],
        "a.b": "kind",
    }
    options = {
        "prompt": "turns.0.value",
        "gold": "turns.1.value",
        "gold_in": "boxed",
        "family_column": "a.b",
    }
    problem = problem_of(options, row)
    assert problem == Problem("1 + 1?", "2", "math", "kind", 1, {"row": "f.jsonl, line 7"})
    with pytest.raises(UserError, match=r"'turns\.2\.value' is None.*data\.rows\.prompt"):
        problem_of(options | {"prompt": "turns.2.value"}, row)


@pytest.mark.parametrize(
    ("level", "row", "expected"),
    [
        (4, {"level": 2}, 4),
        ("level", {"level": 2}, 2),
        ("level", {}, 1),
        ("hardness", {"hardness": "Level 3"}, 3),
    ],
)
def test_level_is_a_constant_a_number_or_in_a_text(
    level: int | str, row: dict[str, Any], expected: int
) -> None:
    problem = problem_of({"level": level}, {"prompt": "?", "gold": "1", **row})
    assert problem is not None
    assert problem.level == expected
    with pytest.raises(UserError, match=r"'level' is 'Level \?'.*data\.rows\.only"):
        problem_of({}, {"prompt": "?", "gold": "1", "level": "Level ?"})


def test_solutions_are_a_text_or_a_list_and_may_have_a_thought() -> None:
    row = {"prompt": "?", "gold": "1", "s": [" one ", None, "", "two"], "t": "hm"}
    for options, expected in (
        ({"solutions": "s"}, ["one", "two"]),
        ({"solutions": "t"}, ["hm"]),
        ({"solutions": "none"}, []),
        ({"solutions": "t", "thought": "t"}, ["<think>\nhm\n</think>\nhm"]),
    ):
        problem = problem_of(options, row)
        assert problem is not None
        assert problem.metadata["solutions"] == expected
    with pytest.raises(UserError, match=r"'s' is \{'a': 1\}; give a text or a list"):
        problem_of({"solutions": "s"}, row | {"s": {"a": 1}})


def test_only_the_rows_with_the_wanted_values_are_read() -> None:
    rows: list[dict[str, Any]] = [
        {"kind": "word", "ok": True},
        {"kind": "proof", "ok": True},
        {"kind": "word"},
        {},
    ]
    mapping = RowMapping(only={"kind": "word", "ok": True})
    assert [mapping.selects(row) for row in rows] == [True, False, False, False]
    mapping = RowMapping(only={"kind": ["word", "proof"]})
    assert [mapping.selects(row) for row in rows] == [True, True, True, False]
    assert RowMapping().selects({})


def test_a_mapping_that_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.rows\.shuffled: data\.rows\.options names"):
        RowMapping(options="o", shuffled=["w"]).check("data.rows")
    for gold_in in ("box", "after ", "after"):
        with pytest.raises(UserError, match=r"data\.rows\.gold_in: .*unknown; choose whole"):
            RowMapping(gold_in=gold_in).check("data.rows")
