"""What a run writes of itself while it goes; a write that fails costs only the page."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.tracking.live import LiveTracker, is_alive
from reasoning_lab.tracking.progress import Progress, RunPosition
from reasoning_lab.tracking.tracker import GLOBAL_STEP
from reasoning_lab.types import Verdict
from tests.support.live_runs import RL, RUN, SFT, failed_run, live_run
from tests.support.tracking import rollout


def content(file: Path) -> Any:
    return json.loads(file.read_text())


def test_a_run_says_what_it_makes_and_that_it_is_alive(tmp_path: Path) -> None:
    file = tmp_path / RUN / "live" / "run.json"
    with live_run(tmp_path) as run:
        assert is_alive(tmp_path / RUN)
        run.finished(SFT, reused=True)
        run.started(RL)
        written = content(file)
        assert [node["name"] for node in written["nodes"]] == ["sft", "sft/heldout", "rl"]
        states = {key: state["state"] for key, state in written["states"].items()}
        assert states == {SFT: "reused", RL: "running"}
        assert "ended" not in written
    assert not is_alive(tmp_path / RUN)
    assert content(file)["ended"] >= written["started"]
    assert "failure" not in content(file)


def test_a_run_that_fails_leaves_its_reason(tmp_path: Path) -> None:
    failed_run(tmp_path, "no memory")
    assert content(tmp_path / RUN / "live" / "run.json")["failure"] == "no memory"


def test_metrics_are_lines_of_finite_numbers(tmp_path: Path) -> None:
    tracker = LiveTracker(tmp_path)
    tracker.log({"train/loss": 0.5, GLOBAL_STEP: 7, "epoch": 0, "val/loss": float("nan")})
    tracker.log({"rollout/pool": 9, "note": "text"})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 7, "train/loss": 0.5},
        {"step": None, "rollout/pool": 9.0},
    ]


def test_the_last_rollouts_of_each_table_stay(tmp_path: Path) -> None:
    tracker = LiveTracker(tmp_path)
    tracker.log_rollouts("val/samples", [rollout(Verdict.WRONG)])
    for text in ("first", "second"):
        samples = [rollout(Verdict.CORRECT, text)] * 100
        tracker.log_rollouts("rollout/samples", samples, {"reward": [1.0] * 99 + [float("nan")]})
    tables = content(tmp_path / "rollouts.json")
    assert [row["verdict"] for row in tables["val/samples"]] == ["wrong"]
    assert len(tables["rollout/samples"]) == 64
    last = tables["rollout/samples"][-1]
    assert (last["text"], last["measures"], last["tokens"]) == ("second", {"reward": 1.0}, 2)


def test_progress_has_the_stage_its_part_and_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(0, 1000, 2))  # Between two looks at the clock.
    monkeypatch.setattr("time.monotonic", lambda: next(seconds))
    ledger = Ledger()
    progress = Progress("rl", RunPosition(later_s=60, live_dir=tmp_path), ledger)
    file = tmp_path / "progress.json"
    with progress.task("step", 10) as task:
        task.advance(1, tokens=50)
        with progress.task("completion", 8, part="sampling") as part:
            part.advance(4)
            assert content(file)["part"]["done"] == 4
        ledger.take("groups", 3)
        task.advance(1, tokens=50)
        written = content(file)
    assert "part" not in written
    stage = written["stage"]
    assert (stage["done"], stage["total"], stage["later_s"]) == (2, 10, 60)
    # Two of ten are done, so four times as long is left.
    assert stage["left_s"] == pytest.approx(4 * 2 / stage["units_per_s"])
    assert stage["tokens_per_s"] == pytest.approx(50 * stage["units_per_s"])
    assert written["ledger"]["groups"]["in"] == 3


def test_a_folder_that_cannot_be_written_costs_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / RUN).parent.mkdir()
    (tmp_path / RUN).write_text("a file where the folder should be")
    with live_run(tmp_path) as run:
        run.started(SFT)
        tracker = LiveTracker(run.stage_dir(SFT))
        tracker.log({"train/loss": 0.5})
        tracker.log_rollouts("samples", [rollout(Verdict.WRONG)])
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == [
        "Nothing can be written for `reasoning-lab watch` (Not a directory); the run goes on."
    ]
