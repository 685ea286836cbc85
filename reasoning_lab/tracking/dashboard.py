"""The W&B workspace and report of a recipe or a sweep, as code.

Panels show the metrics that stages log. If W&B cannot be reached, both are written as JSON, in the
form in which W&B's own library sends them. The same command publishes them later.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wandb
from wandb_workspaces.reports.v2 import interface as wr
from wandb_workspaces.reports.v2.interface import PanelTypes
from wandb_workspaces.workspaces import interface as ws

from reasoning_lab.config.tracker import TrackerConfig
from reasoning_lab.system.files import write_atomically
from reasoning_lab.tracking.panels import BY_PART, COST, LEDGER, LOSSES, PREFERENCES, RL_HEALTH
from reasoning_lab.tracking.tracker import GLOBAL_STEP
from reasoning_lab.tracking.wandb import wandb_mode

# W&B's own counter of what a run logged: a stage that trains nothing has no other axis.
_LOGGED = "Step"


@dataclass(frozen=True, slots=True)
class Subject:
    """The runs that a dashboard shows.

    Attributes:
        title: Title of the workspace and the report; W&B allows 128 characters.
        command: The command line of the runs.
        stages: Job types of the stages that train, in order.
        benchmarks: Benchmarks on which policies are evaluated.
        swept: Config keys whose values differ between runs.
    """

    title: str
    command: str
    stages: Sequence[str]
    benchmarks: Sequence[str]
    swept: Sequence[str]


def workspace(subject: Subject, entity: str, project: str) -> ws.Workspace:
    """The workspace, with sections from the results to their cost."""
    panels = {
        "Stage ladder": _ladder(subject),
        "Losses": _lines(LOSSES),
        "Preferences": _lines(PREFERENCES),
        "RL health": [*_lines(RL_HEALTH), *_matching(BY_PART, GLOBAL_STEP)],
        "What was dropped": _matching(LEDGER, _LOGGED),
        "Rollouts": _tables(subject),
        "Sweep": _sweep(subject),
        "Cost": _lines(COST),
    }
    sections = [
        ws.Section(name=name, panels=section_panels, is_open=number < 2)
        for number, (name, section_panels) in enumerate(panels.items())
    ]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=re.sub(r"[^\w.,@+/ -]+", " ", subject.title),  # W&B reads = as an emoji.
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis=GLOBAL_STEP),
    )


def report(subject: Subject, entity: str, project: str) -> wr.Report:
    """The W&B report: the ladder, each stage's curves from its own runs, and the sweep."""

    def grid(name: str, panels: Sequence[PanelTypes], job_type: str = "") -> list[Any]:
        run_filter = f"Metric('JobType') == '{job_type}'" if job_type else ""
        runs = wr.Runset(entity=entity, project=project, name=name, filters=run_filter)
        return [wr.H2(name), wr.PanelGrid(runsets=[runs], panels=list(panels))]

    blocks: list[Any] = [
        wr.H1(subject.title),
        wr.P("Written by reasoning-lab dashboard from the runs of:"),
        wr.CodeBlock(subject.command, "markdown"),
        *grid("Stage ladder", _ladder(subject), "summary"),
    ]
    for stage in subject.stages:
        panels = _lines({**LOSSES, **PREFERENCES, **RL_HEALTH, **COST})
        blocks += grid(stage, [*panels, *_matching(BY_PART, GLOBAL_STEP)], stage)
    blocks += grid("What was dropped", _matching(LEDGER, _LOGGED))
    blocks += grid("Rollouts", _tables(subject))
    if subject.swept:
        blocks += grid("Sweep", _sweep(subject), "summary")
    return wr.Report(project=project, entity=entity, title=subject.title, blocks=blocks)


def publish_dashboard(subject: Subject, tracker: TrackerConfig, out_dir: Path) -> list[str]:
    """Save workspace and report at W&B, or as JSON in `out_dir` if W&B cannot be used.

    Returns:
        URLs, or file paths and a sentence that says how to publish them.
    """
    if wandb_mode(tracker) != "online":
        return _save_as_json(subject, tracker, out_dir, "was not contacted")
    try:
        entity = tracker.entity or wandb.Api().default_entity or ""
        wandb_workspace = workspace(subject, entity, tracker.project)
        wandb_workspace.save()
        wandb_report = report(subject, entity, tracker.project)
        wandb_report.save()
    except Exception as error:  # The library's errors have no common class.
        reason = " ".join(str(error).split())[:200]
        return _save_as_json(
            subject, tracker, out_dir, f"failed ({type(error).__name__}: {reason})"
        )
    return [wandb_workspace.url, wandb_report.url]


def _save_as_json(
    subject: Subject, tracker: TrackerConfig, out_dir: Path, reason: str
) -> list[str]:
    """Write both specifications; the report names no entity, so any user can send it."""
    out_dir.mkdir(parents=True, exist_ok=True)
    wandb_workspace = workspace(subject, tracker.entity or "", tracker.project)
    return [
        str(_write_spec(out_dir / "workspace.json", wandb_workspace._to_model())),
        str(_write_spec(out_dir / "report.json", report(subject, "", "")._to_model())),
        f"W&B {reason}, so these are specifications; with a key (wandb login) the same command "
        "publishes them. To look at offline runs: wandb leet runs/wandb/wandb",
    ]


def _write_spec(path: Path, spec: Any) -> Path:
    text = json.dumps(json.loads(spec.model_dump_json(by_alias=True, exclude_none=True)), indent=2)
    return write_atomically(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def _lines(groups: Mapping[str, Sequence[str]]) -> list[PanelTypes]:
    return [
        wr.LinePlot(title=title, x=GLOBAL_STEP, y=list(metrics))
        for title, metrics in groups.items()
    ]


def _matching(patterns: Mapping[str, str], x: str) -> list[PanelTypes]:
    """Panels of every metric that matches, whatever it is called in a run."""
    return [
        wr.LinePlot(title=title, x=x, metric_regex=pattern) for title, pattern in patterns.items()
    ]


def _ladder(subject: Subject) -> list[PanelTypes]:
    panels: list[PanelTypes] = []
    for name in subject.benchmarks:
        key = f"ladder/{name}/pass@1"
        panels.append(wr.LinePlot(title=f"{name}, stage by stage", x="ladder/stage", y=[key]))
        panels.append(wr.BarPlot(title=f"{name}, last policy", metrics=[f"eval/{name}/pass@1"]))
    return panels


def _tables(subject: Subject) -> list[PanelTypes]:
    keys = [
        "rollout/samples",
        "val/samples",
        *(f"eval/{name}/completions" for name in subject.benchmarks),
    ]
    return [wr.WeavePanelSummaryTable(table_name=key) for key in keys]


def _sweep(subject: Subject) -> list[PanelTypes]:
    """Each swept key against the last policy's pass@1, and how much each key matters."""
    panels: list[PanelTypes] = []
    for name in subject.benchmarks:
        metric = f"eval/{name}/pass@1"
        keys = [wr.ParallelCoordinatesPlotColumn(wr.Config(key)) for key in subject.swept]
        columns = [*keys, wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(metric))]
        panels.append(wr.ParallelCoordinatesPlot(columns=columns, title=name))
        panels.append(wr.ParameterImportancePlot(with_respect_to=metric))
    return panels
