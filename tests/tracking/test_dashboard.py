"""The W&B workspace and report: they show logged metrics, and reach W&B or a file."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.stages.rl.options import (
    CurriculumConfig,
    EntropyConfig,
    ImportanceConfig,
    SecondVerifierConfig,
)
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.tracking import live
from reasoning_lab.tracking.dashboard import Subject, report, workspace
from reasoning_lab.tracking.panels import BY_PART, LEDGER, METRICS, is_placed
from reasoning_lab.training.context import StageContext
from tests.conftest import SMOKE, lab_here
from tests.support.stages import STAGES, PanelTracker, trained
from tests.tracking.test_wandb import online

SUBJECT = Subject("a=1", "reasoning-lab -m a=1,2", ["sft", "rl"], ["heldout"], ["seed", "variant"])


def texts(spec: Any) -> set[str]:
    """Every string anywhere in a specification."""
    if isinstance(spec, dict):
        return set().union(*map(texts, spec.values()))
    if isinstance(spec, list):
        return set().union(*map(texts, spec))
    return {spec} if isinstance(spec, str) else set()


def as_json(model: Any) -> Any:
    return json.loads(model._to_model().model_dump_json(by_alias=True, exclude_none=True))


def test_every_metric_of_a_panel_is_logged(
    context: StageContext,
    tmp_path: Path,
) -> None:
    ahead, opd = STAGES["rl_ahead"], STAGES["opd"]
    assert isinstance(ahead, RLStage)
    assert isinstance(opd, RLStage)
    stages = {
        "midtrain": STAGES["midtrain"],
        "dpo": STAGES["dpo"],
        "rl": replace(
            ahead,
            entropy=EntropyConfig(bonus=0.1, top_frac=0.5),
            importance=ImportanceConfig("mask"),
            second_verifier=SecondVerifierConfig(count=2, every_steps=1),
            curriculum=CurriculumConfig("learnability"),
        ),
        "opd": opd,
    }
    tracker = PanelTracker()
    for name, stage in stages.items():
        short = replace(stage, optimization=replace(stage.optimization, length="3 steps"))
        trained(name, replace(context, tracker=tracker), tmp_path / name, short)
    # The share of the peak needs a GPU whose peak is known.
    assert METRICS - tracker.keys == {"device/mfu"}


def test_every_metric_that_a_run_logs_has_its_place(smoke_run: Path) -> None:
    """The stages' own tests see to those that only an option logs; see `PanelTracker`."""
    lines = [
        json.loads(line)
        for file in smoke_run.glob(f"runs/recipes/*/live/*/{live.METRICS}")
        for line in file.read_text().splitlines()
    ]
    keys = set().union(*lines) - {"step"}
    assert {"distill/accepted_frac", "prefer/pairs", "eval/heldout/n", "train/loss"} <= keys
    assert [key for key in sorted(keys) if not is_placed(key)] == []


@pytest.mark.parametrize(
    ("metric", "panel"),
    [
        ("dropped/documents/too_long", "dropped, by unit and reason"),
        ("ledger/documents/in", "in and out, by unit"),
        ("rollout/reward/correctness_mean", "reward, by term"),
        ("rollout/reward_mean", ""),
        ("rollout/logic/reward_mean", "reward, by domain"),
        ("val/logic/pass@1", "accuracy on validation problems, by domain"),
        ("distill/verdict/wrong", "solutions of the teacher, by verdict"),
    ],
)
def test_a_metric_is_in_one_panel_by_a_part_of_its_name(metric: str, panel: str) -> None:
    patterns = {**BY_PART, **LEDGER}
    matching = [title for title, pattern in patterns.items() if re.search(pattern, metric)]
    assert matching == ([panel] if panel else [])


def test_a_new_metric_has_no_place() -> None:
    assert not is_placed("train/new")
    assert not is_placed("rollout/new")


def test_workspace_has_every_section() -> None:
    spec = as_json(workspace(SUBJECT, "me", "lab"))
    sections = {
        section["name"]: section["panels"]
        for section in spec["spec"]["section"]["panelBankConfig"]["sections"]
    }
    assert all(sections.values())
    assert list(sections) == [
        *("Stage ladder", "Losses", "Preferences", "RL health", "What was dropped"),
        *("Rollouts", "Sweep", "Cost"),
    ]
    assert texts(spec) >= METRICS | {"ladder/heldout/pass@1", "rollout/samples", "val/samples"}
    assert texts(spec) >= {*BY_PART.values(), *LEDGER.values()}
    assert "eval/heldout/completions" in texts(sections["Rollouts"])
    assert {"config:seed.value", "config:variant.value"} <= texts(sections["Sweep"])


def test_report_has_each_stages_own_runs() -> None:
    spec = as_json(report(SUBJECT, "", ""))
    grids = [block for block in spec["spec"]["blocks"] if block["type"] == "panel-grid"]
    filters = [runs["filters"]["filters"] for grid in grids for runs in grid["metadata"]["runSets"]]
    values = [[rule["value"] for rule in rules] for rules in filters]
    assert values == [["summary"], ["sft"], ["rl"], [], [], ["summary"]]
    assert SUBJECT.command in texts(spec)


def test_without_a_server_both_are_written_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab_here("dashboard", *SMOKE, "seed=0,1", cwd=tmp_path) == 0
    first, second, remedy = capsys.readouterr().out.splitlines()[-3:]
    assert "wandb login" in remedy
    assert Path(first).name == "workspace.json"
    assert "config:seed.value" in texts(json.loads((tmp_path / first).read_text()))
    spec = json.loads((tmp_path / second).read_text())
    assert {"pretrain", "midtrain", "sft", "dpo", "rl"} <= texts(spec)


def test_with_a_server_both_are_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    overrides = [*SMOKE, "tracker.mode=online", "tracker.entity=me"]
    with online(monkeypatch) as server:
        assert lab_here("dashboard", *overrides, cwd=tmp_path) == 0
    urls = capsys.readouterr().out.splitlines()[-2:]
    assert all("/me/reasoning-lab" in url for url in urls)
    (workspace_spec,), (report_spec,) = (
        server.variables(name) for name in ("UpsertView2", "upsertView")
    )
    assert "rollout/entropy" in workspace_spec["spec"]
    assert "rollout/entropy" in report_spec["spec"]
