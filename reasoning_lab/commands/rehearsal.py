"""Rehearse a run: every node of its recipe on small data and a small model, then what follows it.

The settings are composed as for a run. `shrink.py` makes them small, `rehearsal_data.py` takes a
few rows of each dataset, and `models/twin_building.py` makes a small model of each checkpoint. The
recipe is then run by the code that runs every recipe, in a folder of its own.
"""

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub import constants

from reasoning_lab.commands.compose import Recipe, linked
from reasoning_lab.commands.export import export
from reasoning_lab.commands.plan import PlannedNode, planned
from reasoning_lab.commands.preflight import check_data
from reasoning_lab.commands.rehearsal_data import Sampler
from reasoning_lab.commands.rehearsal_lengths import LengthLimit, length_limits
from reasoning_lab.commands.rehearsal_steps import Steps
from reasoning_lab.commands.root_config import RootConfig
from reasoning_lab.commands.run import RecipeRun, opened, write_report
from reasoning_lab.commands.shrink import (
    require_folder,
    shrunk,
    with_installed_engines,
    with_models,
)
from reasoning_lab.config.components import EngineConfig
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.data.sources.problem_source import draw_benchmark
from reasoning_lab.evaluate.stage import EvaluateStage
from reasoning_lab.graph.recipe import Node
from reasoning_lab.graph.record import Record
from reasoning_lab.graph.run import run as run_graph
from reasoning_lab.models.policy import load_policy
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.models.twin_building import make_twin, narrowed, teach
from reasoning_lab.sampling.engine import with_instruction
from reasoning_lab.tracking.wandb import wandb_folder
from reasoning_lab.training.stage import LabStage, TrainingStage
from reasoning_lab.types import Problem, UserError
from reasoning_lab.verify import build_verifier

# Prompts with golds that a twin learns.
_TAUGHT_PROBLEMS = 64
_ASK_TIMEOUT_S = 5.0
_UNSEEN = (
    "whether it learns: a few steps of a random model teach nothing, and its pass@1 says nothing",
    "the checkpoint's own weights, and what its size takes: see plan",
    "a GPU, its kernels and its memory: see make test-gpu and plan",
    "more than two processes, several machines, a cluster's queue",
    "W&B's server and a push to the hub",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a node was planned to take, and what it took.

    Attributes:
        name: The node's.
        planned: Of the small node.
        wall_s: Seconds.
        disk_bytes: Of its artifact.
        peak_bytes: Of a process; None = it is no training.
    """

    name: str
    planned: PlannedNode
    wall_s: float
    disk_bytes: int
    peak_bytes: float | None


@dataclass(slots=True)
class Rehearsal:
    """What a rehearsal showed.

    Attributes:
        folder: Its output.
        steps: What was rehearsed, in order.
        factor: By which every length was cut.
        notes: What was left out or replaced, and why.
        warnings: What is likely not meant and fails no step.
        limits: How long documents are, against the run's own limits.
        golds: Golds that were read, and how many of them no checker reads.
        real_plan: What `plan` says of the run itself.
        measured: What the small nodes took.
        unseen: What cannot be seen by rehearsing.
    """

    folder: Path
    steps: Steps = field(default_factory=Steps)
    factor: float = 1.0
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    limits: list[LengthLimit] = field(default_factory=list)
    golds: tuple[int, int] = (0, 0)
    real_plan: list[PlannedNode] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    unseen: Sequence[str] = _UNSEEN

    @property
    def passed(self) -> bool:
        """Whether every step did."""
        return self.steps.passed


def rehearse(root: RootConfig, folder: Path, online: bool | None = None) -> Rehearsal:
    """Rehearse a run.

    Args:
        root: Its settings, as `settings` types them.
        folder: A new one, for all output.
        online: Whether the hub may be asked; None = if it answers.

    Raises:
        UserError: The settings are impossible, as a run would refuse them.
    """
    rehearsal = Rehearsal(folder)
    root, rehearsal.notes = with_installed_engines(root)
    recipe = linked(root)
    folder.mkdir(parents=True)
    steps = rehearsal.steps
    with steps.step("settings and local data", "data"):
        rehearsal.real_plan = planned([recipe])
        check_data([recipe], local_only=True)
    small = shrunk(root, str(folder / "runs"))
    rehearsal.factor = small.factor
    rehearsal.notes += small.notes
    is_online = hub_answers() if online is None else online
    sampler = Sampler(folder / "data", small.factor, is_online, _levels(recipe))
    prepared: list[RootConfig] = []
    with steps.step("rows", "data"):
        prepared = list(_with_rows(small.root, sampler))
    rehearsal.notes += sampler.notes
    if steps.has_failed(["rows"]):
        _skip_all(recipe, steps, ["rows"])
        return rehearsal
    cut, whole = prepared
    with steps.step("model", "model.path"):
        twins = _Twins(folder / "models", root.model, is_online, linked(cut))
        cut, whole = (twins.into(one) for one in (cut, whole))
        rehearsal.notes += twins.notes
    if steps.has_failed(["model"]):
        _skip_all(recipe, steps, ["model"])
        return rehearsal
    with steps.step("lengths", "stages"):
        _look_at_lengths(rehearsal, root, linked(whole), twins.tokenizer_model, sampler.stand_ins)
    with steps.step("golds", "data"):
        rehearsal.golds = _read_golds(linked(whole))
    small_recipe: list[Recipe] = []
    with steps.step("small settings", "stages"):
        small_recipe.append(linked(cut))
    if small_recipe:
        _run(rehearsal, small_recipe[0])
    else:
        _skip_all(recipe, steps, ["small settings"])
    return rehearsal


def hub_answers() -> bool:
    """Whether the hub can be asked from here."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        httpx.head(constants.ENDPOINT, timeout=_ASK_TIMEOUT_S)
    except httpx.HTTPError:
        return False
    return True


def _levels(recipe: Recipe) -> list[int]:
    """Every level that a node asks for."""
    levels = {1}
    for draw in _draws(recipe):
        levels |= set(draw.levels or ())
    return sorted(levels)


def _draws(recipe: Recipe) -> Iterator[Any]:
    for node in recipe.nodes:
        assert isinstance(node.stage, LabStage)
        yield from node.stage.problem_draws(f"stages.{node.name}")


def _with_rows(root: RootConfig, sampler: Sampler) -> Iterator[RootConfig]:
    """The settings on a few rows of each dataset: with their long texts cut, and whole."""
    data = sampler.sampled(root.data, "data")
    benchmarks = {
        name: None
        if benchmark.data is None
        else sampler.sampled(benchmark.data, f"benchmarks.{name}.data")
        for name, benchmark in root.benchmarks.items()
    }
    for kind in (0, 1):
        of_kind = {
            name: benchmark
            if (rows := benchmarks[name]) is None
            else replace(benchmark, data=rows[kind])
            for name, benchmark in root.benchmarks.items()
        }
        yield replace(root, data=data[kind], benchmarks=of_kind)


class _Twins:
    """A small model in place of each checkpoint that the settings name.

    Args:
        folder: Where they are written.
        model: The run's.
        online: Whether the hub may be asked.
        recipe: On a few rows, which the twins learn.
    """

    def __init__(self, folder: Path, model: ModelConfig, online: bool, recipe: Recipe) -> None:
        self._folder, self._online = folder, online
        self._answers = list(islice(_answers(recipe), _TAUGHT_PROBLEMS))
        self.notes: list[str] = []
        # By whose tokenizer lengths are counted.
        self.tokenizer_model = model
        if model.path is None:
            self._model = replace(model, architecture=narrowed(model.architecture))
            self.notes.append("model.architecture: two layers, and narrow ones if it is wide")
            return
        path = self._twin(str(model.path), model.revision, model.architecture, "model.path")
        self._model = replace(model, path=path, revision=None)

    def into(self, root: RootConfig) -> RootConfig:
        """The settings with twins in place of checkpoints."""

        def twin_of(engine: EngineConfig, key: str) -> EngineConfig:
            revision = getattr(engine, "revision", None)
            path = self._twin(engine.model, revision, {}, f"{key}.model")
            dtype = getattr(engine, "dtype", "float32")
            return engine.for_policy(path, None, dtype)

        root = with_models(root, twin_of)
        engine = root.engine
        if engine is not None and engine.loads_checkpoints and self._model.path is not None:
            engine = replace(engine, model=self._model.path)
        return replace(root, model=self._model, engine=engine)

    def _twin(
        self, path: str, revision: str | None, architecture: Mapping[str, Any], key: str
    ) -> str:
        require_folder(path, key)
        folder = self._folder / path.strip("/.~").replace("/", "--")
        if folder.is_dir():
            return str(folder)
        texts = [f"{prompt}\n{gold}" for prompt, gold in self._answers]
        made = make_twin(path, revision, architecture, folder, texts, key, self._online)
        self.notes.append(
            f"{key}: a random model of the family of '{path}', two layers of 64 channels, which "
            "has learned a few answers"
        )
        if not made.has_config:
            self.notes.append(f"{key}: its architecture is what the options say of it")
        if not made.has_tokenizer:
            self.notes.append(
                f"{key}: its tokenizer and its chat template are stand-ins, as '{path}' is neither "
                "on this machine nor to be reached; doctor looks at the real ones"
            )
        teach(folder, self._answers)
        return str(folder)


def _answers(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Prompts and golds of the problems that the nodes draw."""
    seen: set[str] = set()
    for node in recipe.nodes:
        assert isinstance(node.stage, LabStage)
        instruction = ""
        problems: Iterator[Problem] = iter(())
        if isinstance(node.stage, EvaluateStage):
            name = node.stage.benchmark_name
            benchmark = recipe.root.benchmarks[name]
            instruction = benchmark.instruction
            problems = draw_benchmark(recipe.benchmark_sources.get(name, recipe.source), benchmark)
        else:
            draws = node.stage.problem_draws(f"stages.{node.name}")
            problems = chain.from_iterable(
                islice(
                    recipe.source.problems(d.split, d.levels, d.count, recipe.root.seed),
                    _TAUGHT_PROBLEMS,
                )
                for d in draws
                if d.benchmark is None
            )
        for problem in problems:
            prompt = with_instruction(problem.prompt, instruction)
            if prompt not in seen:
                seen.add(prompt)
                yield prompt, problem.gold


def _look_at_lengths(
    rehearsal: Rehearsal,
    root: RootConfig,
    sample: Recipe,
    model: ModelConfig,
    stand_ins: Sequence[str],
) -> None:
    """Hold documents against limits; made-up rows say nothing of lengths.

    Raises:
        UserError: A limit that no document keeps.
    """
    if any(key == "data" or key.startswith("data.") for key in stand_ins):
        rehearsal.notes.append("lengths: not looked at, as the rows of data are made up")
        return
    rehearsal.limits = length_limits(root, sample, model)
    rehearsal.warnings += [limit.warning for limit in rehearsal.limits if limit.warning]
    if complaints := [limit.complaint for limit in rehearsal.limits if limit.complaint]:
        raise UserError("; ".join(complaints))


def _read_golds(sample: Recipe) -> tuple[int, int]:
    """How many golds were read, and how many of them no checker reads.

    Raises:
        UserError: None can be read.
    """
    problems: list[Problem] = []
    for draw in _draws(sample):
        if draw.benchmark is not None:
            source = sample.benchmark_sources.get(draw.benchmark, sample.source)
            problems += draw_benchmark(source, sample.root.benchmarks[draw.benchmark])
        else:
            drawn = sample.source.problems(draw.split, draw.levels, draw.count, sample.root.seed)
            problems += islice(drawn, _TAUGHT_PROBLEMS)
    distinct = list({problem.id: problem for problem in problems}.values())
    with build_verifier(sample.root.hardware) as verifier:
        unreadable = verifier.unreadable_golds(distinct)
    if unreadable and len(unreadable) == len(distinct):
        first = unreadable[0]
        raise UserError(
            f"data.rows.gold: no checker reads any of {len(distinct)} golds, as '{first.gold}' of "
            f"{first.origin} for checker {first.checker}; name another column, or another "
            "data.rows.checker"
        )
    return len(distinct), len(unreadable)


def _skip_all(recipe: Recipe, steps: Steps, waits_for: Sequence[str]) -> None:
    for node in recipe.nodes:
        steps.skip(node.name, waits_for)


@dataclass(frozen=True, slots=True)
class _MadeNodes:
    """Passes on what is made; what is found again is of no interest."""

    run: RecipeRun

    def started(self, node: Node) -> None:
        self.run.started(node)

    def finished(self, node: Node, record: Record, reused: bool) -> None:
        if not reused:
            self.run.finished(node, record, reused)


def _run(rehearsal: Rehearsal, recipe: Recipe) -> None:
    """Make every node that can be made, then the report and the export."""
    steps, out_dir = rehearsal.steps, rehearsal.folder / "report"
    plans = {node.stage: node for node in planned([recipe])}
    records: dict[str, Record] = {}
    with steps.step("tracker", "tracker.mode"):
        _require_tracker(recipe.root)
    with ExitStack() as stack:
        with steps.step("small data", "data"):
            run = stack.enter_context(opened(recipe, out_dir))
        if steps.has_failed(["small data"]):
            _skip_all(recipe, steps, ["small data"])
            return
        for node in recipe.nodes:
            makers = [maker.name for maker in node.inputs.values()]
            if missing := [name for name in makers if steps.has_failed([name])]:
                steps.skip(node.name, missing)
                continue
            key = f"stages.{node.name}"
            if isinstance(node.stage, EvaluateStage):
                key = f"benchmarks.{node.stage.benchmark_name}"
            with steps.step(node.name, key):
                made = run_graph(_lineage(node), run.store, run.execute, _MadeNodes(run))
                records |= made
                record = made[node.fingerprint]
                rehearsal.measured.append(_measured(node, plans[node.name], record))
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
            _export(records[policies[-1].fingerprint], rehearsal.folder)


def _lineage(node: Node) -> list[Node]:
    """What the node is made from, and the node itself last."""
    nodes: dict[str, Node] = {}
    for maker in node.inputs.values():
        nodes |= {one.fingerprint: one for one in _lineage(maker)}
    return [*nodes.values(), node]


def _measured(node: Node, plan: PlannedNode, record: Record) -> Measured:
    peak = None
    history = record.path / "history.parquet"
    if isinstance(node.stage, TrainingStage) and history.is_file():
        import pyarrow.parquet as pq

        table = pq.read_table(history)
        if "device/peak_memory_bytes" in table.column_names:
            values = table.column("device/peak_memory_bytes").drop_null().to_pylist()
            peak = max(values, default=None)
    return Measured(
        name=node.name,
        planned=plan,
        wall_s=record.metrics["wall_s"],
        disk_bytes=sum(f.stat().st_size for f in record.path.rglob("*") if f.is_file()),
        peak_bytes=peak,
    )


def _require_tracker(root: RootConfig) -> None:
    if root.tracker.mode == "disabled":
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
    if recipe.root.tracker.mode == "disabled" or steps.has_failed(["tracker"]):
        return
    folder = wandb_folder(Path(recipe.root.paths.runs)) / "wandb"
    with steps.step("tracked runs", "tracker.mode"):
        kept = " ".join(path.name for path in folder.glob("offline-run-*"))
        lost = [f"{r.stage}-{r.fingerprint}" for r in records.values() if r.fingerprint not in kept]
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


def disk_free(folder: Path) -> int:
    """Bytes that a user may still write below the nearest folder that exists."""
    existing = next(path for path in [folder, *folder.resolve().parents] if path.exists())
    stats = os.statvfs(existing)
    return stats.f_bavail * stats.f_frsize
