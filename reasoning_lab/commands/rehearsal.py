"""Rehearse a run: every node of its recipe on small data and a small model, then what follows it.

The settings are composed as for a run. `shrink.py` makes them small, `rehearsal_data.py` takes a
few rows of each dataset, and `models/twin_building.py` makes a small model of each checkpoint. The
recipe is then run by the code that runs every recipe, in a folder of its own.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from reasoning_lab.commands.compose import Recipe, linked
from reasoning_lab.commands.doctor import context_demands, sample_problems
from reasoning_lab.commands.plan import PlannedNode, planned
from reasoning_lab.commands.preflight import check_data
from reasoning_lab.commands.print_plan import too_large
from reasoning_lab.commands.rehearsal_data import Sampler, hub_answers
from reasoning_lab.commands.rehearsal_lengths import LengthLimit, length_limits
from reasoning_lab.commands.rehearsal_models import Twins
from reasoning_lab.commands.rehearsal_run import Measured, run_small, skip_all
from reasoning_lab.commands.rehearsal_steps import Steps
from reasoning_lab.commands.root_config import RootConfig
from reasoning_lab.commands.shrink import shrunk, with_installed_engines
from reasoning_lab.config.components import missing_packages_noted
from reasoning_lab.config.fields import ALL
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.data.sources.config import ReasoningGymConfig
from reasoning_lab.data.sources.problem_source import draw_benchmark, number_of
from reasoning_lab.doctor.check import State as CheckState
from reasoning_lab.doctor.check import run_checks
from reasoning_lab.doctor.checks import CHECKS
from reasoning_lab.doctor.model_under_test import ModelUnderTest
from reasoning_lab.training.stage import LabStage
from reasoning_lab.types import Problem, UserError
from reasoning_lab.verify import build_verifier

# Whose golds are read, of each draw.
_READ_PROBLEMS = 64
_UNSEEN = (
    "whether it learns: a few steps of a random model teach nothing, and its pass@1 says nothing",
    "the checkpoint's own weights, and what its size takes: see plan",
    "a GPU, its kernels and its memory: see make test-gpu and plan",
    "the other runs of a sweep: rehearse one by its values, as in ablate=sft",
    "more than two processes, several machines, a cluster's queue",
    "W&B's server and a push to the hub",
)


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
    run, (root, rehearsal.notes) = root, with_installed_engines(root)
    recipe = linked(root)
    folder.mkdir(parents=True)
    steps = rehearsal.steps
    with steps.step("settings and local data", "data"):
        with missing_packages_noted():
            rehearsal.real_plan = planned([linked(run)])
        check_data([recipe], local_only=True)
    rehearsal.warnings += _too_large(rehearsal.real_plan, run)
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
        skip_all(recipe, steps, ["rows"])
        return rehearsal
    cut, whole = prepared
    with steps.step("model", "model.path"):
        twins = Twins(folder / "models", root.model, is_online, linked(cut))
        cut, whole = (twins.into(one) for one in (cut, whole))
        rehearsal.notes += twins.notes
    if steps.has_failed(["model"]):
        skip_all(recipe, steps, ["model"])
        return rehearsal
    with steps.step("lengths", "stages"):
        _look_at_lengths(rehearsal, root, linked(whole), twins.tokenizer_model, sampler.stand_ins)
    if twins.has_tokenizer:
        with steps.step("doctor", "model.path"):
            _examine(root, linked(cut))
    with steps.step("golds", "data"):
        rehearsal.golds = _read_golds(linked(whole), sampler.stand_ins)
    small_recipe: list[Recipe] = []
    with steps.step("small settings", "stages"):
        small_recipe.append(linked(cut))
    if small_recipe:
        rehearsal.measured = run_small(small_recipe[0], steps, folder)
    else:
        skip_all(recipe, steps, ["small settings"])
    return rehearsal


def _too_large(nodes: Sequence[PlannedNode], root: RootConfig) -> list[str]:
    """What the run itself may take more of than there is."""
    needs = [node.needs for node in nodes if node.state == "run" and not node.repeated]
    least = sum((each.artifact.least or 0) + (each.tables.least or 0) for each in needs)
    free = shutil.disk_usage(_existing(Path(root.paths.runs))).free
    lines = too_large(nodes, root.hardware)
    if least > free:
        lines.append(
            f"paths.runs={root.paths.runs}: the run takes at least {least / 1e9:,.1f} GB of disk, "
            f"and {free / 1e9:,.1f} GB are free; choose another folder"
        )
    return lines


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(path for path in [folder, *folder.absolute().parents] if path.exists())


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


def _examine(root: RootConfig, small: Recipe) -> None:
    """Run the doctor's checks on the twin, which has the checkpoint's tokenizer and template.

    Raises:
        UserError: Something is wrong; each finding is a sentence.
    """
    with build_verifier(small.root.hardware) as verifier:
        model = ModelUnderTest(
            small.root.model,
            small.root.hardware,
            list(sample_problems(small)),
            list(context_demands(root)),
            verifier,
        )
        wrong = [
            f"{one.check.name}: {one.result.sentence}"
            for one in run_checks(CHECKS, model)
            if one.result.state in (CheckState.WRONG, CheckState.FAILED)
        ]
    if wrong:
        raise UserError("\n".join(wrong))


def _read_golds(sample: Recipe, stand_ins: Sequence[str]) -> tuple[int, int]:
    """How many golds of real rows were read, and how many of them no checker reads.

    Raises:
        UserError: None can be read.
    """
    problems: list[Problem] = []
    for draw in _draws(sample):
        key = "data" if draw.benchmark is None else f"benchmarks.{draw.benchmark}.data"
        source = sample.benchmark_sources.get(draw.benchmark or "", sample.source)
        if isinstance(source, ReasoningGymConfig) or any(one.startswith(key) for one in stand_ins):
            continue
        if draw.benchmark is not None:
            problems += draw_benchmark(source, sample.root.benchmarks[draw.benchmark])
        else:
            count = number_of(source, draw.split, draw.levels, draw.count or ALL, draw.key)
            drawn = source.problems(draw.split, draw.levels, count, sample.root.seed)
            problems += islice(drawn, _READ_PROBLEMS)
    if not problems:
        return 0, 0
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
