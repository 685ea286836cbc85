"""Curation of a distilled corpus: steps remove what should not be trained on, and count it.

Steps filter the accepted rollouts; `StageContext.write_selection` says what stays of the others.
The whole corpus is in memory here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.data.card import CorpusSummary, data_card
from reasoning_lab.data.curation.selection import group_by_problem
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
    accepted, rejected = corpus.accepted(), corpus.rejected()
    groups = group_by_problem([*accepted, *rejected])
    files = {Path(path).stem: read_prompts(path, "files") for path in config.files}
    curation_context = CurationContext(
        context.seed,
        {group.problem.id: group.pass_rate for group in groups},
        {**context.benchmark_prompts(), **files},
    )
    steps = build_steps(config.steps, f"stages.{context.name}.steps")
    with context.progress.task("curation step", len(steps)) as task:
        remaining, counts, removals = curate(accepted, steps, curation_context, task.advance)
    _count(steps, counts, removals, context.ledger)
    if not remaining:
        last = next(count.step for count in counts if not count.rollouts_out)
        raise UserError(
            f"stages.{context.name}.steps.{last}: no rollout is left after it; widen its options, "
            f"or take it out with '~stages.{context.name}.steps.{last}'"
        )
    remaining_rejected = context.write_selection(corpus, remaining, rejected)
    summary = CorpusSummary()
    summary.add([*remaining, *remaining_rejected])
    about = context.source.provenance()
    card = data_card(context.name, about, summary, context.ledger, counts)
    (context.out_dir / "README.md").write_text(card, encoding="utf-8")
    return _log_metrics(remaining, counts, removals, context)


def _count(
    steps: Mapping[str, Step],
    counts: Sequence[StepCount],
    removals: Sequence[Removal],
    ledger: Ledger,
) -> None:
    """Count rollouts and problems by the step that dropped them; a row for each rollout."""
    ledger.take("rollouts", counts[0].rollouts_in)
    ledger.take("problems", counts[0].problems_in)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in steps}
    for removal in removals:
        problem = removal.rollout.problem
        row = {"origin": problem.origin, "problem": problem.id, "prompt": problem.prompt}
        rows[removal.step].append({**row, "detail": removal.reason})
    for count in counts:
        name, selects = count.step, steps[count.step].selects
        rollouts = count.rollouts_in - count.rollouts_out
        problems = count.problems_in - count.problems_out
        ledger.drop("rollouts", name, rollouts, rows=rows[name], selected=selects)
        ledger.drop("problems", name, problems, selected=selects)


def _log_metrics(
    remaining: Sequence[Rollout],
    counts: Sequence[StepCount],
    removals: Sequence[Removal],
    context: StageContext,
) -> Metrics:
    metrics: Metrics = {"rollouts": counts[0].rollouts_in, "accepted": len(remaining)}
    for count in counts:
        metrics[f"{count.step}/in"] = count.rollouts_in
        metrics[f"{count.step}/out"] = count.rollouts_out
    context.tracker.log({f"curate/{key}": value for key, value in metrics.items()})
    removed = [removal.rollout for removal in removals[:_LOGGED_ROLLOUTS]]
    context.tracker.log_rollouts("curate/removed", removed)
    return metrics
