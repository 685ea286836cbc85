"""Make every node of a small recipe that can be made, and what follows: report, export."""

import importlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from reasoning_lab.commands.compose import Recipe
from reasoning_lab.commands.export import export
from reasoning_lab.commands.plan import PlannedNode, planned
from reasoning_lab.commands.rehearsal_steps import Steps
from reasoning_lab.commands.root_config import RootConfig
from reasoning_lab.commands.run import RecipeRun, opened, write_report
from reasoning_lab.evaluate.stage import EvaluateStage
from reasoning_lab.graph.recipe import Node
from reasoning_lab.graph.record import Record
from reasoning_lab.graph.run import run as run_graph
from reasoning_lab.models.policy import load_policy
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.system.peak_memory import PeakMemory, peak_memory
from reasoning_lab.tracking.wandb import wandb_folder
from reasoning_lab.types import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a node was planned to take, and what it took.

    Attributes:
        name: The node's.
        planned: Of the small node.
        wall_s: Seconds.
        disk_bytes: Of its artifact.
        peak_bytes: The most memory of a process; None = this system does not tell.
    """

    name: str
    planned: PlannedNode
    wall_s: float
    disk_bytes: int
    peak_bytes: float | None


def skip_all(recipe: Recipe, steps: Steps, waits_for: Sequence[str]) -> None:
    """Note that no node is reached."""
    for node in recipe.nodes:
        steps.skip(node.name, waits_for)


@dataclass(frozen=True, slots=True)
class _NewNodes:
    """Passes on what is made; what is found again is of no interest."""

    run: RecipeRun

    def started(self, node: Node) -> None:
        self.run.started(node)

    def finished(self, node: Node, record: Record, reused: bool) -> None:
        if not reused:
            self.run.finished(node, record, reused)


def run_small(recipe: Recipe, steps: Steps, folder: Path) -> list[Measured]:
    """Make every node that can be made, then the report and the export below `folder`."""
    out_dir, measured = folder / "report", list[Measured]()
    plans = {node.stage: node for node in planned([recipe])}
    records: dict[str, Record] = {}
    with steps.step("tracker", "tracker.mode"):
        _require_tracker(recipe.root)
    with ExitStack() as stack:
        with steps.step("small data", "data"):
            run = stack.enter_context(opened(recipe, out_dir))
        if steps.has_failed(["small data"]):
            skip_all(recipe, steps, ["small data"])
            return measured
        for node in recipe.nodes:
            makers = [maker.name for maker in node.inputs.values()]
            if missing := [name for name in makers if steps.has_failed([name])]:
                steps.skip(node.name, missing)
                continue
            key = f"stages.{node.name}"
            if isinstance(node.stage, EvaluateStage):
                key = f"benchmarks.{node.stage.benchmark_name}"
            with steps.step(node.name, key):
                with peak_memory() as peak:
                    lineage = run_graph(_lineage(node), run.store, run.execute, _NewNodes(run))
                records |= lineage
                record = lineage[node.fingerprint]
                measured.append(_measured(node, plans[node.name], record, peak))
        names = [node.name for node in recipe.nodes]
        if steps.has_failed(names):
            steps.skip("report", [name for name in names if steps.has_failed([name])])
        else:
            with steps.step("report", "benchmarks"):
                write_report(recipe, records, run, out_dir)
    _check_tracked(recipe, steps, records)
    policies = [n for n in recipe.nodes if n.produces is Policy and n.fingerprint in records]
    if policies:
        with steps.step("export", f"stages.{policies[-1].name}"):
            _export(records[policies[-1].fingerprint], folder)
    return measured


def _lineage(node: Node) -> list[Node]:
    """What the node is made from, and the node itself last."""
    nodes: dict[str, Node] = {}
    for maker in node.inputs.values():
        nodes |= {one.fingerprint: one for one in _lineage(maker)}
    return [*nodes.values(), node]


def _measured(node: Node, plan: PlannedNode, record: Record, peak: PeakMemory) -> Measured:
    return Measured(
        name=node.name,
        planned=plan,
        wall_s=record.metrics["wall_s"],
        disk_bytes=sum(f.stat().st_size for f in record.path.rglob("*") if f.is_file()),
        peak_bytes=peak.of_process_bytes or None,
    )


def _uses_wandb(root: RootConfig) -> bool:
    return "wandb" in root.tracker.backends and root.tracker.mode != "disabled"


def _require_tracker(root: RootConfig) -> None:
    if not _uses_wandb(root):
        return
    try:
        importlib.import_module("wandb")
    except Exception as error:
        raise UserError(
            f"tracker.mode={root.tracker.mode}: the package 'wandb' cannot be imported "
            f"({type(error).__name__}: {error}); install it again, or set tracker.mode=disabled"
        ) from error


def _check_tracked(recipe: Recipe, steps: Steps, records: Mapping[str, Record]) -> None:
    """Whether W&B kept a run of every node; its failures cost a run only a warning."""
    if not _uses_wandb(recipe.root) or steps.has_failed(["tracker"]):
        return
    folder = wandb_folder(Path(recipe.root.paths.runs)) / "wandb"
    with steps.step("tracked runs", "tracker.mode"):
        tracked = " ".join(path.name for path in folder.glob("offline-run-*"))
        lost = [
            f"{r.stage}-{r.fingerprint}" for r in records.values() if r.fingerprint not in tracked
        ]
        if lost:
            raise UserError(
                f"tracker.mode=offline: W&B kept nothing of {', '.join(lost)} in {folder}; the log "
                "above says why"
            )


def _export(record: Record, folder: Path) -> None:
    """Export the policy, and load what was exported as anyone would.

    Raises:
        UserError: It cannot be loaded.
    """
    export(str(record.path), record.path.parents[2], folder / "export")
    load_policy(folder / "export", "float32", key="export")
