"""Several trackers at once, one of one's own, and mistakes in naming them."""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from reasoning_lab.config.tracker import TrackerConfig
from reasoning_lab.tracking.tracker import TrackedRun, Tracker
from reasoning_lab.tracking.trackers import check_trackers, modes_of, tracker_of
from reasoning_lab.types import UserError, Verdict
from tests.support.tracking import rollout, tracked_run

ROUGH, PLAIN = f"{__name__}.Failing", f"{__name__}.MetricsOnly"


class MetricsOnly(Tracker):
    logged: ClassVar[list[tuple[str, Mapping[str, Any]]]] = []

    def __init__(self, run: TrackedRun, mode: str) -> None:
        self._run = run

    def log(self, metrics: Mapping[str, Any]) -> None:
        self.logged.append((self._run.run_id, metrics))


class Failing(MetricsOnly):
    def log(self, metrics: Mapping[str, Any]) -> None:
        raise RuntimeError("the server is gone")


@pytest.fixture(autouse=True)
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REASONING_LAB_TRUSTED", "tests")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    MetricsOnly.logged.clear()


def test_both_are_used_at_once_and_the_environment_turns_one_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = TrackerConfig(backends=["wandb", "trackio"], mode="offline")
    assert modes_of(both) == {"wandb": "offline", "trackio": "offline"}
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert modes_of(TrackerConfig(backends=["wandb", "trackio"])) == {"trackio": "offline"}
    assert modes_of(TrackerConfig(backends=["wandb", "trackio"], mode="disabled")) == {}


def test_one_class_is_a_tracker_and_what_it_leaves_out_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = TrackerConfig(backends=[PLAIN])
    check_trackers(config)
    with caplog.at_level(logging.INFO):
        tracker = tracker_of(tracked_run(tmp_path, modes_of(config), config))
    assert caplog.messages == [
        f"Tracker {PLAIN} leaves out tables of rollouts and artifacts and their lineage and the "
        "stage table."
    ]
    tracker.log({"train/loss": 0.5})
    tracker.log_rollouts("samples", [rollout(Verdict.CORRECT)])
    tracker.finish()
    assert MetricsOnly.logged == [("abc123", {"train/loss": 0.5})]


def test_one_that_fails_leaves_the_other_going(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = tracker_of(tracked_run(tmp_path, {ROUGH: "online", PLAIN: "online"}))
    for loss in (1.0, 0.5):
        tracker.log({"train/loss": loss})
    assert [metrics["train/loss"] for _, metrics in MetricsOnly.logged] == [1.0, 0.5]
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warning == f"Tracker {ROUGH} failed (RuntimeError: the server is gone); the run goes on."


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("trakio", "'trakio' is unknown; choose among wandb, trackio, or name a class"),
        ("os.path", "'os.path' may not be named in a config"),
        ("reasoning_lab.types.UserError", "is no tracker; name a class that derives from"),
    ],
)
def test_a_name_that_is_no_tracker_is_refused(name: str, words: str) -> None:
    with pytest.raises(UserError, match=r"tracker\.backends") as mistake:
        check_trackers(TrackerConfig(backends=[name]))
    assert words in str(mistake.value)


def test_a_package_that_is_missing_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(UserError, match="trackio") as mistake:
        check_trackers(TrackerConfig(backends=["trackio"]))
    assert "pip install 'reasoning-lab[trackio]', or choose tracker=wandb" in str(mistake.value)
