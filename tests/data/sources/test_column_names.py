"""Columns of the usual names are taken where the config names none, and no other ones."""

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reasoning_lab.types import Problem, Split, UserError
from tests.support.sources import file_source, write_lines

WORKED = "2 + 3 = 5\n#### 5"


def first_problem(path: Path, rows: dict[str, Any] | None = None) -> Problem:
    (problem,) = file_source(path, rows=rows).problems(Split.TRAIN, None, 1, 0)
    return problem


@pytest.mark.parametrize("prompt", ["prompt", "question", "problem"])
@pytest.mark.parametrize("gold", ["gold", "answer"])
@pytest.mark.parametrize("solution", ["solution", "solutions", None])
def test_usual_names_are_taken(
    prompt: str, gold: str, solution: str | None, tmp_path: Path
) -> None:
    row = {prompt: "2 + 3?", gold: "5"} | ({solution: WORKED} if solution else {})
    problem = first_problem(write_lines(tmp_path / "rows.jsonl", [row]))
    assert (problem.prompt, problem.gold) == ("2 + 3?", "5")
    assert problem.metadata.get("solutions") == ([WORKED] if solution else None)


def test_an_answer_that_ends_in_its_gold_is_a_solution_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_lines(tmp_path / "gsm8k.jsonl", [{"question": "2 + 3?", "answer": WORKED}])
    with caplog.at_level(logging.INFO):
        problem = first_problem(path)
    assert (problem.gold, problem.metadata["solutions"]) == ("5", [WORKED])
    taken = "prompt=question, gold=answer, gold_in=after ####, solutions=answer"
    assert taken in caplog.text


def test_solutions_alone_have_their_gold_in_the_last_box(tmp_path: Path) -> None:
    solution = "First \\boxed{4}, no: \\boxed{5}"
    path = write_lines(tmp_path / "math.jsonl", [{"problem": "2 + 3?", "solution": solution}])
    problem = first_problem(path)
    assert (problem.gold, problem.metadata["solutions"]) == ("5", [solution])


def test_a_column_of_parquet_is_found_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"other": ["x"], "question": ["2 + 3?"], "answer": ["5"]}), path)
    assert first_problem(path).prompt == "2 + 3?"


def test_what_the_config_names_is_taken(tmp_path: Path) -> None:
    row = {"question": "2 + 3?", "wanted": "1 + 1?", "answer": "5", "right": "2", "solution": "no"}
    path = write_lines(tmp_path / "rows.jsonl", [row])
    named = first_problem(path, {"prompt": "wanted", "gold": "right", "solutions": "answer"})
    assert (named.prompt, named.gold, named.metadata["solutions"]) == ("1 + 1?", "2", ["5"])


def test_the_first_name_wins_and_two_others_are_ambiguous(tmp_path: Path) -> None:
    row = {"prompt": "2 + 3?", "question": "1 + 1?", "gold": "5"}
    assert first_problem(write_lines(tmp_path / "first.jsonl", [row])).prompt == "2 + 3?"
    row = {"problem": "2 + 3?", "question": "1 + 1?", "gold": "5"}
    path = write_lines(tmp_path / "two.jsonl", [row])
    with pytest.raises(UserError, match=r"data\.rows\.prompt: there is no column 'prompt'"):
        first_problem(path)


def test_a_column_of_numbers_is_no_solution(tmp_path: Path) -> None:
    row = {"prompt": "2 + 3?", "gold": "5", "solution": 5}
    assert "solutions" not in first_problem(write_lines(tmp_path / "a.jsonl", [row])).metadata


def test_rows_that_cannot_be_read_do_not_hide_the_names(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = json.dumps({"question": "2 + 3?", "answer": "5"})
    path.write_text(f"{{broken\n{good}\n")
    source = file_source(path, unreadable="drop")
    assert [one.gold for one in source.problems(Split.TRAIN, None, 1, 0)] == ["5"]
