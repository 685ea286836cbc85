"""Run a recipe: obtain each node from the store or make it, then tell what came out."""

import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from rich.console import Console

from reasoning_lab.commands.compose import Recipe
from reasoning_lab.commands.estimates import Costs, position_in_run
from reasoning_lab.commands.preflight import Preflight
from reasoning_lab.commands.publish import Publisher, check_publish
from reasoning_lab.commands.report import Report, add_evidence, publish, results_of
from reasoning_lab.commands.root_config import RootConfig
from reasoning_lab.config.identity import as_plain
from reasoning_lab.graph.artifact import Artifact
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.recipe import Node, variant_label
from reasoning_lab.graph.record import Record
from reasoning_lab.graph.run import Outcome, Work
from reasoning_lab.graph.run import run as run_graph
from reasoning_lab.graph.store import Store
from reasoning_lab.launch.job import launched, quiet_libraries, run_job
from reasoning_lab.launch.ray import check_ray
from reasoning_lab.launch.slurm import check_limits
from reasoning_lab.launch.slurm_commands import check_slurm
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.models.same_tokenizer import require_same_tokenizer
from reasoning_lab.report.evidence import Evidence
from reasoning_lab.system import malloc
from reasoning_lab.system.commit import code_commit
from reasoning_lab.tracking.live import LiveRun
from reasoning_lab.tracking.progress import LOG_FILE, Lines, RunPosition
from reasoning_lab.tracking.tracker import TrackedRun, Tracker
from reasoning_lab.tracking.trackers import modes_of, tracker_of
from reasoning_lab.training.continuing import continued_run, missing_state
from reasoning_lab.training.job import Job, states_folder
from reasoning_lab.training.stage import LabStage, TrainingStage
from reasoning_lab.training.strategies import check_drives
from reasoning_lab.types import UserError
from reasoning_lab.verify import Verifier, build_verifier

log = logging.getLogger(__name__)

# What decides problems, weights and verdicts.
_PACKAGES = (
    "reasoning-lab",
    "torch",
    "transformers",
    "pytorch-lightning",
    "reasoning-gym",
    "math-verify",
)


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a finished run leaves.

    Attributes:
        records: What is written down of each artifact, by the node's name.
        report: The tables, and the paths of the report's files; None without a benchmark.
    """

    records: Mapping[str, Record]
    report: Report | None

    @property
    def pass_at_1(self) -> float | None:
        """pass@1 of the last policy, the mean over benchmarks; None without a benchmark."""
        rows = self.report.rows if self.report else []
        return fmean(row.pass_at_1 for row in rows if row.stage == rows[-1].stage) if rows else None


def run(recipe: Recipe, out_dir: Path) -> RunResult:
    """Make what the store lacks, in order, and write the report into `out_dir`.

    Args:
        recipe: The composed run.
        out_dir: This run's own folder, below `paths.runs`.

    Raises:
        UserError: Something that the run needs is missing or impossible.
        Interrupted: Ctrl-C or SIGTERM stopped it; what was trained so far is saved.
    """
    with opened(recipe, out_dir) as recipe_run:
        records = run_graph(recipe.nodes, recipe_run.store, recipe_run.execute, recipe_run)
        recipe_run.publisher.update_cards()
    return RunResult(
        {node.name: records[node.fingerprint] for node in recipe.nodes},
        write_report(recipe, records, recipe_run, out_dir),
    )


@contextmanager
def opened(recipe: Recipe, out_dir: Path) -> Iterator["RecipeRun"]:
    """What executes the recipe's nodes, once everything that the run needs is there.

    Raises:
        UserError: As `run` does.
    """
    root = recipe.root
    if root.hardware.slurm is not None:
        check_limits(root.hardware.slurm)
        check_slurm()
    elif root.hardware.ray is not None:
        check_ray(root.hardware.ray)
    else:
        check_drives(root.hardware)
    policies = [node.name for node in recipe.nodes if node.produces is Policy]
    check_publish(root.publish, policies)
    quiet_libraries()
    torch.set_num_threads(root.hardware.threads or torch.get_num_threads())
    malloc.return_freed_blocks()
    store = Store(Path(root.paths.runs) / "store")
    if notice := store.older_layout_notice():
        log.warning(notice)
    with build_verifier(root.hardware) as verifier:
        Preflight(verifier).require([recipe])
        _require_kept_states(recipe, store)
        _require_same_tokenizers(recipe, store)
        recipe_run = RecipeRun(recipe, out_dir, verifier, store)
        with store.running(recipe.needs), recipe_run.live, closing(recipe_run):
            yield recipe_run


def write_report(
    recipe: Recipe, records: Mapping[str, Record], recipe_run: "RecipeRun", out_dir: Path
) -> Report | None:
    """Write, print and track the report of a recipe whose nodes are made; None = no benchmark.

    `records` are by fingerprint.
    """
    console = Console()
    rows, results = results_of(recipe, records)
    if not rows:
        console.print("No benchmark was asked for, so there is nothing to report.")
        return None
    evidence = Evidence()
    add_evidence(evidence, recipe, records)
    report = publish(rows, results, evidence, out_dir, console)
    recipe_run.summarize([row.as_json() for row in rows], report.paths["ladder"])
    return report


def _require_kept_states(recipe: Recipe, store: Store) -> None:
    """Refuse a stage that goes on from a run of which no state is kept."""
    for node in recipe.nodes:
        continued = continued_run(node.identity)
        if continued is None or store.record(node.stage.name, node.fingerprint) is not None:
            continue
        folder = states_folder(store.work) / continued
        if not folder.is_dir() and isinstance(node.stage, TrainingStage):
            raise UserError(missing_state(node.name, node.stage.optimization, folder))


def _require_same_tokenizers(recipe: Recipe, store: Store) -> None:
    """Refuse checkpoints that cannot grade the student's tokens, before earlier stages train.

    A tokenizer that the recipe itself makes is compared when the stage that names a grader starts.
    """
    model = recipe.root.model
    for node in recipe.nodes:
        assert isinstance(node.stage, LabStage)
        if model.path is None or store.record(node.stage.name, node.fingerprint) is not None:
            continue
        student = Policy(Path(model.path), revision=model.revision)
        for knob, grader in node.stage.frozen_policies().items():
            if grader.path is not None:
                checkpoint = Policy(Path(grader.path), revision=grader.revision)
                named = grader.named(f"stages.{node.name}.{knob}")
                require_same_tokenizer(student, checkpoint, model.system_prompt, named)


def print_ledger(lines: Lines, stage: str, ledger: Ledger, reused: bool) -> None:
    """Say what a stage dropped; of a reused artifact only what is worth a warning."""
    for line in () if reused else ledger.lines():
        lines.print(f"  {line}")
    for warning in ledger.warnings():
        log.warning("%s: %s.", stage, warning)


def _counts(record: Record) -> list[str]:
    """What a stage says at its end; what it dropped has lines of its own."""
    metrics = record.metrics
    if "pass@1" in metrics:
        dropped = metrics.get("unreadable_golds", 0)
        without = f" ({dropped} with unreadable golds dropped)" if dropped else ""
        return [f"pass@1 {metrics['pass@1']:.1%} of {metrics['n']} problems{without}"]
    tokens = metrics.get("train_tokens")
    trained = [] if tokens is None else [f"{tokens:,} tokens trained"]
    return [*trained, *Ledger.of(record.ledger).complete()]


class RecipeRun:
    """Executes the nodes of one recipe, tracks them and prints how far they are.

    Args:
        recipe: The composed run.
        out_dir: This run's own folder; its place below the runs' folder names the W&B group.
        verifier: Shared by all stages.
        store: Where artifacts are; what they took says how long the run takes.

    Attributes:
        store: Likewise.
        live: What is written down of the run while it goes.
        publisher: Pushes the policies to the hub, if that is asked for.
    """

    def __init__(
        self,
        recipe: Recipe,
        out_dir: Path,
        verifier: Verifier,
        store: Store,
    ) -> None:
        self._recipe = recipe
        self._root = recipe.root
        place = "/".join(out_dir.parts[-2:]) if out_dir.parent.parent.name == "sweeps" else ""
        # The search path of Hydra's flags names a folder of this machine.
        self._words = [word for word in recipe.overrides if not word.startswith("hydra.")]
        self._group = f"{place or out_dir.name}-{recipe.variant}-seed{recipe.root.seed}"
        self._verifier = verifier
        self.store = store
        self._costs = Costs(store.artifacts())
        self._log_file = out_dir.absolute() / LOG_FILE
        out_dir.mkdir(parents=True, exist_ok=True)
        self._lines = Lines(self._log_file)
        self.live = LiveRun(out_dir, self._about(), [_live_node(node) for node in recipe.nodes])
        self.publisher = Publisher(self._root.publish)
        self._tracker_modes = modes_of(self._root.tracker)
        self._started_s = time.monotonic()
        self._tracker: Tracker = Tracker()
        self._inputs: Mapping[str, Record] = {}

    def execute(self, work: Work) -> Outcome:
        """Make one node, in this process or in processes of its own."""
        node, root = work.node, self._root
        assert isinstance(node.stage, LabStage)
        tracking = self._tracking(node)
        position = self._position(node)
        self._inputs = work.inputs
        job = Job(
            name=node.name,
            stage=node.stage,
            seed=root.seed,
            out_dir=work.out_dir,
            work_dir=work.work_dir,
            inputs=_artifacts(node.stage, work.inputs, root),
            model=root.model,
            data=root.data,
            hardware=root.hardware,
            benchmarks=root.benchmarks,
            tracking=tracking,
            fingerprint=node.fingerprint,
            continued_run=continued_run(node.identity),
            position=position,
        )
        # The processes of a launched stage write its metrics down themselves.
        live_dir = None if job.needs_launch else position.live_dir
        self._tracker = tracker_of(tracking, live_dir)
        if job.needs_launch:
            outcome = launched(job)
        else:
            sources = self._recipe.source, self._recipe.benchmark_sources
            outcome = run_job(job, *sources, self._verifier, self._tracker)
        wandb_run = tracking.run_id if tracking and "wandb" in tracking.modes else None
        provenance = {
            "hardware": root.hardware.kind,
            "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": code_commit(),
            "wandb_run": wandb_run,
        }
        metrics = {**outcome.metrics, **provenance}
        versions = {package: version(package) for package in _PACKAGES}
        return replace(outcome, metrics=metrics, versions=versions)

    def started(self, node: Node) -> None:
        self._started_s = time.monotonic()
        self.live.started(node.fingerprint)
        self._lines.print(f"{self._position(node).title(node.name)}: started")

    def finished(self, node: Node, record: Record, reused: bool) -> None:
        if not reused:
            self._tracker.log_artifact(record, list(self._inputs.values()))
            self._costs.add(record)
            self.close()
        self.live.finished(node.fingerprint, reused)
        did = "reused" if reused else f"done in {time.monotonic() - self._started_s:.0f} s"
        title = self._position(node).title(node.name)
        self._lines.print(f"{title}: {', '.join([did, *_counts(record)])}; {record.path}")
        if (url := self.publisher.publish(node.name, record)) is not None:
            self._lines.print(f"{title}: published, {url}")
        print_ledger(self._lines, node.name, Ledger.of(record.ledger), reused)

    def close(self) -> None:
        """Finish the trackers' run of the node at hand."""
        self._tracker.finish()
        self._tracker = Tracker()

    def summarize(self, rows: Sequence[Mapping[str, Any]], figure: Path) -> None:
        """A run with the complete ladder, so that reused stages leave no hole in a group."""
        if not self._tracker_modes:
            return
        variant = self._recipe.variant
        name = " ".join(self._words) or variant_label(variant)
        settings = {**as_plain(self._root), "variant": variant}
        slug = re.sub(r"[^\w-]+", "-", self._group)  # What a run's id may hold.
        tracker = tracker_of(self._tracked("summary", name, f"summary-{slug}", settings))
        tracker.log_ladder(rows, figure)
        tracker.finish()

    def _about(self) -> dict[str, Any]:
        """What a page says of the run."""
        label, seed = variant_label(self._recipe.variant), self._root.seed
        return {"title": " ".join(self._words), "variant": label, "seed": seed}

    def _position(self, node: Node) -> RunPosition:
        nodes = self._recipe.nodes
        kind = self._root.hardware.kind
        position = position_in_run(node, nodes, self.store, self._costs, kind)
        live_dir = self.live.stage_dir(node.fingerprint)
        return replace(position, log_file=self._log_file, live_dir=live_dir)

    def _tracking(self, node: Node) -> TrackedRun | None:
        if not self._tracker_modes:
            return None
        settings = {"seed": self._root.seed, **as_plain(node.stage)}
        run_id = f"{node.stage.name}-{node.fingerprint}"
        return self._tracked(node.stage.name, node.name, run_id, settings)

    def _tracked(
        self, job_type: str, name: str, run_id: str, settings: Mapping[str, Any]
    ) -> TrackedRun:
        return TrackedRun(
            config=self._root.tracker,
            modes=self._tracker_modes,
            runs_dir=Path(self._root.paths.runs),
            run_id=run_id,
            name=name,
            group=self._group,
            job_type=job_type,
            tags=[variant_label(self._recipe.variant), *self._words],
            settings=settings,
        )


def _live_node(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "stage": node.stage.name,
        "fingerprint": node.fingerprint,
        "inputs": [maker.fingerprint for maker in node.inputs.values()],
    }


def _artifacts(
    stage: LabStage, inputs: Mapping[str, Record], root: RootConfig
) -> dict[str, Artifact]:
    """The inputs as the types that the stage consumes; a policy may be the base checkpoint."""
    artifacts: dict[str, Artifact] = {}
    for consumed in stage.consumes:
        if consumed.kind in inputs:
            artifacts[consumed.kind] = consumed(inputs[consumed.kind].path)
        elif root.model.path is not None:
            base = Policy(Path(root.model.path), is_base=True, revision=root.model.revision)
            artifacts[consumed.kind] = base
    for argument, further in stage.named_inputs().items():
        artifacts[argument] = further.type(inputs[argument].path)
    return artifacts
