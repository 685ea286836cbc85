"""W&B never stops a run: without a key, without a server, and what an offline run stores."""

import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import wandb

from reasoning_lab.config.tracker import TrackerConfig
from reasoning_lab.graph.record import Metadata, Record
from reasoning_lab.graph.store import Store
from reasoning_lab.tracking.history import TrackerLogger
from reasoning_lab.tracking.wandb import WandbTracker, wandb_folder, wandb_mode
from reasoning_lab.types import Verdict
from tests.support.tracking import rollout, tracked_run
from tests.support.wandb_server import WandbServer

UNUSED_ADDRESS = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, no mode, and a home without a netrc."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_without_a_key_runs_are_stored_offline(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert wandb_mode(TrackerConfig()) == "offline"
    assert "no API key" in caplog.text
    assert "wandb sync" in caplog.text


def test_unreachable_server_costs_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", UNUSED_ADDRESS)
    assert wandb_mode(TrackerConfig(connect_timeout_s=1.0)) == "offline"
    (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "127.0.0.1 does not answer" in warning.getMessage()


def test_reachable_server_with_a_key_is_online(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert wandb_mode(TrackerConfig()) == "online"


def test_key_in_netrc_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".netrc").write_text("machine 127.0.0.1\n  login user\n  password " + "k" * 40 + "\n")
    (home / ".netrc").chmod(0o600)
    monkeypatch.setenv("WANDB_BASE_URL", UNUSED_ADDRESS)
    with pytest.MonkeyPatch.context():
        assert wandb_mode(TrackerConfig(connect_timeout_s=1.0)) == "offline"


@pytest.mark.parametrize("mode", ["offline", "online", "disabled"])
def test_tracker_mode_overrides_the_environment(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wandb_mode(TrackerConfig(mode=mode)) == mode
    monkeypatch.setenv("WANDB_MODE", mode)
    assert wandb_mode(TrackerConfig()) == mode
    other = "online" if mode != "online" else "disabled"
    assert wandb_mode(TrackerConfig(mode=other)) == other


def test_environment_mode_accepts_older_spellings_and_names_an_unknown_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "dryrun")
    assert wandb_mode(TrackerConfig()) == "offline"
    monkeypatch.setenv("WANDB_MODE", "ofline")
    assert wandb_mode(TrackerConfig(mode="online")) == "online"
    assert "WANDB_MODE=ofline is unknown" in caplog.text


def test_folder_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_DIR", raising=False)
    assert wandb_folder(Path("runs")) == Path("runs/wandb")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    assert wandb_folder(Path("runs")) == tmp_path


def tracker_in(folder: Path, mode: str = "offline", system_metrics: bool = False) -> WandbTracker:
    config = TrackerConfig(tags=["mine"], system_metrics=system_metrics)
    return WandbTracker(tracked_run(folder, {"wandb": mode}, config), mode)


def test_offline_run_is_written(tmp_path: Path) -> None:
    tracker = tracker_in(tmp_path / "runs")
    TrackerLogger(tracker).log_metrics({"train/loss": 0.5}, step=7)
    tracker.log_rollouts("samples", [rollout(Verdict.CORRECT), rollout(Verdict.WRONG)])
    tracker.finish()
    run = records(tmp_path / "runs", "run")[0]
    assert (run["run_group"], run["job_type"], run["run_id"]) == ("recipe-7", "sft", "abc123")
    assert set(run["tags"]) == {"mine", "sft", "stages.rl.policy_loss.clip_low=0.1", "x" * 64}
    assert run["config"]["update"]["optimization"]["steps"] == 3
    first = records(tmp_path / "runs", "history")[0]["item"]
    assert (first["train/loss"], first["trainer/global_step"]) == (0.5, 7)
    (table,) = (tmp_path / "runs").rglob("samples*.table.json")
    content = json.loads(table.read_text())
    assert "verdict" in content["columns"]
    column = content["columns"].index("verdict")
    assert [row[column] for row in content["data"]] == ["correct", "wrong"]


@pytest.mark.parametrize("system_metrics", [False, True])
def test_system_metrics_are_measured_where_they_are_asked_for(
    system_metrics: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_X_STATS_SAMPLING_INTERVAL", "0.1")
    wandb.teardown()  # Its process reads the environment once.
    tracker = tracker_in(tmp_path, system_metrics=system_metrics)
    tracker.log({"train/loss": 0.5})
    time.sleep(0.5)
    tracker.finish()
    wandb.teardown()
    stats = {key for entry in records(tmp_path, "stats") for key in entry["item"]}
    assert ("proc.memory.rssMB" in stats) is system_metrics
    assert bool(stats) is system_metrics


def records(folder: Path, kind: str) -> list[Any]:
    """An offline run's records of one kind, as W&B's own inspector reads them."""
    (file,) = folder.rglob("run-abc123.wandb")
    inspect = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    lines = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.splitlines()
    return [entry[kind] for entry in map(json.loads, lines) if entry["type"] == kind]


def stored_artifact(folder: Path, stage: str) -> Record:
    def build(out_dir: Path, work_dir: Path) -> Metadata:
        (out_dir / "model.safetensors").write_bytes(b"weights")
        return Metadata(kind="policy", identity={}, inputs={"corpus": "f" * 16}, seed=3)

    return Store(folder / "store").obtain(stage, "0" * 16, build)[0]


def test_an_artifact_is_a_reference_with_its_inputs(tmp_path: Path) -> None:
    artifact = stored_artifact(tmp_path, "sft")
    tracker = tracker_in(tmp_path / "runs")
    tracker.log_artifact(artifact, [artifact])
    tracker.finish()
    (record,) = records(tmp_path / "runs", "artifact")
    assert (record["name"], record["type"]) == (f"sft-{'0' * 16}", "policy")
    assert "f" * 16 in json.dumps(record["metadata"])
    references = {entry["path"]: entry["ref"] for entry in record["manifest"]["contents"]}
    assert references == {
        name: (artifact.path / name).as_uri() for name in ("artifact.json", "model.safetensors")
    }


@contextmanager
def online(patch: pytest.MonkeyPatch, lacks: str = "") -> Iterator[WandbServer]:
    """A stand-in server for this process; W&B reads the environment once, at its first use."""
    wandb.teardown()
    with WandbServer(lacks) as server:
        patch.setenv("WANDB_API_KEY", "k" * 40)
        patch.setenv("WANDB_BASE_URL", server.url)
        yield server
        wandb.teardown()


def test_online_run_sends_the_artifact_and_links_its_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with online(monkeypatch) as server:
        assert wandb_mode(TrackerConfig()) == "online"
        tracker = tracker_in(tmp_path / "runs", mode="online")
        tracker.log({"train/loss": 0.5})
        tracker.log_artifact(
            stored_artifact(tmp_path, "sft"), [stored_artifact(tmp_path, "midtrain")]
        )
        tracker.finish()
    (lookup,) = server.variables("ArtifactMembershipByName")
    assert lookup["name"] == f"midtrain-{'0' * 16}:latest"
    assert server.variables("UseArtifact")[0]["runName"] == "abc123"
    assert server.variables("CreateArtifact")[0]["input"]["artifactCollectionName"] == (
        f"sft-{'0' * 16}"
    )
    manifest = json.loads(server.uploads["wandb_manifest.json"])
    assert set(manifest["contents"]) == {"artifact.json", "model.safetensors"}
    assert server.variables("CommitArtifact")
    assert "W&B" not in caplog.text


def test_input_that_wandb_lacks_is_not_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with online(monkeypatch, lacks="ArtifactMembershipByName") as server:
        tracker = tracker_in(tmp_path / "runs", mode="online")
        tracker.log_artifact(
            stored_artifact(tmp_path, "sft"), [stored_artifact(tmp_path, "midtrain")]
        )
        tracker.finish()
    assert f"W&B has no midtrain-{'0' * 16} to link" in caplog.text
    assert server.variables("CommitArtifact")


def test_killed_wandb_process_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A reply without an artifact kills W&B's process; a training only logs a warning."""
    with online(monkeypatch, lacks="CreateArtifact"):
        tracker = tracker_in(tmp_path / "runs", mode="online")
        tracker.log_artifact(stored_artifact(tmp_path, "sft"), [])
        deadline = time.monotonic() + 30
        while "goes on without it" not in caplog.text and time.monotonic() < deadline:
            tracker.log({"train/loss": 0.5})
            time.sleep(0.1)
        tracker.log_rollouts("samples", [rollout(Verdict.CORRECT)])
        tracker.finish()
    assert caplog.text.count("goes on without it") == 1
    later = tracker_in(tmp_path / "later")
    later.log({"train/loss": 0.25})
    later.finish()
    assert records(tmp_path / "later", "history")[0]["item"]["train/loss"] == 0.25


def test_summary_has_the_complete_ladder(tmp_path: Path) -> None:
    figure = tmp_path / "ladder.png"
    PIL.Image.new("RGB", (4, 4)).save(figure)
    rows = [
        {"stage": stage, "benchmark": "held", "pass@1": value, "ci95": [value - 0.1, value + 0.1]}
        for stage, value in (("sft", 0.4), ("dpo", 0.5), ("rl", 0.6))
    ]
    tracker = tracker_in(tmp_path / "runs")
    tracker.log_ladder(rows, figure)
    tracker.finish()
    items = [entry["item"] for entry in records(tmp_path / "runs", "history")]
    points = [(i["ladder/stage"], i["ladder/held/pass@1"]) for i in items if "ladder/stage" in i]
    assert points == [(0, 0.4), (1, 0.5), (2, 0.6)]
    (table,) = (tmp_path / "runs").rglob("report_*.table.json")
    assert [row[0] for row in json.loads(table.read_text())["data"]] == ["sft", "dpo", "rl"]
