"""Run a recipe: obtain each node from the store or make it, then tell what came out."""

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import datasets
import torch
import transformers
from rich.console import Console

from reasoning_lab.commands.compose import Recipe
from reasoning_lab.commands.preflight import Preflight
from reasoning_lab.commands.report import add_evidence, publish, results_of
from reasoning_lab.config.fields import as_plain
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.recipe import Node, variant_label
from reasoning_lab.graph.store import Artifact, Metadata, Store, trained_on
from reasoning_lab.launch.job import Job, launched, tracker_of
from reasoning_lab.launch.ray import check_ray
from reasoning_lab.launch.slurm import check_slurm
from reasoning_lab.report.write import Evidence
from reasoning_lab.system import malloc
from reasoning_lab.system.files import write_atomically
from reasoning_lab.tracking.tracker import Tracker
from reasoning_lab.tracking.wandb import wandb_folder, wandb_mode
from reasoning_lab.training.stage import LabStage
from reasoning_lab.training.strategies import check_drives
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


def run(recipe: Recipe, out_dir: Path, overrides: Sequence[str] = ()) -> float | None:
    """Make what the store lacks, in order, and write the report into `out_dir`.

    Args:
        recipe: The composed run.
        out_dir: This run's own folder, below `paths.runs`.
        overrides: What was asked for, as the tracker shows it.

    Returns:
        pass@1 of the last policy, the mean over benchmarks; None without a benchmark.
    """
    root = recipe.root
    if root.hardware.slurm is not None:
        check_slurm()
    elif root.hardware.ray is not None:
        check_ray(root.hardware.ray)
    else:
        check_drives(root.hardware)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    # Bars for work of milliseconds; ours and Lightning's tell of what takes time.
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    torch.set_num_threads(root.hardware.threads or torch.get_num_threads())
    malloc.return_freed_blocks()
    console = Console()
    with build_verifier(root.hardware) as verifier:
        Preflight(verifier).require([recipe])
        runner = Runner(recipe, out_dir, overrides, verifier)
        artifacts: dict[str, Artifact] = {}
        for position, node in enumerate(recipe.nodes, start=1):
            started = time.monotonic()
            title = f"[{position}/{len(recipe.nodes)}] {node.name}"
            starts = partial(console.print, f"{title}: started")
            artifact, reused = runner.obtain(node, artifacts, starts)
            artifacts[node.fingerprint] = artifact
            did = "reused" if reused else f"done in {time.monotonic() - started:.0f} s"
            result = artifact.metrics.get("pass@1")
            score = "" if result is None else f", {_score(artifact.metrics)}"
            console.print(f"{title}: {did}{score}")
            print_ledger(console, node.name, Ledger.of(artifact.ledger), reused)
    rows, results = results_of(recipe, artifacts)
    if not rows:
        console.print("No benchmark was asked for, so there is nothing to report.")
        return None
    evidence = Evidence()
    add_evidence(evidence, recipe, artifacts)
    paths = publish(rows, results, evidence, out_dir, console)
    runner.summarize([row.as_json() for row in rows], paths["ladder"])
    reached = [row.pass_at_1 for row in rows if row.stage == rows[-1].stage]
    return fmean(reached)


def print_ledger(console: Console, stage: str, ledger: Ledger, reused: bool) -> None:
    """Say what a stage dropped; of a reused artifact only what is worth a warning."""
    for line in () if reused else ledger.lines():
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    for warning in ledger.warnings():
        log.warning("%s: %s.", stage, warning)


def _score(metrics: Mapping[str, Any]) -> str:
    """An evaluation's result in words, with the problems that it is over."""
    dropped = metrics.get("unreadable_golds", 0)
    without = f" ({dropped} with unreadable golds dropped)" if dropped else ""
    return f"pass@1 {metrics['pass@1']:.1%} of {metrics['n']} problems{without}"


class Runner:
    """Obtains the nodes of one recipe.

    Args:
        recipe: The composed run.
        out_dir: This run's own folder; its place below the runs' folder names the W&B group.
        overrides: Tags of every W&B run.
        verifier: Shared by all stages.
    """

    def __init__(
        self, recipe: Recipe, out_dir: Path, overrides: Sequence[str], verifier: Verifier
    ) -> None:
        self._root = recipe.root
        self._variant = recipe.variant
        place = "/".join(out_dir.parts[-2:]) if out_dir.parent.parent.name == "sweeps" else ""
        self._group = f"{place or out_dir.name}-{recipe.variant}-seed{recipe.root.seed}"
        self._overrides = overrides
        self._verifier = verifier
        self._store = Store(Path(self._root.paths.runs) / "store")
        self._source = recipe.source
        self._benchmark_sources = recipe.benchmark_sources
        self._tracking_mode = wandb_mode(self._root.tracker)

    def obtain(
        self, node: Node, made: Mapping[str, Artifact], starts: Callable[[], None]
    ) -> tuple[Artifact, bool]:
        """The node's artifact and whether it existed.

        Args:
            node: What is wanted.
            made: Has the artifacts of its inputs.
            starts: Called when the artifact is not there and its making begins.
        """
        started: list[Tracker] = []

        def build(out_dir: Path, work_dir: Path) -> Metadata:
            starts()
            started.append(tracker_of(self._tracking(node)))
            return self._build(node, made, out_dir, work_dir, started[0])

        try:
            artifact, reused = self._store.obtain(node.stage.name, node.fingerprint, build)
            for tracker in started:
                tracker.log_artifact(
                    artifact, [made[maker.fingerprint] for maker in node.inputs.values()]
                )
            return artifact, reused
        finally:
            for tracker in started:
                tracker.finish()

    def summarize(self, rows: Sequence[Mapping[str, Any]], figure: Path) -> None:
        """A W&B run with the complete ladder, so that reused stages leave no hole in a group."""
        if self._tracking_mode == "disabled":
            return
        name = " ".join(self._overrides) or variant_label(self._variant)
        settings = {**as_plain(self._root), "variant": self._variant}
        tracker = tracker_of(
            self._wandb("summary", name, f"summary-{_slug(self._group)}", settings)
        )
        tracker.log_ladder(rows, figure)
        tracker.finish()

    def _build(
        self,
        node: Node,
        made: Mapping[str, Artifact],
        out_dir: Path,
        work_dir: Path,
        tracker: Tracker,
    ) -> Metadata:
        seed = self._root.seed
        stage = node.stage
        assert isinstance(stage, LabStage)
        inputs = {kind: made[maker.fingerprint] for kind, maker in node.inputs.items()}
        lineage = list(dict.fromkeys(at for one in inputs.values() for at in trained_on(one.path)))
        if self._root.model.path is not None:
            lineage += trained_on(Path(self._root.model.path))
        job = Job(
            name=node.name,
            config=stage,
            seed=seed,
            out_dir=out_dir,
            work_dir=work_dir,
            inputs={kind: one.path for kind, one in inputs.items()},
            authors={kind: one.fingerprint for kind, one in inputs.items()},
            lineage=lineage,
            model=self._root.model,
            data=self._root.data,
            hardware=self._root.hardware,
            benchmarks=self._root.benchmarks,
            tracking=self._tracking(node),
        )
        clock = Clock(work_dir)
        try:
            if job.launches:
                outcome = launched(job)
            else:
                sources = self._source, self._benchmark_sources
                outcome = job.run(*sources, self._verifier, tracker)
        finally:
            clock.stop()
        return Metadata(
            kind=node.produces.kind,
            identity=node.identity,
            inputs={kind: one.fingerprint for kind, one in inputs.items()},
            seed=seed,
            metrics={
                "planned_rows": node.stage.workload().rows,
                **outcome.metrics,
                "wall_s": clock.seconds,
                "wandb_run": tracker.run_id,
            },
            ledger=outcome.ledger,
            versions={package: version(package) for package in _PACKAGES},
        )

    def _tracking(self, node: Node) -> Mapping[str, Any] | None:
        if self._tracking_mode == "disabled":
            return None
        settings = {"seed": self._root.seed, **as_plain(node.stage)}
        return self._wandb(
            node.stage.name, node.name, f"{node.stage.name}-{node.fingerprint}", settings
        )

    def _wandb(
        self, job_type: str, name: str, run_id: str, settings: Mapping[str, Any]
    ) -> dict[str, Any]:
        return {
            "config": self._root.tracker,
            "offline": self._tracking_mode == "offline",
            "folder": wandb_folder(Path(self._root.paths.runs)),
            "run_id": run_id,
            "name": name,
            "group": self._group,
            "job_type": job_type,
            "tags": [variant_label(self._variant), *self._overrides],
            "settings": settings,
        }


def _slug(text: str) -> str:
    """`text` with only what a W&B run id may hold."""
    return re.sub(r"[^\w-]+", "-", text)


class Clock:
    """Seconds spent on a stage over all attempts; of a killed one, until it last saved something.

    Args:
        work_dir: The stage's; `seconds.txt` in it holds the sum as of the file's own date.
    """

    def __init__(self, work_dir: Path) -> None:
        self._file = work_dir / "seconds.txt"
        self._before = 0.0
        if self._file.exists():
            written = self._file.stat().st_mtime
            saved = max(entry.stat().st_mtime for entry in work_dir.rglob("*"))
            self._before = float(self._file.read_text()) + saved - written
        self._started = time.monotonic()
        self._write(self._before)

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._started

    def stop(self) -> None:
        self._write(self.seconds)

    def _write(self, seconds: float) -> None:
        write_atomically(self._file, lambda draft: draft.write_text(str(seconds)))
