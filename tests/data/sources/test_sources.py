"""Problems from files: the mapping of rows, splits, and what is refused."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reasoning_lab.data.sources.file import FileSource
from reasoning_lab.data.sources.problem_source import ProblemSource, split_of
from reasoning_lab.data.sources.row_mapping import RowMapping, parse_row_mapping
from reasoning_lab.types import Problem, Split, UserError

GOOD = '{"prompt": "1 + 1?", "gold": "2", "level": 1}'


def source_of(
    path: Path,
    rows: Mapping[str, Any] | None = None,
    test_frac: float = 0.1,
    validation_frac: float = 0.1,
) -> FileSource:
    return FileSource(str(path), test_frac, validation_frac, rows or {})


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def everything(source: ProblemSource, levels: tuple[int, ...] = (1,)) -> dict[Split, list[Problem]]:
    """All problems of each split, told by the refusal of too many."""
    found = {}
    for split in Split:
        with pytest.raises(UserError, match=rf"distinct {split} prompts") as refusal:
            list(source.problems(split, levels, 10**6, 0))
        count = int(str(refusal.value).split(" has ")[1].split()[0])
        found[split] = list(source.problems(split, levels, count, 0))
    return found


def problem_of(options: Mapping[str, Any], row: Mapping[str, Any]) -> Problem | None:
    return parse_row_mapping(options, "data.rows").problem(row, "f.jsonl, line 7")


@pytest.mark.parametrize(
    ("row", "said"),
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
def test_malformed_row_is_named_by_its_line(tmp_path: Path, row: str, said: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{GOOD}\n\n{row}\n{GOOD}\n")
    with pytest.raises(UserError) as refusal:
        source_of(path)
    assert str(refusal.value).startswith(f"{path}, line 3: ")
    assert said in str(refusal.value)


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
    found = everything(source)
    assert sum(map(len, found.values())) == 200
    for split, problems in found.items():
        for problem in problems:
            assert split_of(problem.id, 0.2, 0.1) is split
            assert (problem.checker, problem.family, problem.level) == ("math", "sums", 1)
            # The first of the equal prompts counts, and the row says where it was.
            number = int(problem.gold)
            assert problem.prompt == f"{number - 1} + 1?"
            assert problem.metadata == {"row": f"rows.jsonl, line {number}"}
    test = found[Split.TEST]
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
        found = list(source_of(tmp_path / name).problems(Split.TRAIN, [2, 3], 9, 4))
        places = [problem.metadata["row"] for problem in found]
        assert places == [f"{name}, row {int(problem.gold) + 1}" for problem in found]
        assert [(p.prompt, p.gold, p.level) for p in found] == [
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


@pytest.mark.parametrize(
    "options",
    [
        ["A)1 cm", "B)2 cm", "C)B) 3"],
        ["(A) 1 cm", "(B) 2 cm", "(C) B) 3"],
        ["1 cm", "2 cm", "B) 3"],
    ],
)
def test_choices_become_lines_of_the_prompt(options: list[str]) -> None:
    mapping = {"options": "o", "gold": "c", "checker": "choice"}
    problem = problem_of(mapping, {"prompt": "How long?", "o": options, "c": "C"})
    assert problem is not None
    assert problem.prompt == "How long?\nA) 1 cm\nB) 2 cm\nC) B) 3"
    assert (problem.gold, problem.checker) == ("C", "choice")
    assert problem.metadata["choices"] == ["1 cm", "2 cm", "B) 3"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"o": ["1", "2"], "gold": "C"}, "'gold' is 'C', no letter of the 2 choices"),
        ({"o": "A)1", "gold": "A"}, "'o' is 'A\\)1'; give a list of 2 to 26 texts"),
        ({"o": ["1"], "gold": "A"}, "'o' is"),
        ({"o": ["1", None], "gold": "A"}, "option 2 of 'o' is neither text nor a number"),
        ({"o": ["1", " "], "gold": "A"}, "option 2 of 'o' is empty"),
    ],
)
def test_choices_that_are_none_are_refused(row: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        problem_of({"options": "o"}, {"prompt": "?", **row})


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
    rows = [{"kind": "word", "ok": True}, {"kind": "proof", "ok": True}, {"kind": "word"}, {}]
    mapping = RowMapping(only={"kind": "word", "ok": True})
    assert [mapping.selects(row) for row in rows] == [True, False, False, False]
    mapping = RowMapping(only={"kind": ["word", "proof"]})
    assert [mapping.selects(row) for row in rows] == [True, True, True, False]
    assert RowMapping().selects({})


def test_a_mapping_that_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.rows\.promt: there is no such key; .*prompt"):
        parse_row_mapping({"promt": "q"}, "data.rows")
    for gold_in in ("box", "after ", "after"):
        with pytest.raises(UserError, match=r"data\.rows\.gold_in: .*unknown; choose whole"):
            parse_row_mapping({"gold_in": gold_in}, "data.rows")
