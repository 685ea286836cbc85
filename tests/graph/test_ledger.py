"""The ledger: counts, sentences, and a state that resumes."""

import json
from pathlib import Path

import pytest

from reasoning_lab.graph.ledger import DROPPED_ROWS, Ledger
from reasoning_lab.types import UserError


def _documents() -> Ledger:
    ledger = Ledger()
    ledger.take("documents", 231)
    ledger.drop("documents", "too_long", 154, tokens=300)
    ledger.drop(
        "documents", "too_long", tokens=512, longest="train.jsonl:7", origins=["train.jsonl:7"]
    )
    ledger.drop("documents", "harder_subset", 6, selected=True)
    return ledger


def test_counts() -> None:
    assert _documents().as_json() == {
        "documents": {
            "in": 231,
            "out": 70,
            "dropped": {"harder_subset": 6, "too_long": 155},
            "selected": ["harder_subset"],
            "longest_tokens": 512,
            "longest": "train.jsonl:7",
            "examples": {"too_long": ["train.jsonl:7"]},
        }
    }
    assert _documents().metrics() == {
        "ledger/documents/in": 231,
        "ledger/documents/out": 70,
        "dropped/documents/harder_subset": 6,
        "dropped/documents/too_long": 155,
    }


def test_sentence_names_reasons_and_the_longest() -> None:
    assert _documents().lines() == [
        "70 of 231 documents go on; dropped: 155 too long [train.jsonl:7], 6 harder subset"
        " (the longest has 512 tokens: train.jsonl:7)"
    ]


@pytest.mark.parametrize(
    ("dropped", "selected", "warned"), [(10, False, 0), (11, False, 1), (90, True, 0)]
)
def test_warns_of_more_than_a_tenth_that_nobody_selected(
    dropped: int, selected: bool, warned: int
) -> None:
    ledger = Ledger()
    ledger.take("rows", 100)
    ledger.drop("rows", "unreadable", dropped, selected=selected)
    assert len(ledger.warnings()) == warned


def test_what_was_selected_away_hides_no_loss() -> None:
    """Of 1,000 rows 100 are asked for, and 11 of these are too long."""
    ledger = Ledger()
    ledger.take("rows", 1000)
    ledger.drop("rows", "beyond_count", 900, selected=True)
    ledger.drop("rows", "too_long", 10)
    assert ledger.warnings() == []
    ledger.drop("rows", "too_long", 1)
    (warning,) = ledger.warnings()
    assert warning == "more than a tenth of the rows was dropped: 11 of 100 (11%), 11 too long"


def test_a_row_may_hold_any_text(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.drop("rows", "unreadable", origins=["\ud800 \n"])
    ledger.write_rows(tmp_path)
    (line,) = (tmp_path / DROPPED_ROWS).read_text().splitlines()
    assert json.loads(line)["origin"] == "\ud800 \n"


def test_nothing_left_is_an_error() -> None:
    ledger = Ledger()
    ledger.require_passed("rows", "data.path", "look at the file")
    ledger.take("rows", 2)
    ledger.drop("rows", "unreadable", 2)
    with pytest.raises(UserError, match=r"data.path: nothing is left; 0 of 2 rows.*look at"):
        ledger.require_passed("rows", "data.path", "look at the file")


def test_state_goes_through_json_and_goes_on(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.load_state_dict(json.loads(json.dumps(_documents().state_dict())))
    assert ledger.as_json() == _documents().as_json()
    assert ledger.warnings() == _documents().warnings()
    ledger.merge(_documents())
    assert ledger.as_json()["documents"]["dropped"] == {"harder_subset": 12, "too_long": 310}
    ledger.write_rows(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / DROPPED_ROWS).read_text().splitlines()]
    assert rows == [{"unit": "documents", "reason": "too_long", "origin": "train.jsonl:7"}] * 2
