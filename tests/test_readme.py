"""The README and the page on parts of one's own: their files as they stand, and their commands."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import lab, lab_here

QUIET = ["tracker.mode=disabled", "hardware.threads=1"]
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE = (ROOT / "reasoning_lab" / "YOUR_OWN.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```$", PAGE, re.M | re.S))
COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"^```bash\n(.*?)^```$", PAGE, re.M | re.S)
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


def commands_for(reader: str) -> list[list[str]]:
    """The commands of the README for who says `reader` of themselves."""
    section = README.partition(f"**{reader}")[2].partition("\n**I ")[0].partition("\n## ")[0]
    (block,) = re.findall(r"^```bash\n(.*?)^```$", section, re.M | re.S)
    return [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]


def test_who_has_problems_runs_all_steps_on_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (command,) = commands_for("I have problems of my own.")
    (example,) = re.findall(r"A line is `(\{.+\})`", README)
    row = {"prompt": "2 + 3?", "gold": "5", "solution": r"2 + 3 = \boxed{5}"}
    assert json.loads(example) == row
    rows = [
        {"prompt": f"{a} + {b}?", "gold": f"{a + b}", "solution": rf"{a} + {b} = \boxed{{{a + b}}}"}
        for a in range(30)
        for b in range(10)
    ]
    text = "\n".join(map(json.dumps, rows))
    (tmp_path / "problems.jsonl").write_text(text, encoding="utf-8")
    assert lab_here("plan", *command[1:], cwd=tmp_path) == 0
    assert "11 to make, 0 to reuse" in capsys.readouterr().out
    corpus_alone = [f"~stages.{stage}" for stage in ("midtrain", "sft", "prefer", "dpo", "rl")]
    words = [*command[1:], *corpus_alone, "benchmark=[]", *QUIET]
    assert lab_here(*words, cwd=tmp_path) == 0
    (record,) = (tmp_path / "runs" / "store" / "distill").glob("*/artifact.json")
    distilled = json.loads(record.read_text())
    count = distilled["ledger"]["problems"]["in"]
    assert 200 < count < 250
    assert (distilled["metrics"]["rollouts"], distilled["metrics"]["accepted_frac"]) == (count, 1.0)


def test_who_has_a_real_model_plans_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = next(words for words in commands_for("I have a real model.") if "plan" in words)
    assert lab_here(*plan[1:], cwd=tmp_path) == 0
    out = capsys.readouterr().out
    assert "12 to make, 0 to reuse" in out


def test_who_evaluates_and_exports_a_policy(smoke_run: Path, tmp_path: Path) -> None:
    store = tmp_path / "runs" / "store"
    shutil.copytree(smoke_run / "runs" / "store", store)
    (policy,) = (store / "sft").glob("????????????????")
    evaluate, export = (
        [word.replace("FINGERPRINT", policy.name[:8]) for word in command[1:]]
        for command in commands_for("I evaluate or export a model.")
    )
    few = ["protocol.count=2", "protocol.samples=1", "protocol.max_new_tokens=4"]
    assert lab_here(*evaluate, *QUIET, *few, cwd=tmp_path) == 0
    code, _, err = lab(*export, cwd=tmp_path)
    assert code == 0, err
    assert (tmp_path / "policy" / "model.safetensors").is_file()


def test_who_writes_a_reward_trains_with_it(
    smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(smoke_run / "runs" / "store", tmp_path / "runs" / "store")
    section = README.partition("**I write a reward")[2]
    code = re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S)[0]
    (tmp_path / "my_reward.py").write_text(code, encoding="utf-8")
    export, command = commands_for("I write a reward")
    assert export == ["export", "PYTHONPATH=$PWD", "REASONING_LAB_TRUSTED=my_reward"]
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("REASONING_LAB_TRUSTED", "my_reward")
    assert lab_here(*command[1:], *QUIET, "benchmark=[]", cwd=tmp_path) == 0
    records = (tmp_path / "runs" / "store" / "rl").glob("*/artifact.json")
    record = json.loads(max(records, key=os.path.getmtime).read_text())
    assert "my_reward.few_lines" in record["identity"]["code"]


def test_every_file_is_short() -> None:
    assert len(FILES) == 6
    for name, text in FILES.items():
        assert len(text.splitlines()) < 40, name
    assert sum(bool(line.strip()) for line in FILES["my_lab.py"].splitlines()) <= 10


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
def test_a_policy_loss(folder: Path) -> None:
    status = dict(run(folder, COMMANDS[4]))
    assert status["dpo"] == "reused"
    assert status["rl"] == "done"
    records = (folder / "runs" / "store" / "rl").glob("*/artifact.json")
    identity = json.loads(max(records, key=os.path.getmtime).read_text())["identity"]
    assert identity["code"].keys() == {"my_rules.penalized"}
    assert identity["config"]["policy_loss"]["options"] == {"penalty": 0.2}


@pytest.mark.long
def test_a_benchmark_with_a_verifier_and_a_model(folder: Path) -> None:
    assert len(COMMANDS) == 6
    assert run(folder, COMMANDS[5]) == [("my_checkpoint/sorting", "done")]
    records = (folder / "runs" / "store" / "evaluate").glob("*/artifact.json")
    latest = json.loads(max(records, key=os.path.getmtime).read_text())
    assert latest["metrics"]["n"] == 3
    assert latest["identity"]["code"].keys() == {"my_rules.same_numbers"}
