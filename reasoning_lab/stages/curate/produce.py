"""Curation of a distilled corpus: steps remove what should not be trained on, and count it.

Steps filter the accepted rollouts; `StageContext.write_selection` says what stays of the others.
Rollouts are read from the disk step by step.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.data.card import CorpusSummary, data_card
from reasoning_lab.data.corpus import RolloutFile
from reasoning_lab.data.curation.step import (
    CurationContext,
    Removal,
    Step,
    StepCount,
    build_steps,
    curate,
)
from reasoning_lab.data.sources.readers import read_prompts
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.stage import Metrics
from reasoning_lab.stages.curate.stage import CurateStage
from reasoning_lab.training.context import StageContext
from reasoning_lab.types import Rollout, UserError

_LOGGED_ROLLOUTS = 16


def run(config: CurateStage, context: StageContext, corpus: Corpus) -> Metrics:
    """Write the curated corpus as `distill` does, with the data card."""
    files = {Path(path).stem: read_prompts(path, "files") for path in config.files}
    benchmarks = {**context.benchmark_prompts(), **files}
    accepted = corpus.accepted()
    rates = pass_rates(accepted, corpus.rejected())
    curation_context = CurationContext(context.seed, rates, benchmarks)
    steps = build_steps(config.steps, f"stages.{context.name}.steps")
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in steps}
    removed: list[Rollout] = []

    def note(removal: Removal) -> None:
        problem = removal.rollout.problem
        row = {"origin": problem.origin, "problem": problem.id, "prompt": problem.transcript}
        rows[removal.step].append({**row, "detail": removal.reason})
        if len(removed) < _LOGGED_ROLLOUTS:
            removed.append(removal.rollout)

    with context.progress.task("curation step", len(steps)) as task:
        remaining, counts = curate(accepted, steps, curation_context, note, task.advance)
    _count(steps, counts, rows, context.ledger)
    if not len(remaining):
        last = next(count.step for count in counts if not count.rollouts_out)
        raise UserError(
            f"stages.{context.name}.steps.{last}: no rollout is left after it; widen its options, "
            f"or take it out with '~stages.{context.name}.steps.{last}'"
        )
    remaining_rejected = context.write_selection(corpus, remaining)
    summary = CorpusSummary()
    summary.add(chain(remaining, remaining_rejected))
    about = context.source.provenance()
    card = data_card(context.name, about, summary, context.ledger, counts)
    (context.out_dir / "README.md").write_text(card, encoding="utf-8")
    return _log_metrics(len(remaining), counts, removed, context)


def pass_rates(accepted: RolloutFile, rejected: RolloutFile) -> Callable[[str], float]:
    """The pass rate of each problem of a corpus, by its id."""
    problems = np.concatenate([accepted.index.problems, rejected.index.problems])
    ids, places = np.unique(problems, return_inverse=True)
    correct = np.bincount(places[: len(accepted)], minlength=len(ids))
    rates = correct / np.bincount(places)
    return lambda problem: float(rates[np.searchsorted(ids, np.uint64(int(problem, 16)))])


def _count(
    steps: Mapping[str, Step],
    counts: Sequence[StepCount],
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    ledger: Ledger,
) -> None:
    """Count rollouts and problems by the step that dropped them; a row for each rollout."""
    ledger.take("rollouts", counts[0].rollouts_in)
    ledger.take("problems", counts[0].problems_in)
    for count in counts:
        name, selects = count.step, steps[count.step].selects
        rollouts = count.rollouts_in - count.rollouts_out
        problems = count.problems_in - count.problems_out
        ledger.drop("rollouts", name, rollouts, rows=rows[name], selected=selects)
        ledger.drop("problems", name, problems, selected=selects)


def _log_metrics(
    accepted: int, counts: Sequence[StepCount], removed: Sequence[Rollout], context: StageContext
) -> Metrics:
    metrics: Metrics = {"rollouts": counts[0].rollouts_in, "accepted": accepted}
    for count in counts:
        metrics[f"{count.step}/in"] = count.rollouts_in
        metrics[f"{count.step}/out"] = count.rollouts_out
    context.tracker.log({f"curate/{key}": value for key, value in metrics.items()})
    context.tracker.log_rollouts("curate/removed", removed)
    return metrics
