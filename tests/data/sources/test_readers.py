"""Rows as JSON, parquet and people write them: read as meant, dropped by reason, or refused."""

import bz2
import gzip
import json
import lzma
from collections.abc import Mapping
from dataclasses import fields, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reasoning_lab.data.sources.config import HubConfig
from reasoning_lab.data.sources.row_mapping import RowMapping
from reasoning_lab.data.sources.table_source import TableSource
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.types import Problem, Split, UserError
from tests.conftest import Compose
from tests.support.sources import file_source

LINE = '{"prompt": "¿2 + 2?", "gold": "4"}\n'


def drop_source(path: Path, rows: Mapping[str, Any] | None = None, **options: Any) -> TableSource:
    return file_source(str(path), 0.0, 0.0, rows or {}, unreadable="drop", **options)


def problems_of(source: TableSource) -> list[Problem]:
    return list(source.problems(Split.TRAIN, [1], source.available(Split.TRAIN, [1]), 0))


def rows_of(source: TableSource) -> dict[str, Any]:
    ledger = Ledger()
    source.record_rows(ledger)
    counts = ledger.as_json()["rows"]
    return {name: counts[name] for name in ("in", "out", "dropped")}


def gold_of(folder: Path, content: bytes, name: str = "rows.jsonl") -> str:
    (folder / name).write_bytes(content)
    (problem,) = problems_of(file_source(str(folder / name), 0.0, 0.0, {}))
    return problem.gold


def refusal_of(path: Path, **rows: Any) -> str:
    with pytest.raises(UserError) as refusal:
        file_source(str(path), 0.0, 0.0, rows)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize(
    "content",
    [
        LINE.encode("utf-8-sig"),
        *(LINE.encode(code) for code in ("utf-16", "utf-16-le", "utf-16-be", "utf-32")),
        LINE.replace("\n", "\r\n").encode(),
        gzip.compress(LINE.encode(), mtime=0),
        bz2.compress(LINE.encode()),
        lzma.compress(LINE.encode()),
        pa.compress(LINE.encode(), codec="zstd", asbytes=True),
        f"[{LINE}]".encode(),
        gzip.compress(f"\n [{LINE}]".encode("utf-16"), mtime=0),
    ],
)
def test_a_file_is_read_by_what_it_holds(tmp_path: Path, content: bytes) -> None:
    assert gold_of(tmp_path, content) == "4"


@pytest.mark.parametrize(
    ("value", "gold"),
    [
        ("18.0", "18"),
        ("18.50", "18.5"),
        ("-0.0", "0"),
        ("1e-07", "0.0000001"),
        ("1E5", "100000"),
        ("1e30", "1" + "0" * 30),
        ("12345678901234567890123", "12345678901234567890123"),
        ("9" * 5000, "9" * 5000),
        ("0.12345678901234567890123", "0.12345678901234567890123"),
        ('["7"]', "7"),
        ("[7.0]", "7"),
    ],
)
def test_numbers_are_written_out_with_all_their_digits(
    tmp_path: Path, value: str, gold: str
) -> None:
    assert gold_of(tmp_path, f'{{"prompt": "?", "gold": {value}}}'.encode()) == gold


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("NaN", "missing_gold"),
        ("null", "missing_gold"),
        ('" \\u200b"', "missing_gold"),
        ("Infinity", "unreadable_gold"),
        ("1e400", "unreadable_gold"),
        ("1e-99999999999999999999", "unreadable_gold"),
        ("1e-99999999", "unreadable_gold"),
        ("true", "unreadable_gold"),
        ("[1, 2]", "unreadable_gold"),
        ("[[1]]", "unreadable_gold"),
        ('{"value": 1}', "unreadable_gold"),
        ('"a\\u0000b"', "malformed_text"),
        ('"a\\ud83d"', "malformed_text"),
        ('1, "gold": 2', "malformed_row"),
        ("1,", "malformed_row"),
    ],
)
def test_what_is_no_gold_is_refused_or_dropped_by_its_reason(
    tmp_path: Path, value: str, reason: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{LINE}{{"prompt": "?", "gold": {value}}}\n', encoding="utf-8")
    complaint = refusal_of(path)
    assert complaint.startswith(f"{path}, line 2: ")
    assert "data.unreadable=drop" in complaint
    source = drop_source(path)
    assert rows_of(source) == {"in": 2, "out": 1, "dropped": {reason: 1}}
    assert [problem.gold for problem in problems_of(source)] == ["4"]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.jsonl", b"", "no rows"),
        ("b.jsonl", b"\xef\xbb\xbf\n  \n", "no rows"),
        ("c.json", b"[]", "no rows"),
        ("d.jsonl", b"{'prompt': 'q'}\n", "line 1: not JSON"),
        ("e.jsonl", '{"prompt": "é"}'.encode("latin-1"), "line 1: not UTF-8 (byte 0xe9 at 13)"),
        ("f.jsonl.gz", gzip.compress(LINE.encode() * 99, mtime=0)[:-9], "cannot read"),
        ("g.jsonl", LINE.encode("utf-16")[:-3], "cannot read"),
        ("h.json", b'[{"prompt": "q", "gold": 1},]', "no JSON array"),
        ("i.json", b'{\n"prompt": "q",\n"gold": "1"\n}', "line 1: not JSON"),
        ("j.csv", b"prompt,gold\nq,1\n", "a .csv file"),
        ("k.jsonl", b"PK\x03\x04", "a zip archive"),
        ("l.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("m.parquet", LINE.encode(), "no readable parquet"),
        ("n.json", b'{"prompt": ["q"], "gold": ["1"]}', "e.g. prompt.0"),
    ],
)
def test_a_file_that_is_something_else_is_refused(
    tmp_path: Path, name: str, content: bytes, complaint: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert complaint in refusal_of(tmp_path / name)


def test_a_folder_and_a_device_are_no_files(tmp_path: Path) -> None:
    assert "is a folder" in refusal_of(tmp_path)
    assert "a device or a pipe" in refusal_of(Path("/dev/zero"))


def test_rows_that_are_all_skipped_leave_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "gold": ""}\n{"prompt": "b", "gold": "1"}\n')
    complaint = refusal_of(path, no_gold=["", "1"])
    assert "nothing is left; 0 of 2 rows go on; dropped: 2 no gold" in complaint


def test_what_a_table_dropped_is_counted_whenever_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = [f'{{"prompt": "{n}?", "gold": "{n}"}}' for n in range(4)]
    path.write_text("\n".join([*good, "{", '{"prompt": "", "gold": "1"}', '{"gold": "1"}']))
    expected = {"malformed_row": 1, "missing_prompt": 2}
    for _ in range(2):  # The second source finds the table that the first one made.
        source = drop_source(path)
        assert rows_of(source) == {"in": 7, "out": 4, "dropped": expected}
    assert {problem.prompt for problem in problems_of(source)} == {f"{n}?" for n in range(4)}
    with pytest.raises(UserError, match=r"max_unreadable_frac=0\.4: 3 of 7 rows cannot be read"):
        drop_source(path, max_unreadable_frac=0.4)
    drop_source(path, max_unreadable_frac=0.43)
    with pytest.raises(UserError, match=r"line 5: not JSON.*2 more: rows\.jsonl, line 6, rows"):
        file_source(str(path), 0.0, 0.0, {})


def test_a_wrong_mapping_is_refused_before_all_rows_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": ["q"], "gold": "1"}\n' * 1500)
    with pytest.raises(UserError, match=r"line 1000: 'prompt' is.*not one of 1,000 rows"):
        drop_source(path)


def test_prompts_whose_golds_disagree_are_not_used(tmp_path: Path) -> None:
    pairs = [("a", "1"), ("b", "2"), ("A ", "$ 1 $"), ("c", "3"), ("c", "4"), ("c", "3")]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": p, "gold": g}) + "\n" for p, g in pairs))
    source = file_source(str(path), 0.0, 0.0, {})
    assert {(p.prompt, p.gold) for p in problems_of(source)} == {("a", "1"), ("b", "2")}
    dropped = {"conflicting_gold": 3, "duplicate_prompt": 1}
    assert rows_of(source) == {"in": 6, "out": 2, "dropped": dropped}


def mapped(options: Mapping[str, Any], row: Mapping[str, Any]) -> Problem:
    problem = RowMapping(**{"checker": "choice", **options}).problem(row, "row 1")
    assert problem is not None
    return problem


@pytest.mark.parametrize(
    ("golds", "expected"),
    [
        (pa.array([Decimal("18.00"), Decimal("0.10")], pa.decimal128(9, 2)), ["18", "0.1"]),
        (pa.array([0.1, 3.0], pa.float32()), ["0.1", "3"]),
        (pa.array([2**64 - 1, 7], pa.uint64()), [str(2**64 - 1), "7"]),
        (pa.array(["x", "y"], pa.large_string()), ["x", "y"]),
        (pa.array(["x", "y"]).dictionary_encode(), ["x", "y"]),
        (pa.array([["x"], ["y"]]), ["x", "y"]),
    ],
)
def test_types_of_parquet(tmp_path: Path, golds: Any, expected: list[str]) -> None:
    # What is not used need not be a value of Python's: nanoseconds are none.
    unused = pa.array([1234567890123456789, 1], pa.timestamp("ns"))
    table = pa.table({"prompt": ["p", "q"], "gold": golds, "when": unused})
    pq.write_table(table, tmp_path / "rows.parquet")
    source = file_source(str(tmp_path / "rows.parquet"), 0.0, 0.0, {})
    assert {p.prompt: p.gold for p in problems_of(source)} == dict(zip("pq", expected, strict=True))


@pytest.mark.parametrize(
    ("golds", "complaint"),
    [
        (pa.array([{"value": "1"}]), "e.g. gold.value"),
        (pa.nulls(1), "'gold' is None"),
        (pa.array([1], pa.timestamp("ns")), "row 1: 'gold' is Timestamp"),
        (pa.array([b"1"]), "'gold' is b'1'"),
    ],
)
def test_types_of_parquet_that_are_no_answers(tmp_path: Path, golds: Any, complaint: str) -> None:
    pq.write_table(pa.table({"prompt": ["p"], "gold": golds}), tmp_path / "rows.parquet")
    assert complaint in refusal_of(tmp_path / "rows.parquet")


def test_text_of_parquet_that_is_no_unicode_costs_its_row(tmp_path: Path) -> None:
    offsets = pa.array([0, 2, 3], pa.int32()).buffers()[1]
    prompts = pa.StringArray.from_buffers(2, offsets, pa.py_buffer(b"\xff\xfep"))
    pq.write_table(pa.table({"prompt": prompts, "gold": ["1", "2"]}), tmp_path / "rows.parquet")
    source = drop_source(tmp_path / "rows.parquet")
    assert [problem.gold for problem in problems_of(source)] == ["2"]
    assert rows_of(source)["dropped"] == {"malformed_row": 1}


def test_columns_that_no_row_has_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "q", "gold": "1", "answer": "1", "kind": "x"}\n')
    columns = "the columns are prompt, gold, answer, kind"
    for key, value in (
        ("gold", "anwser"),
        ("solutions", "solution"),
        ("only", {"type": "x"}),
        ("level", "hardness"),
        ("thought", "reasoning"),
    ):
        complaint = refusal_of(path, **{key: value})
        assert complaint.startswith(f"data.rows.{key}: there is no column")
        assert columns in complaint
    assert "did you mean 'answer'?" in refusal_of(path, gold="anwser")


def test_messages_are_named_by_their_role(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be brief."}
    chat = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "\\boxed{2}"}]
    mapping = {"prompt": "m.user.content", "gold": "m.assistant.content", "gold_in": "boxed"}
    for messages in (chat, [system, *chat]):
        problem = mapped(mapping, {"m": messages})
        assert (problem.prompt, problem.gold) == ("1 + 1?", "2")
    turns = [{"from": turn["role"], "value": turn["content"]} for turn in chat]
    mapping = {"prompt": "m.user.value", "gold": "m.assistant.value", "gold_in": "boxed"}
    assert mapped(mapping, {"m": turns}).prompt == "1 + 1?"


def test_one_empty_thought_costs_its_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    thoughts = ["hm", "", None]
    rows = [{"prompt": f"{n}", "gold": "1", "s": "x", "t": t} for n, t in enumerate(thoughts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = drop_source(path, {"solutions": "s", "thought": "t"}, max_unreadable_frac=0.7)
    assert rows_of(source)["dropped"] == {"missing_thought": 2}
    assert "line 2: 't' is ''" in refusal_of(path, solutions="s", thought="t")


def test_corrections_meet_the_gold_that_they_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "Half of one?", "gold": "1./2"}\n{"prompt": "q", "gold": "7"}\n')
    (half, other) = (Problem(prompt, "", "", "").id for prompt in ("Half of one?", "q"))
    corrections = {
        half: {"gold": "1./2", "corrected": "1/2"},
        other: {"gold": "8", "corrected": "9"},
    }
    config = HubConfig(
        dataset="a/b",
        revision="r",
        path=str(path),
        splits={"train": "train"},
        corrections=corrections,
        test_frac=0.0,
        validation_frac=0.0,
    )
    source = config.build()
    assert {problem.gold for problem in problems_of(source)} == {"1/2", "7"}
    assert f"the correction of {other} matches no row" in caplog.text
    assert half not in caplog.text
    with pytest.raises(UserError, match=r"data\.corrections\.x: .* is no correction"):
        replace(config, corrections={"x": {"gold": "1"}}).build()


def test_every_key_of_a_mapping_is_set_without_a_plus(composed: Compose) -> None:
    values = {"level": "grade", "no_gold": "[none]", "shuffled": "[w]", "only": "{kind: x}"}
    values |= {"gold_in": "boxed", "gold_names": "text", "levels": "{grade: 1}"}
    values |= {"cases": "{kind: {x: {checker: number}}}", "option_order": "question"}
    values |= {"tests": "{shown: test_list}"}
    for option, key in (("gsm8k", "data"), ("mixture", "data.sources.gsm8k")):
        words = [f"{key}.rows.{f.name}={values.get(f.name, f.name)}" for f in fields(RowMapping)]
        words = [word for word in words if ".shuffled=" not in word]
        options: Any = composed(f"data={option}", *words).root.data
        rows = options.rows if option == "gsm8k" else options.sources["gsm8k"].rows
        assert {
            name: getattr(rows, name) for name in ("gold_in", "thought", "level", "no_gold")
        } == {
            "gold_in": "boxed",
            "thought": "thought",
            "level": "grade",
            "no_gold": ["none"],
        }
        composed(f"data={option}", f"{key}.rows.shuffled=[w]")


def test_how_unreadable_rows_are_treated_is_identity(composed: Compose, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "1 + 1?", "answer": "#### 2"}\n')

    def fingerprint(*words: str) -> str:
        nodes = composed("data=gsm8k", f"data.path={path}", *words).nodes
        return next(node.fingerprint for node in nodes if node.name == "distill")

    assert fingerprint() == fingerprint("data.unreadable=drop")
    prints = {fingerprint(), fingerprint("data.unreadable=refuse")}
    prints.add(fingerprint("data.max_unreadable_frac=0.25"))
    prints.add(fingerprint("data.corrections={ab: {gold: '1', corrected: '2'}}"))
    assert len(prints) == 4
    with pytest.raises(UserError, match=r"data\.unreadable: 'skip' is unknown"):
        fingerprint("data.unreadable=skip")


def test_errors_of_a_mixture_name_the_key_of_the_source(composed: Compose, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "1 + 1?", "anwser": "#### 2"}\n')
    with pytest.raises(UserError, match=r"^data\.sources\.gsm8k\.rows\.gold: there is no column"):
        composed("data=mixture", f"data.sources.gsm8k.path={path}")
    path.write_text('{"question": "1 + 1?"}\n')
    with pytest.raises(UserError, match=r"^benchmarks\.gsm8k\.data\.rows\.gold: there is no colu"):
        composed("benchmark=[gsm8k]", f"benchmarks.gsm8k.data.path={path}")


def test_rows_that_are_filtered_do_not_count_as_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    filtered = '{"prompt": "q", "gold": "1", "kind": "x"}\n' * 1200
    good = '{"prompt": "p", "gold": "1", "kind": "y"}\n'
    path.write_text(filtered + '{"prompt": "", "gold": "1", "kind": "y"}\n' + good)
    source = drop_source(path, {"only": {"kind": "y"}})
    assert rows_of(source)["dropped"] == {"filtered": 1200, "missing_prompt": 1}
