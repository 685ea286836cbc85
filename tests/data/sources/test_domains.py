"""The domain of a row: one for all rows, of a column, or of the row's case."""

from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.data.sources.row_mapping import RowMapping
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.types import Split, UserError
from tests.support.sources import file_source, write_lines

ROWS = [
    {"prompt": f"{n}?", "gold": str(n), "field": field, "kind": kind}
    for n, (field, kind) in enumerate([("logic", "sum"), ("C++ & more", "riddle"), (7, "riddle")])
]
CASES = {"kind": {"sum": {}, "riddle": {"domain": "logic"}}}


@pytest.mark.parametrize(
    ("rows", "domains"),
    [
        ({}, ["mathematics"] * 3),
        ({"domain": "code"}, ["code"] * 3),
        ({"domain_column": "field"}, ["logic", "C++ & more", "7"]),
        ({"cases": CASES}, ["mathematics", "logic", "logic"]),
    ],
)
def test_a_row_has_the_domain_of_all_rows_of_its_column_or_of_its_case(
    rows: dict[str, Any], domains: list[str], tmp_path: Path
) -> None:
    source = file_source(write_lines(tmp_path / "rows.jsonl", ROWS), rows=rows)
    problems = sorted(source.problems(Split.TRAIN, None, 3, 0), key=lambda one: one.prompt)
    assert [one.domain for one in problems] == domains


@pytest.mark.parametrize("name", ["a/b", "x" * 41, "-x", "a\\b", "<b>"])
def test_what_cannot_be_a_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^data\.rows\.domain: .* is no name of a domain; give"):
        RowMapping(domain=name).check("data.rows")
    path = write_lines(tmp_path / "rows.jsonl", [*ROWS, {**ROWS[0], "prompt": "?", "field": name}])
    with pytest.raises(UserError, match=r"line 4: 'field' is .*another column in data\.rows\.dom"):
        file_source(path, rows={"domain_column": "field"})
    source = file_source(path, rows={"domain_column": "field"}, unreadable="drop")
    ledger = Ledger()
    source.record_rows(ledger)
    assert ledger.flows["rows"].dropped == {"unreadable_domain_column": 1}


def test_a_row_without_a_value_lacks_its_domain(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [*ROWS, {**ROWS[0], "field": None}])
    with pytest.raises(UserError, match=r"line 4: 'field' is None; give a non-empty string"):
        file_source(path, rows={"domain_column": "field"})
