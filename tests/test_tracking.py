"""W&B never stands in the way: no key, no server, and what an offline run leaves."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.schema import TrackerConfig
from reasoning_lab.tracking import WandbTracker, is_offline
from reasoning_lab.types import Completion, Problem, Rollout, Verdict

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, no mode, and a home without a netrc."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_without_a_key_runs_stay_here(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert is_offline(TrackerConfig())
    assert "no API key" in caplog.text
    assert "wandb sync" in caplog.text


def test_unreachable_server_costs_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", NOWHERE)
    assert is_offline(TrackerConfig(connect_timeout_s=1.0))
    (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "127.0.0.1 does not answer" in warning.getMessage()


def test_reachable_server_with_a_key_is_online(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert not is_offline(TrackerConfig())


def test_key_in_netrc_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".netrc").write_text("machine 127.0.0.1\n  login user\n  password " + "k" * 40 + "\n")
    (home / ".netrc").chmod(0o600)
    monkeypatch.setenv("WANDB_BASE_URL", NOWHERE)
    with pytest.MonkeyPatch.context():
        assert is_offline(TrackerConfig(connect_timeout_s=1.0))


@pytest.mark.parametrize(("mode", "offline"), [("offline", True), ("online", False)])
def test_mode_decides_when_it_is_given(
    mode: str, offline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_offline(TrackerConfig(mode=mode)) is offline
    monkeypatch.setenv("WANDB_MODE", mode)
    assert is_offline(TrackerConfig()) is offline


def rollout(verdict: Verdict) -> Rollout:
    problem = Problem("1 + 1?", "2", "math", "sums")
    return Rollout(problem, Completion([1, 2], "\\boxed{2}"), "2", verdict, "author")


def test_offline_run_is_written(tmp_path: Path) -> None:
    tracker = WandbTracker(
        TrackerConfig(tags=["mine"]),
        offline=True,
        folder=tmp_path / "runs",
        run_id="abc123",
        name="sft",
        group="recipe-7",
        job_type="sft",
        settings={"seed": 0, "optimization": {"steps": 3}},
    )
    run: Any = tracker.lightning_logger.experiment
    assert (run.group, run.job_type, run.id) == ("recipe-7", "sft", "abc123")
    assert set(run.tags) == {"mine", "sft"}
    assert run.config["optimization"]["steps"] == 3
    tracker.log({"train/loss": 0.5})
    tracker.rollouts("samples", [rollout(Verdict.CORRECT), rollout(Verdict.WRONG)])
    tracker.finish()
    (folder,) = (tmp_path / "runs" / "wandb").glob("offline-run-*abc123")
    assert (folder / "run-abc123.wandb").stat().st_size > 0
    (table,) = folder.rglob("samples*.table.json")
    content = json.loads(table.read_text())
    assert "verdict" in content["columns"]
    at = content["columns"].index("verdict")
    assert [row[at] for row in content["data"]] == ["correct", "wrong"]
