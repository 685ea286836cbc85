"""Six small changes that a newcomer makes, as the README of each room describes them.

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

import pytest

from reasoning_lab.graph.record import RECORD_FILE
from tests.conftest import lab_here

PACKAGE = Path(__file__).parents[1] / "reasoning_lab"


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


def apply(change: Change, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Write the files and run the command, which must succeed."""
    assert sum(name.endswith(".yaml") for name in change.files) == 1
    assert sum(name.endswith(".py") for name in change.files) <= 1
    for name, text in change.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    patch.syspath_prepend(folder)
    patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
    patch.setenv("REASONING_LAB_TRUSTED", change.trusted)
    quick = []
    if "experiment=smoke" in change.command:
        quick = ["tracker.mode=disabled", "hardware.threads=1"]
        if not any(word.startswith("benchmark=") for word in change.command):
            quick.append("benchmark=[]")
    assert lab_here(*change.command, *quick, cwd=folder) == 0


def newest(folder: Path, stage: str) -> dict[str, Any]:
    """The record of the stage's newest artifact."""
    records = (folder / "runs" / "store" / stage).glob(f"*/{RECORD_FILE}")
    record: dict[str, Any] = json.loads(max(records, key=os.path.getmtime).read_text())
    return record


def test_a_reward(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(change_in("rewards"), folder, monkeypatch)
    assert set(newest(folder, "rl")["identity"]["code"]) == {"my_reward.few_lines"}


def test_a_loss(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(change_in("losses"), folder, monkeypatch)
    identity = newest(folder, "focal_sft")["identity"]
    assert identity["config"]["gamma"] == 1.5
    assert set(identity["code"]) == {"my_loss.FocalSFT"}


def test_a_stage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(change_in("stages"), folder, monkeypatch)
    record = newest(folder, "shortest")
    assert record["metrics"]["accepted"] == 80
    print(record)


def test_a_benchmark(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(change_in("evaluate"), folder, monkeypatch)
    metrics = newest(folder, "evaluate")["metrics"]
    assert (metrics["n"], metrics["samples"], list(metrics["families"])) == (2, 4, ["sums"])


def test_a_metric_in_the_report(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(change_in("report"), folder, monkeypatch)
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
    assert (
        lab_here(
            "plan",
            "--config-dir",
            "my_conf",
            "data=number_sets",
            "recipe=distill",
            "teacher@stages.distill.teacher=recorded",
            cwd=folder,
        )
        == 0
    )
