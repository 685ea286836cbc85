"""Rows of several kinds in one dataset, each with a checker and a place of its gold."""

from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.data.sources.row_mapping import RowMapping
from reasoning_lab.data.sources.row_values import RowError
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.types import Split, UserError
from tests.support.sources import file_source, write_lines

CASES = {
    "kind": {
        "sum": {"gold_in": "after ####", "checker": "number"},
        "word": {"prompt": "riddle", "checker": "choice"},
        "2": {"level": 2},
    }
}
MAPPING = RowMapping(cases=CASES, only={"kind": ["sum", "word", 2, "other"]})


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"kind": "sum", "prompt": "1+1?", "gold": "so\n#### 2"}, ("1+1?", "2", "number", 1)),
        ({"kind": "word", "riddle": "A or B?", "gold": "B"}, ("A or B?", "B", "choice", 1)),
        ({"kind": 2, "prompt": "x?", "gold": "3"}, ("x?", "3", "math", 2)),
    ],
)
def test_a_row_is_read_by_its_case(row: dict[str, Any], expected: tuple[Any, ...]) -> None:
    mapping = MAPPING.for_row(row)
    assert mapping is not None
    problem = mapping.problem(row, "row 1")
    assert problem is not None
    assert (problem.prompt, problem.gold, problem.checker, problem.level) == expected


def test_a_row_without_a_case_is_left_out_by_only_or_refused() -> None:
    assert MAPPING.for_row({"kind": "code"}) is None
    for value in ("other", None, ["sum"]):
        mapping = RowMapping(cases=CASES)
        with pytest.raises(RowError, match=r"data\.rows\.cases\.kind does not have") as refusal:
            mapping.for_row({"kind": value})
        assert refusal.value.reason == "unlisted_case"


def test_rows_of_each_case_are_counted(tmp_path: Path) -> None:
    rows = [
        {"kind": "sum", "prompt": "1+1?", "gold": "so\n#### 2", "riddle": None},
        {"kind": "word", "prompt": None, "gold": "B", "riddle": "A or B?"},
        {"kind": "code", "prompt": "print", "gold": "", "riddle": None},
        {"kind": "other", "prompt": "?", "gold": "1", "riddle": None},
    ]
    options = {"cases": CASES, "only": {"kind": ["sum", "word", "other"]}}
    source = file_source(
        write_lines(tmp_path / "rows.jsonl", rows), rows=options, unreadable="drop"
    )
    ledger = Ledger()
    source.record_rows(ledger)
    counts = ledger.as_json()["rows"]
    assert (counts["out"], counts["dropped"]) == (2, {"filtered": 1, "unlisted_case": 1})
    golds = {problem.gold for problem in source.problems(Split.TRAIN, [1], 2, 0)}
    assert golds == {"2", "B"}


def test_a_column_of_a_case_that_is_not_there_is_named(tmp_path: Path) -> None:
    rows = [{"kind": "sum", "prompt": "1+1?", "gold": "#### 2"}]
    cases = {"kind": {"sum": {"gold_in": "after ####", "solutions": "chain"}}}
    with pytest.raises(UserError, match=r"data\.rows\.solutions: there is no column 'chain'"):
        file_source(write_lines(tmp_path / "rows.jsonl", rows), rows={"cases": cases})


def test_a_column_that_every_case_replaces_need_not_be_there(tmp_path: Path) -> None:
    rows = [
        {"kind": "sum", "prompt": "1+1?", "total": "2", "word": None},
        {"kind": "word", "prompt": "A or B?", "total": None, "word": "B"},
    ]
    cases = {"kind": {"sum": {"gold": "total"}, "word": {"gold": "word", "checker": "choice"}}}
    source = file_source(write_lines(tmp_path / "rows.jsonl", rows), rows={"cases": cases})
    assert {problem.gold for problem in source.problems(Split.TRAIN, [1], 2, 0)} == {"2", "B"}


@pytest.mark.parametrize(
    ("cases", "sentence"),
    [
        ({"a": {}, "b": {}}, "names 2 columns; name one"),
        ({"a": {"x": {"only": {}}}}, "'x' has 'only'; choose among checker, checker_column"),
        ({"a": {"x": {"chekcer": "math"}}}, "'x' has 'chekcer'; choose among"),
        ({"a": {"x": {"no_gold": 3}}}, "'x' has a value of a wrong type"),
        ({"a": {"x": 3}}, "'x' is 3; give the keys that it replaces"),
        ({"a": {"x": {"gold_in": "there"}}}, r"cases\.a\.x\.gold_in: 'there' is unknown"),
    ],
)
def test_cases_that_fit_no_row_are_refused(cases: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        RowMapping(cases=cases).check("data.rows")
