"""Problems of local files: splits, duplicates, and what is refused."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reasoning_lab.data.sources.problem_source import split_of
from reasoning_lab.data.sources.table_source import TableSource
from reasoning_lab.types import Split, UserError
from tests.support.sources import GOOD, everything, file_source, write_lines


def source_of(
    path: Path,
    rows: Mapping[str, Any] | None = None,
    test_frac: float = 0.1,
    validation_frac: float = 0.1,
) -> TableSource:
    return file_source(str(path), test_frac, validation_frac, rows or {})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "not JSON"),
        ("[1, 2]", "a list, not an object"),
        ('{"prompt": "2 + 2?"}', "there is no column 'gold'; the columns are prompt"),
        ('{"prompt": "2 + 2?", "gold": null}', "'gold' is None"),
        ('{"prompt": "2 + 2?", "golds": "4"}', "prompt, golds; did you mean 'golds'?"),
        ('{"prompt": "  ", "gold": "4"}', "'prompt' is '  '"),
        ('{"prompt": "2 + 2?", "gold": [4, 5]}', "'gold' is [4, 5]"),
        ('{"prompt": "2 + 2?", "gold": "4", "level": "hard"}', "'level' is 'hard'"),
        ('{"prompt": "2 + 2?", "gold": "4", "level": 0}', "'level' is 0"),
        ('{"prompt": "2 + 2?", "gold": "4", "level": true}', "'level' is True"),
        ("[" * 10**6, "nested too deep"),
    ],
)
def test_malformed_row_is_named_by_its_line(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{GOOD}\n\n{row}\n{GOOD}\n")
    with pytest.raises(UserError) as refusal:
        source_of(path)
    assert str(refusal.value).startswith(f"{path}, line 3: ")
    assert message in str(refusal.value)


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.jsonl"
    with pytest.raises(UserError, match=r"data\.path: there is no file .*missing\.jsonl"):
        source_of(missing)
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}')
    with pytest.raises(UserError, match="UTF-8"):
        source_of(tmp_path / "latin.jsonl")
    (tmp_path / "broken.json").write_text("[{}")
    with pytest.raises(UserError, match=r"broken\.json' is no JSON array"):
        source_of(tmp_path / "broken.json")
    (tmp_path / "broken.parquet").write_text("PAR1")
    with pytest.raises(UserError, match=r"broken\.parquet' is no readable parquet"):
        source_of(tmp_path / "broken.parquet")


def test_line_separators_inside_a_row_do_not_split_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    # Legal unescaped in JSON, and a line end for str.splitlines.
    path.write_text('{"prompt": "one\u2028two\x85three?", "gold": "2"}\n', encoding="utf-8")
    (problem,) = source_of(path, test_frac=0, validation_frac=0).problems(Split.TRAIN, [1], 1, 0)
    assert problem.prompt == "one\u2028two\x85three?"


def test_file_rows_are_split_deduplicated_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [f'{{"prompt": "{n} + 1?", "gold": "{n + 1}"}}' for n in range(200)]
    path.write_text("\n".join([*rows, *rows, '{"prompt": "0  +  1?", "gold": " $ 1$"}']))
    source = source_of(path, {"family": "sums"}, test_frac=0.2)
    by_split = everything(source)
    assert sum(map(len, by_split.values())) == 200
    for split, problems in by_split.items():
        for problem in problems:
            assert split_of(problem.id, 0.2, 0.1) is split
            assert (problem.checker, problem.family, problem.level) == ("math", "sums", 1)
            # The first of the equal prompts counts, and the row says where it was.
            number = int(problem.gold)
            assert problem.prompt == f"{number - 1} + 1?"
            assert problem.metadata == {"row": f"rows.jsonl, line {number}"}
    test = by_split[Split.TEST]
    assert test == list(source.problems(Split.TEST, [1], len(test), 0))
    assert test != list(source.problems(Split.TEST, [1], len(test), 1))
    assert {p.id for p in test} == {p.id for p in source.problems(Split.TEST, [1], len(test), 1)}


def test_a_json_array_and_parquet_hold_the_same_problems(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "gold": str(n), "level": n % 3 + 1} for n in range(30)]
    lines = write_lines(tmp_path / "rows.jsonl", rows)
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    expected = list(source_of(lines).problems(Split.TRAIN, [2, 3], 9, 4))
    assert {problem.level for problem in expected} == {2, 3}
    for name in ("rows.json", "rows.parquet"):
        problems = list(source_of(tmp_path / name).problems(Split.TRAIN, [2, 3], 9, 4))
        places = [problem.metadata["row"] for problem in problems]
        assert places == [f"{name}, row {int(problem.gold) + 1}" for problem in problems]
        assert [(p.prompt, p.gold, p.level) for p in problems] == [
            (p.prompt, p.gold, p.level) for p in expected
        ]


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [{"prompt": "a", "gold": "1"}])
    first = source_of(path, test_frac=0, validation_frac=0)
    path.write_text(path.read_text().replace("1", "2"))
    second = source_of(path, test_frac=0, validation_frac=0)
    assert first.content() == second.content()  # Both name what is there now.
    assert next(first.problems(Split.TRAIN, [1], 1, 0)).gold == "1"
    assert next(second.problems(Split.TRAIN, [1], 1, 0)).gold == "2"
    other = source_of(path, {"family": "new"}, test_frac=0, validation_frac=0)
    assert next(other.problems(Split.TRAIN, [1], 1, 0)).family == "new"


def test_rows_without_gold_are_skipped_and_counted_when_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    golds = ["1", "proof", "", None, "2", " proof ", "improof"]
    rows = [{"prompt": f"{n}?", "gold": gold} for n, gold in enumerate(golds)]
    path = write_lines(tmp_path / "rows.jsonl", rows)
    with pytest.raises(UserError, match="line 3: 'gold' is ''"):
        source_of(path)
    with caplog.at_level(logging.INFO):
        source = source_of(path, {"no_gold": ["", "proof"]}, test_frac=0, validation_frac=0)
    assert {p.gold for p in everything(source)[Split.TRAIN]} == {"1", "2", "improof"}
    assert "3 of 7 rows go on; dropped: 4 no gold" in caplog.text
