"""What the live page shows of runs and of the store."""

import json
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.report.live import STORE, LiveRuns
from reasoning_lab.tracking.live import LiveTracker
from reasoning_lab.tracking.tracker import GLOBAL_STEP
from tests.support.live_runs import (
    EVALUATED,
    RL,
    RUN,
    SFT,
    evaluated_sft,
    failed_run,
    live_run,
    rollouts,
    trained_sft,
    training,
)

EARLIER = "recipes/2026-11-29_10-00-00-000000"


def node_of(live: LiveRuns, fingerprint: str, run: str = RUN) -> Any:
    shown = live.run(run)
    assert shown is not None
    (node,) = [node for node in shown["nodes"] if node["fingerprint"] == fingerprint]
    return node


def states(live: LiveRuns, run: str = RUN) -> list[str]:
    shown = live.run(run)
    assert shown is not None
    return [shown["state"], *(node["state"] for node in shown["nodes"])]


def test_an_empty_folder_has_nothing_to_show(tmp_path: Path) -> None:
    overview = LiveRuns(tmp_path / "none").overview()
    assert (overview["runs"], overview["artifacts"], overview["shown"]) == ([], 0, [])


def test_the_state_of_a_stage_is_that_of_its_run(tmp_path: Path) -> None:
    live = LiveRuns(tmp_path)
    trained_sft(tmp_path)
    with live_run(tmp_path) as run:
        run.finished(SFT, reused=True)
        run.started(RL)
        assert states(live) == ["running", "reused", "waiting", "running"]
        assert live.overview()["shown"] == [RUN]
        # A process that is killed writes nothing more.
        file = tmp_path / RUN / "live" / "run.json"
        last_words = file.read_text()
    file.write_text(last_words)
    assert states(live) == ["killed", "reused", "waiting", "killed"]
    failed_run(tmp_path, "no memory")
    assert states(live) == ["failed", "failed", "waiting", "waiting"]


def test_progress_and_the_result_of_a_stage(tmp_path: Path) -> None:
    live = LiveRuns(tmp_path)
    trained_sft(tmp_path)
    with live_run(tmp_path) as run:
        run.finished(SFT, reused=False)
        run.started(RL)
        with training(run, 10):
            pass
        sft, rl = node_of(live, SFT), node_of(live, RL)
    assert (sft["results"], sft["wall_s"], sft["progress"]) == ({"train_tokens": 1234}, 61.0, None)
    assert sft["ledger"] == [["documents", "9", "7", "2 too long"]]
    assert (rl["progress"]["unit"], rl["progress"]["total"]) == ("step", 10)


def test_all_runs_of_the_newest_sweep_are_shown(tmp_path: Path) -> None:
    names = [f"sweeps/2026-11-30_11-00-00-000000/{job}" for job in range(2)]
    for name in [EARLIER, *names]:
        with live_run(tmp_path, name, title=name):
            pass
    overview = LiveRuns(tmp_path).overview()
    assert [run["id"] for run in overview["runs"]] == [*reversed(names), EARLIER]
    assert overview["shown"] == [*reversed(names)]


def test_a_curve_grows_and_goes_on_where_a_killed_run_was(tmp_path: Path) -> None:
    live = LiveRuns(tmp_path)
    with live_run(tmp_path, EARLIER) as run:
        earlier = LiveTracker(run.stage_dir(RL))
        for step in (0, 1, 2):
            earlier.log({"train/loss": 9.0, "time/step_s": 1.0, GLOBAL_STEP: step})
    with live_run(tmp_path) as run:
        run.started(RL)
        tracker = LiveTracker(run.stage_dir(RL))
        version = node_of(live, RL)["versions"]["curves"]
        for step in (2, 3):
            tracker.log({"train/loss": 1.0, "rollout/reward_mean": 0.5, GLOBAL_STEP: step})
        assert node_of(live, RL)["versions"]["curves"] != version
        loss = live.curve(RUN, RL, "train/loss")
        assert loss is not None
        assert loss["points"] == [[0, 9.0], [1, 9.0], [2, 1.0], [3, 1.0]]
        # Half a line, as a reader may find it.
        metrics = run.stage_dir(RL) / "metrics.jsonl"
        whole = metrics.read_text()
        metrics.write_text(whole + json.dumps({"step": 4, "train/loss": 0.5})[:12])
        assert live.curve(RUN, RL, "train/loss") == loss
        metrics.write_text(whole + json.dumps({"step": 4, "train/loss": 0.5}) + "\n")
        longer = live.curve(RUN, RL, "train/loss")
        assert longer is not None
        assert longer["points"][4:] == [[4, 0.5]]
        first = live.curve(RUN, RL, "")
        assert first is not None
        assert first["metrics"] == ["rollout/reward_mean", "train/loss", "time/step_s"]
        assert (first["metric"], first["points"]) == ("rollout/reward_mean", [[2, 0.5], [3, 0.5]])


def test_a_long_curve_is_thinned_and_has_its_last_point(tmp_path: Path) -> None:
    trained_sft(tmp_path, steps=1000)
    curve = LiveRuns(tmp_path).curve(STORE, SFT, "train/loss")
    assert curve is not None
    assert len(curve["points"]) <= 401
    assert curve["points"][-1] == [999, 1 / 1000]


def test_rollouts_are_the_last_ones_and_then_the_stores(tmp_path: Path) -> None:
    live = LiveRuns(tmp_path)
    with live_run(tmp_path) as run:
        run.started(EVALUATED)
        assert node_of(live, EVALUATED)["versions"]["rollouts"] == ""
        LiveTracker(run.stage_dir(EVALUATED)).log_rollouts("eval/completions", rollouts(2))
        shown = live.rollouts(RUN, EVALUATED)
        assert shown is not None
        assert [one["table"] for one in shown["rollouts"]] == ["eval/completions"] * 2
        evaluated_sft(tmp_path)
        run.finished(EVALUATED, reused=False)
        shown = live.rollouts(RUN, EVALUATED)
        assert shown is not None
        assert [one["verdict"] for one in shown["rollouts"]] == ["wrong", "correct", "correct"] * 10
        assert shown["rollouts"][0]["table"] == "completions"


def test_the_store_is_shown_without_a_run(tmp_path: Path) -> None:
    trained_sft(tmp_path)
    evaluated_sft(tmp_path)
    live = LiveRuns(tmp_path)
    assert (live.overview()["artifacts"], live.overview()["shown"]) == (2, [STORE])
    evaluated = node_of(live, EVALUATED, STORE)
    assert (evaluated["inputs"], evaluated["results"]) == ([SFT], {"pass@1": 2 / 3, "n": 30})
    (tmp_path / "store" / "sft" / SFT / "artifact.json").write_text("{}")
    shown = live.run(STORE)
    assert shown is not None
    assert [node["fingerprint"] for node in shown["nodes"]] == [EVALUATED]


@pytest.mark.parametrize(
    "name", ["", "..", "recipes", "recipes/..", "recipes/../../other", "/etc", "store/sft", "a/b"]
)
def test_no_name_leads_out_of_the_runs(name: str, tmp_path: Path) -> None:
    with live_run(tmp_path / "runs"), live_run(tmp_path, "other"):
        live = LiveRuns(tmp_path / "runs")
        assert live.run(str(tmp_path / "runs" / RUN)) is None
        assert live.run(name) is None
        assert live.curve(name, SFT, "") is None
    assert live.curve(RUN, "../" + SFT, "") is None
    assert live.rollouts(RUN, "f" * 16) is None
