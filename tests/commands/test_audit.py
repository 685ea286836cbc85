"""The verifier held against labelled rows, through the command."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import lab_here

# What an answer may look like, and whether it equals gold: derived by hand.
LABELLED = [
    ("1/2", r"\boxed{\dfrac{1}{2}}", True),
    ("1/2", r"\boxed{0.5}", True),
    ("1234", r"\boxed{1,234}", True),
    ("50\\%", r"\boxed{50\%}", True),
    ("2", r"first \boxed{3}, then \boxed{2}", True),
    ("2", r"first \boxed{2}, then \boxed{3}", False),
    ("2", r"<think>\boxed{2}</think> I don't know", False),
    ("7", r"\boxed{" + "{" * 500 + "7" + "}" * 501, False),
    ("7", r"\boxed{" + "7" * 1_000_000 + "}", False),
    ("7", r"\boxed{10^{10^{10^{10}}}}", False),
    ("0", r"\boxed{1000! - 1000! \cdot (1 + 10^{-30})}", False),
    ("(1, 2)", r"\boxed{(2, 1)}", False),
    ("x + 1", r"\boxed{1 + x}", True),
]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def audited(
    folder: Path, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    capsys.readouterr()
    assert lab_here("audit", "path=rows.jsonl", *words, cwd=folder) == 0
    out = capsys.readouterr().out
    (file,) = (folder / "runs" / "audits").glob("*/disagreements.jsonl")
    return json.loads(out), [json.loads(line) for line in file.read_text().splitlines()]


def test_known_traps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"gold": gold, "completion": text, "label": label} for gold, text, label in LABELLED]
    written(tmp_path / "rows.jsonl", rows)
    result, wrong = audited(tmp_path, capsys, "hardware.verifier_timeout_s=1")
    assert wrong == []
    assert result["n"] == result["agree"] == len(LABELLED)
    assert result["false_positive"] == result["false_negative"] == 0
    assert result["timeout"] >= 1
    assert result["unparseable"] >= 2


def test_counts_and_disagreements(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two labels of five are wrong: one each way."""
    texts = [(r"\boxed{4}", True), (r"\boxed{4}", False), (r"\boxed{5}", True)]
    texts += [(r"\boxed{5}", False), ("four", False)]
    rows = [{"gold": "4", "completion": text, "label": label} for text, label in texts]
    written(tmp_path / "rows.jsonl", rows)
    result, wrong = audited(tmp_path, capsys)
    assert result == {
        "n": 5,
        "agree": 3,
        "false_positive": 1,
        "false_negative": 1,
        "unparseable": 1,
        "timeout": 0,
        "unreadable_gold": 0,
    }
    assert [(row["line"], row["verdict"], row["label"]) for row in wrong] == [
        (2, "correct", False),
        (3, "wrong", True),
    ]


def test_each_checker_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = [("1,234", r"\boxed{\$1234}", True), ("18", r"\boxed{18 dollars}", True)]
    numbers += [("18", r"\boxed{18 and a half}", False), ("18", r"\boxed{1.8}", False)]
    rows = [{"gold": gold, "completion": text, "label": label} for gold, text, label in numbers]
    written(tmp_path / "rows.jsonl", rows)
    result, wrong = audited(tmp_path, capsys, "checker=number")
    assert (wrong, result["n"], result["agree"]) == ([], 4, 4)


def test_choices_stand_in_the_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = {"gold": "C", "choices": ["7", "8", "53"]}
    rows: list[dict[str, Any]] = [
        {**problem, "completion": r"\boxed{53}", "label": True},
        {**problem, "completion": r"\boxed{8}", "label": False},
        {**problem, "completion": r"\boxed{D}", "label": True},
        {"gold": "C", "completion": r"\boxed{53}", "label": False},
        {"gold": "C", "completion": r"\boxed{(C)}", "label": True},
    ]
    written(tmp_path / "rows.jsonl", rows)
    result, wrong = audited(tmp_path, capsys, "checker=choice")
    assert [(row["line"], row["verdict"]) for row in wrong] == [(3, "unparseable")]
    assert wrong[0]["choices"] == ["7", "8", "53"]
    assert result["unparseable"] == 2


def test_unreadable_golds_are_counted_and_the_rest_is_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golds = ["18", "eighteen", "18", "", "2 or 3"]
    rows = [{"gold": gold, "completion": r"\boxed{18}", "label": True} for gold in golds]
    rows[2]["label"] = False
    written(tmp_path / "rows.jsonl", rows)
    assert lab_here("audit", "path=rows.jsonl", "checker=number", cwd=tmp_path) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "n": 5,
        "agree": 1,
        "false_positive": 1,
        "false_negative": 0,
        "unparseable": 0,
        "timeout": 0,
        "unreadable_gold": 3,
    }
    assert re.search("3 unreadable gold .*line 2, .*line 4, .*line 5", err)
    (file,) = (tmp_path / "runs" / "audits").glob("*/dropped.jsonl")
    dropped = [json.loads(line)["origin"] for line in file.read_text().splitlines()]
    assert dropped == [f"rows.jsonl, line {line}" for line in (2, 4, 5)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"gold": "1", "completion": "x"}\n', "rows.jsonl, line 1: not an object.*'label'"),
        ('{"gold": "1", "completion": "x", "label": "yes"}\n', "line 1: .* label is true or false"),
        ('\n{"gold": 1, "completion": "x", "label": true}\n', "line 2: gold and completion are"),
        ("nonsense\n", "line 1: not JSON"),
        (
            '{"gold": "A", "completion": "x", "label": true, "choices": [1]}\n',
            "line 1: choices is not a list of texts",
        ),
        ("\n", "the file has no row"),
    ],
)
def test_malformed_rows_are_named(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.jsonl").write_text(content)
    assert lab_here("audit", "path=rows.jsonl", cwd=tmp_path) == 2
    err = capsys.readouterr().err.strip()
    assert len(err.splitlines()) == 1
    assert re.search(message, err), err


def test_file_must_be_named_and_be_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab_here("audit", cwd=tmp_path) == 2
    assert "audit path=FILE.jsonl" in capsys.readouterr().err
    assert lab_here("audit", "path=gone.jsonl", cwd=tmp_path) == 2
    assert "path: cannot read 'gone.jsonl'" in capsys.readouterr().err


def test_a_row_may_name_its_checker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For `choice` the option is B; for `math` the answer has a 12 that gold lacks."""
    row = {"gold": "B", "completion": "\\boxed{B because 12}", "label": True}
    path = written(tmp_path / "rows.jsonl", [row | {"checker": "choice"}, row])

    def agreed(*words: str) -> int:
        capsys.readouterr()
        assert lab_here("audit", f"path={path}", *words, cwd=tmp_path) == 0
        agree: int = json.loads(capsys.readouterr().out)["agree"]
        return agree

    assert agreed() == 1
    assert agreed("checker=choice") == 2
    assert agreed("checker=math") == 0
