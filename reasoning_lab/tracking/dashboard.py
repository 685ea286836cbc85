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
from reasoning_lab.tracking.tracker import GLOBAL_STEP
from reasoning_lab.tracking.wandb import wandb_mode

# Panel title to the metrics that the panel draws.
_LOSSES: Mapping[str, Sequence[str]] = {
    "loss": ("train/loss",),
    "validation loss": ("val/loss",),
    "learning rate": ("train/learning_rate",),
    "gradient norm": ("train/gradient_norm",),
}
_PREFERENCES: Mapping[str, Sequence[str]] = {
    "reward margin": ("train/margin",),
    "preference accuracy": ("train/accuracy",),
    "logprobs": ("train/chosen_logprobs", "train/rejected_logprobs"),
    "length bias": ("train/length_bias",),
}
_RL_HEALTH: Mapping[str, Sequence[str]] = {
    "reward": ("rollout/reward_mean",),
    "accuracy on validation problems": ("val/pass@1",),
    "verdicts": tuple(
        f"rollout/{verdict}_frac" for verdict in ("correct", "wrong", "unparseable", "timeout")
    ),
    "entropy at temperature 1, nats a token": ("rollout/entropy",),
    "divergence from the reference": ("train/kl_to_reference",),
    "clipped": ("train/clip_low_frac", "train/clip_high_frac"),
    "engine against trainer": ("train/mismatch_mean", "train/mismatch_max"),
    "tokens of a completion": ("rollout/completion_tokens_mean", "rollout/completion_tokens_max"),
    "cut off": ("rollout/truncated_frac",),
    "prompts that train": ("rollout/groups_trained", "rollout/groups_without_signal"),
    "dropped by a filter": ("rollout/groups_too_easy", "rollout/groups_uneven"),
    "groups that cannot train": ("rollout/groups_unjudged", "rollout/groups_cut_off"),
    "rollouts left out": ("rollout/unjudged", "rollout/balanced_away", "rollout/cut_off"),
    "temperature": ("rollout/temperature",),
}
_COST: Mapping[str, Sequence[str]] = {
    "seconds a step": ("time/step_s",),
    "sampling and training": ("time/generate_s", "time/train_s"),
    "tokens a second": ("time/generate_tokens_per_s", "time/train_tokens_per_s"),
    "share of the device's peak": ("device/mfu",),
    "most memory, bytes": ("device/peak_memory_bytes",),
}
METRICS = frozenset(
    metric
    for group in (_LOSSES, _PREFERENCES, _RL_HEALTH)
    for metrics in group.values()
    for metric in metrics
)


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
        "Losses": _lines(_LOSSES),
        "Preferences": _lines(_PREFERENCES),
        "RL health": _lines(_RL_HEALTH),
        "Rollouts": _tables(subject),
        "Sweep": _sweep(subject),
        "Cost": _lines(_COST),
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
        panels = _lines({**_LOSSES, **_PREFERENCES, **_RL_HEALTH, **_COST})
        blocks += grid(stage, panels, stage)
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
