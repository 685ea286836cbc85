"""Each step's metrics, kept with the policy."""

import json
from pathlib import Path

from reasoning_lab.tracking.history import History, read_history


def test_last_telling_of_a_step_counts_and_times_are_left_out(tmp_path: Path) -> None:
    killed = History(tmp_path / "work")
    killed.log_metrics({"train/loss": 2.0, "time/step_s": 0.1, "epoch": 0}, 0)
    killed.log_metrics({"train/loss": 9.0}, 1)
    killed.log_metrics({"val/loss": 1.5}, 1)
    lines = tmp_path / "work" / "history.jsonl"
    lines.write_text(lines.read_text() + "\n" + json.dumps([2, {"train/loss": 7.0}])[:9])
    resumed = History(tmp_path / "work")
    resumed.log_metrics({"train/loss": 1.0}, 1)
    resumed.log_metrics({"train/loss": float("nan")}, 2)
    resumed.write(tmp_path)
    curves = read_history(tmp_path)
    assert curves.keys() == {"train/loss", "val/loss"}
    assert curves["val/loss"] == {1: 1.5}
    assert [*curves["train/loss"].items()][:2] == [(0, 2.0), (1, 1.0)]
    assert curves["train/loss"][2] != curves["train/loss"][2]


def test_nothing_kept_is_no_curve(tmp_path: Path) -> None:
    assert read_history(tmp_path) == {}
    History(tmp_path / "work").write(tmp_path)
    assert read_history(tmp_path) == {}
