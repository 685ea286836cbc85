"""Seven small changes that a newcomer makes, as the README of each room describes them.

Each is one Python file or none, and one YAML file, in a folder of the user's. The test writes the
very text of the README and runs its command.
"""

import json
import os
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from reasoning_lab.graph.record import RECORD_FILE
from tests.conftest import lab_here

PACKAGE = Path(__file__).parents[1] / "reasoning_lab"
QUIET = ["tracker.mode=disabled", "hardware.threads=1"]


def without(*stages: str) -> list[str]:
    """Overrides that leave these stages out, so that the command takes less time."""
    return [f"~stages.{stage}" for stage in stages]


@dataclass(frozen=True)
class Change:
    """A README's section: the files that it shows, what it trusts and the command that it runs."""

    files: dict[str, str]
    trusted: str
    command: list[str]


def change_in(room: str) -> Change:
    """What the section "… of your own" of a room's README shows."""
    readme = (PACKAGE / room / "README.md").read_text(encoding="utf-8")
    _, _, section = readme.partition(" of your own\n")
    section = section.partition("\n## ")[0]
    files = dict(re.findall(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```$", section, re.M | re.S))
    (block,) = re.findall(r"^```bash\n(.*?)^```$", section, re.M | re.S)
    lines = [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]
    trusted = ""
    if lines[0][0] == "export":
        export = lines.pop(0)
        assert export[1] == "PYTHONPATH=$PWD"
        trusted = export[2].removeprefix("REASONING_LAB_TRUSTED=")
    (command,) = lines
    assert command[0] == "reasoning-lab"
    return Change(files, trusted, command[1:])


@pytest.fixture
def folder(tmp_path: Path, smoke_run: Path) -> Path:
    """A user's folder, with the store of a smoke run from which stages are reused."""
    shutil.copytree(smoke_run / "runs" / "store", tmp_path / "runs" / "store")
    return tmp_path


def apply(change: Change, folder: Path, patch: pytest.MonkeyPatch, *shorter: str) -> None:
    """Write the files and run the command with overrides that shorten it; it must succeed."""
    assert sum(name.endswith(".yaml") for name in change.files) == 1
    assert sum(name.endswith(".py") for name in change.files) <= 1
    for name, text in change.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    patch.syspath_prepend(folder)
    patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
    patch.setenv("REASONING_LAB_TRUSTED", change.trusted)
    assert lab_here(*change.command, *shorter, cwd=folder) == 0


def newest(folder: Path, stage: str) -> dict[str, Any]:
    """The record of the stage's newest artifact."""
    records = (folder / "runs" / "store" / stage).glob(f"*/{RECORD_FILE}")
    record: dict[str, Any] = json.loads(max(records, key=os.path.getmtime).read_text())
    return record


def test_a_reward(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(change_in("rewards"), folder, monkeypatch, *QUIET, "benchmark=[]")
    assert "my_reward.few_lines" in newest(folder, "rl")["identity"]["code"]


def test_a_loss(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorter = [*without("prefer", "dpo", "rl"), "benchmark=[]"]
    apply(change_in("losses"), folder, monkeypatch, *QUIET, *shorter)
    identity = newest(folder, "focal_sft")["identity"]
    assert identity["config"]["gamma"] == 1.5
    assert set(identity["code"]) == {"my_loss.FocalSFT"}


def test_a_stage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorter = [*without("sft", "prefer", "dpo", "rl"), "benchmark=[]"]
    apply(change_in("stages"), folder, monkeypatch, *QUIET, *shorter)
    shortest = newest(folder, "shortest")
    assert shortest["metrics"]["accepted"] == 200
    assert shortest["fingerprint"] in json.dumps(newest(folder, "midtrain"))


def test_a_benchmark(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorter = without("midtrain", "sft", "prefer", "dpo", "rl")
    apply(change_in("evaluate"), folder, monkeypatch, *QUIET, *shorter)
    metrics = newest(folder, "evaluate")["metrics"]
    # The smoke experiment's protocol takes one sample.
    assert (metrics["n"], metrics["samples"], list(metrics["families"])) == (2, 1, ["sums"])


def test_a_metric_in_the_report(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorter = [*without("midtrain", "sft", "prefer", "dpo", "rl"), "protocol.count=4"]
    apply(change_in("report"), folder, monkeypatch, *QUIET, *shorter)
    mean, low, high = newest(folder, "evaluate")["metrics"]["metric/second_thoughts"]
    assert low <= mean <= high
    (report,) = (folder / "runs" / "recipes").glob("*/report.md")
    assert "metric/second_thoughts" in report.read_text(encoding="utf-8")


def test_a_checker(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change = change_in("verify")
    apply(change, folder, monkeypatch)
    audited = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (audited["n"], audited["agree"]) == (2, 2)
    assert lab_here("--config-dir", "my_conf", "--cfg", "job", "data=number_sets", cwd=folder) == 0
    assert "checker: my_checker.same_numbers" in capsys.readouterr().out


def test_a_family_of_problems(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change = change_in("data")
    assert sum(len(text.splitlines()) for text in change.files.values()) < 40
    shorter = [*without("midtrain", "sft", "prefer", "dpo", "rl"), "benchmark=[]"]
    apply(change, folder, monkeypatch, *QUIET, *shorter)
    corpus = newest(folder, "distill")
    assert set(corpus["identity"]["code"]) == {"my_family.count_bits"}
    store = folder / "runs" / "store" / "distill" / corpus["fingerprint"]
    rows = pyarrow.parquet.read_table(store / "accepted.parquet").to_pylist()
    solved = [str(row) for row in rows if "binary representation" in str(row)]
    assert len(solved) > 10
    assert all(" halved = " in text for text in solved)
