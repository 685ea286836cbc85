"""Each step's metrics, stored with the policy."""

import json
import math
from pathlib import Path

from reasoning_lab.tracking.curves import read_history
from reasoning_lab.tracking.history import History


def test_a_resumed_history_has_the_steps_of_its_state_and_no_times(tmp_path: Path) -> None:
    killed = History()
    killed.log_metrics({"train/loss": 2.0, "time/step_s": 0.1, "epoch": 0}, 0)
    killed.log_metrics({"val/loss": 1.5}, 0)
    killed.log_metrics({"train/loss": 0.1 + 0.2}, 1)
    state = json.dumps(killed.state_dict())
    killed.log_metrics({"train/loss": 9.0}, 2)
    resumed = History()
    assert resumed.latest("train/loss") is None
    resumed.load_state_dict(json.loads(state))
    assert resumed.latest("train/loss") == 0.1 + 0.2
    resumed.log_metrics({"train/loss": float("nan")}, 3)
    again = History()
    again.load_state_dict(json.loads(json.dumps(resumed.state_dict())))
    again.write(tmp_path)
    curves = read_history(tmp_path)
    assert curves.keys() == {"train/loss", "val/loss"}
    assert curves["val/loss"] == {0: 1.5}
    loss = curves["train/loss"]
    assert math.isnan(loss.pop(3))
    assert loss == {0: 2.0, 1: 0.1 + 0.2}


def test_without_metrics_there_is_no_curve(tmp_path: Path) -> None:
    assert read_history(tmp_path) == {}
    History().write(tmp_path)
    assert read_history(tmp_path) == {}
