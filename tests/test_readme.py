"""The README on parts of one's own: its files as they stand there, and its commands."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("## Make it yours\n")[2].partition("\n## ")[0]
FILES = dict(re.findall(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```$", SECTION, re.M | re.S))
COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"^```bash\n(.*?)^```$", SECTION, re.M | re.S)
    for line in block.replace("\\\n", " ").splitlines()
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, smoke_run: Path) -> Path:
    """The files, a checkpoint, and the store of a smoke run, from which stages are reused."""
    workdir = tmp_path_factory.mktemp("mine")
    shutil.copytree(smoke_run / "runs" / "store", workdir / "runs" / "store")
    for name, text in FILES.items():
        (workdir / name).parent.mkdir(parents=True, exist_ok=True)
        (workdir / name).write_text(text, encoding="utf-8")
    (checkpoint,) = (workdir / "runs" / "store" / "midtrain").glob("????????????????")
    shutil.copytree(checkpoint, workdir / "my_checkpoint")
    return workdir


def run(folder: Path, command: list[str]) -> list[tuple[str, str]]:
    """Each node that the command names, with `reused` or `done`."""
    trusted = "my_lab,my_rules"
    assert COMMANDS[0] == ["export", "PYTHONPATH=$PWD", f"REASONING_LAB_TRUSTED={trusted}"]
    assert command[0] == "reasoning-lab"
    process = subprocess.run(
        [sys.executable, "-m", "reasoning_lab", *command[1:], "tracker.mode=disabled"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path[1:]])}
        | {"REASONING_LAB_TRUSTED": trusted},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return re.findall(r"\[step \d+ of \d+\] (.+?): (reused|done)", process.stdout)


def test_every_file_is_short() -> None:
    assert len(FILES) == 6
    for name, text in FILES.items():
        assert len(text.splitlines()) < 40, name


@pytest.mark.long
def test_a_stage_in_anothers_place_and_behind_it(folder: Path) -> None:
    in_place, behind = COMMANDS[1:3]
    status = dict(run(folder, in_place))
    assert status["midtrain"] == "reused"
    assert status["sft"] == status["dpo"] == "done"
    (smoothed,) = (folder / "runs" / "store" / "smoothed").glob("*/artifact.json")
    record = json.loads(smoothed.read_text())
    assert record["identity"]["config"]["smoothing"] == 0.1
    assert record["identity"]["code"].keys() == {"my_lab.Smoothed"}
    status = dict(run(folder, behind))
    assert list(status).index("smoothed") == list(status).index("sft/heldout") + 1
    assert status["sft"] == "reused"
    assert status["smoothed"] == "done"


@pytest.mark.long
def test_a_reward(folder: Path) -> None:
    status = dict(run(folder, COMMANDS[3]))
    assert status["dpo"] == "reused"
    assert status["rl"] == "done"


@pytest.mark.long
def test_a_benchmark_with_a_verifier_and_a_model(folder: Path) -> None:
    assert len(COMMANDS) == 5
    assert run(folder, COMMANDS[4]) == [("my_checkpoint/sorting", "done")]
    records = (folder / "runs" / "store" / "evaluate").glob("*/artifact.json")
    latest = json.loads(max(records, key=os.path.getmtime).read_text())
    assert latest["metrics"]["n"] == 3
    assert latest["identity"]["code"].keys() == {"my_rules.same_numbers"}
