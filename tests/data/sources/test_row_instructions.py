"""Instructions of a row on the form of the response: as a gold, or beside another checker's."""

import json
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.data.sources.row_mapping import RowMapping
from reasoning_lab.data.sources.row_values import RowError
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.types import Problem, Split, UserError
from tests.support.sources import file_source, write_lines

IFEVAL = RowMapping(
    instructions="instruction_id_list", instruction_arguments="kwargs", checker="instructions"
)
NO_COMMA = {"id": "punctuation:no_comma"}
WORDS = {"id": "length_constraints:number_words", "num_words": 9, "relation": "at least"}


def ifeval_row(ids: Any, arguments: Any) -> dict[str, Any]:
    return {"prompt": "Write.", "instruction_id_list": ids, "kwargs": arguments}


def read(mapping: RowMapping, row: dict[str, Any]) -> Problem:
    mapping.check("data.rows")
    problem = mapping.problem(row, "row 1")
    assert problem is not None
    return problem


@pytest.mark.parametrize(
    "arguments",
    [
        [{}, {"num_words": 9, "relation": "at least"}],
        # Arrow's: the keys of all rows, nulls, and floats.
        [
            {"num_words": None, "relation": None, "letter": None},
            {"num_words": 9.0, "relation": "at least", "letter": None},
        ],
        [None, {"num_words": 9, "relation": "at least"}],
        '[{}, {"num_words": 9, "relation": "at least"}]',
    ],
)
def test_ifevals_layout_is_a_gold(arguments: Any) -> None:
    problem = read(IFEVAL, ifeval_row([NO_COMMA["id"], WORDS["id"]], arguments))
    assert problem.checker == "instructions"
    assert json.loads(problem.gold) == [NO_COMMA, WORDS]
    assert problem.metadata == {"row": "row 1"}


def test_mappings_stand_beside_another_checkers_gold() -> None:
    mapping = RowMapping(instructions="form")
    row = {"prompt": "1 + 1?", "gold": "2", "form": [WORDS, NO_COMMA]}
    problem = read(mapping, row)
    assert (problem.gold, problem.checker) == ("2", "math")
    assert problem.metadata["instructions"] == [WORDS, NO_COMMA]
    assert "instructions" not in read(mapping, {**row, "form": None}).metadata


def test_a_gold_may_be_the_json_of_instructions() -> None:
    gold = json.dumps([NO_COMMA])
    problem = read(RowMapping(checker="instructions"), {"prompt": "Write.", "gold": gold})
    assert problem.gold == gold


@pytest.mark.parametrize(
    ("ids", "arguments", "reason", "message"),
    [
        (["a:b"], [{}], "unreadable_instructions", "instruction 1 has the unknown id 'a:b'"),
        ([NO_COMMA["id"]], [], "unreadable_instructions", "1 ids and 'kwargs' 0 dicts"),
        ([NO_COMMA["id"]], [3], "unreadable_instructions", "'kwargs' has 3; give a dict"),
        ("no list", [{}], "unreadable_instructions", "'instruction_id_list' is 'no list'; give"),
        ([WORDS["id"]], [{}], "unreadable_instructions", "lacks its argument 'num_words'"),
        ([3], [{}], "unreadable_instructions", "give it an id"),
        (None, [{}], "missing_instructions", "'instruction_id_list' has none; give a list"),
    ],
)
def test_instructions_that_cannot_be_checked_are_refused(
    ids: Any, arguments: Any, reason: str, message: str
) -> None:
    with pytest.raises(RowError, match=message) as refusal:
        IFEVAL.problem(ifeval_row(ids, arguments), "row 1")
    assert refusal.value.reason == reason


def test_a_missing_column_is_named() -> None:
    for row in ({"prompt": "?", "kwargs": []}, {"prompt": "?", "instruction_id_list": []}):
        with pytest.raises(RowError, match=r"there is no column '(instruction_id_list|kwargs)'"):
            IFEVAL.problem(row, "row 1")
    with pytest.raises(UserError, match=r"data\.rows\.instruction_arguments: there is no column"):
        RowMapping(instruction_arguments="kwargs").check("data.rows")


def test_rows_that_cannot_be_checked_are_counted(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"question": "Write a poem.", "form": [NO_COMMA]},
        {"question": "Write a song.", "form": [{"id": "music:key"}]},
        {"question": "Write a line.", "form": []},
    ]
    options = {"prompt": "question", "instructions": "form", "checker": "instructions", "level": 1}
    path = write_lines(tmp_path / "rows.jsonl", rows)
    source = file_source(path, rows=options, unreadable="drop", max_unreadable_frac=1.0)
    ledger = Ledger()
    source.record_rows(ledger)
    counts = ledger.as_json()["rows"]
    assert (counts["out"], counts["dropped"]) == (1, {"unreadable_instructions": 2})
    (problem,) = source.problems(Split.TRAIN, [1], 1, 0)
    assert json.loads(problem.gold) == [NO_COMMA]
