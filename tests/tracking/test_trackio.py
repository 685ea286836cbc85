"""trackio itself, in a process of its own: it reads its folder once, when it is imported."""

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.config.tracker import TrackerConfig
from reasoning_lab.tracking.trackers import check_trackers
from reasoning_lab.types import UserError

ROOT = Path(__file__).parents[2]
needs_trackio = pytest.mark.skipif(
    importlib.util.find_spec("trackio") is None, reason="trackio is not installed"
)
# A stage that is resumed, then the run's summary; any look-up of a host ends it.
LOGGED = """
import sys
from pathlib import Path

def refuse(event, arguments):
    if event in ("socket.getaddrinfo", "socket.connect"):
        print("asked for", arguments, flush=True)
        raise SystemExit(3)

sys.addaudithook(refuse)

from reasoning_lab.tracking.tracker import GLOBAL_STEP
from reasoning_lab.tracking.trackers import tracker_of
from reasoning_lab.types import Verdict
from tests.support.tracking import rollout, tracked_run

run = tracked_run(Path("runs"), {"trackio": "offline"})
for steps in ((1, 2), (2, 3)):
    tracker = tracker_of(run)
    for step in steps:
        tracker.log({"train/loss": 1 / step, GLOBAL_STEP: step})
    tracker.log_rollouts("val/samples", [rollout(Verdict.WRONG, "<b>")], {"step": [step]})
    tracker.finish()
summary = tracker_of(run)
summary.log_ladder(
    [{"stage": stage, "benchmark": "held", "pass@1": value, "ci95": [0.0, value]}
     for stage, value in (("sft", 0.4), ("rl", 0.6))],
    Path("ladder.png"),
)
summary.finish()
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a process without a network has logged, with a token for the hub."""
    folder = tmp_path_factory.mktemp("trackio")
    environment = {name: value for name, value in os.environ.items() if "TRACKIO" not in name}
    environment |= {"PYTHONPATH": str(ROOT), "HF_TOKEN": "hf_" + "x" * 34}
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOGGED],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return folder / "runs"


def query(runs: Path, sql: str) -> list[Any]:
    with sqlite3.connect(runs / "trackio" / "reasoning-lab.db") as database:
        return database.execute(sql).fetchall()


@needs_trackio
def test_metrics_have_their_keys_and_the_trainers_step(runs: Path) -> None:
    rows = query(runs, "SELECT run_name, step, metrics FROM metrics ORDER BY id")
    assert {name for name, _, _ in rows} == {"abc123"}
    losses = [
        (step, values["trainer/global_step"], values["train/loss"])
        for _, step, text in rows
        if "train/loss" in (values := json.loads(text))
    ]
    assert losses == [(1, 1, 1.0), (2, 2, 0.5), (2, 2, 0.5), (3, 3, 1 / 3)]
    ladder = [
        (step, values["ladder/stage"], values["ladder/held/pass@1"])
        for _, step, text in rows
        if "ladder/stage" in (values := json.loads(text))
    ]
    assert ladder == [(0, 0, 0.4), (1, 1, 0.6)]


@needs_trackio
def test_a_table_has_the_rollouts(runs: Path) -> None:
    rows = query(runs, "SELECT metrics FROM metrics ORDER BY id")
    tables = [
        values["val/samples"] for (text,) in rows if "val/samples" in (values := json.loads(text))
    ]
    assert len(tables) == 2
    (row,) = tables[1]["_value"]
    assert (row["completion"], row["verdict"], row["step"]) == ("<b>", "wrong", 3)


@needs_trackio
def test_a_run_has_its_stages_config_and_group(runs: Path) -> None:
    ((config,),) = set(query(runs, "SELECT config FROM configs"))
    content = json.loads(config)
    assert content["optimization"] == {"steps": 3}
    assert (content["job_type"], content["_Group"]) == ("sft", "recipe-7")


@needs_trackio
def test_it_stays_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_SPACE_ID", "me/public")
    with pytest.raises(UserError, match=r"TRACKIO_SPACE_ID: .* unset TRACKIO_SPACE_ID"):
        check_trackers(TrackerConfig(backends=["trackio"]))
    check_trackers(TrackerConfig(backends=["trackio"], mode="disabled"))
