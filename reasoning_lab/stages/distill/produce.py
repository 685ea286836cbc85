"""Rejection sampling: several worked solutions a problem, each verified (paper, step 1).

Accepted and rejected rollouts are kept apart, with verdict and author: the accepted train
mid-training and SFT, the rejected can serve Rollout DPO. Validation problems are worked and
verified the same way; no training stage reads them.

One shard of problems is in memory at a time: a million problems take no more than their ids and
lengths.
"""

import time
from collections.abc import Callable, Iterator, Sequence

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from reasoning_lab.data.card import CorpusSummary, data_card
from reasoning_lab.data.corpus import RolloutWriter, write_prompt_ids
from reasoning_lab.data.shards import in_shards
from reasoning_lab.data.teacher import Teacher, Writing
from reasoning_lab.stages.base import Metrics, StageContext
from reasoning_lab.stages.distill.config import DistillConfig
from reasoning_lab.targets import factory
from reasoning_lab.types import Problem, Rollout, Split, UserError, Verdict

_SHOWN_ROLLOUTS = 16


def run(config: DistillConfig, context: StageContext) -> Metrics:
    """Write `accepted.parquet`, `rejected.parquet`, `validation.parquet` and the data card."""
    teacher: Teacher = factory(config.teacher, f"stages.{context.name}.teacher")()
    draw = context.source.problems
    levels, count = config.problems.levels, config.problems.count

    def trained() -> Iterator[Problem]:
        return draw(Split.TRAIN, levels, count, context.seed)

    # Drawn twice, so that what is wrong with the data is found before the teacher is asked.
    write_prompt_ids(context.out_dir, trained())
    held_out = list(draw(Split.VALIDATION, levels, config.validation, context.seed))
    with teacher.open(context.hardware) as writing:
        shard = _verified(teacher, writing, config.rollouts, context)
        metrics = _distill(trained(), shard, config, context)
        held = _verified(teacher, writing, 1, context)(held_out)
    with RolloutWriter(context.out_dir / "validation.parquet") as validation:
        validation.write([rollout for rollout in held if rollout.correct])
    return metrics


def _verified(
    teacher: Teacher, writing: Writing, samples: int, context: StageContext
) -> Callable[[Sequence[Problem]], list[Rollout]]:
    """What makes the rollouts of some problems, each with its verdict."""

    def make(problems: Sequence[Problem]) -> list[Rollout]:
        completions = writing(problems, samples, context.seed)
        asked = [problem for problem in problems for _ in range(samples)]
        verdicts = context.verifier.verify(asked, [completion.text for completion in completions])
        return [
            Rollout(problem, completion, answer, verdict, teacher.name)
            for problem, completion, (answer, verdict) in zip(
                asked, completions, verdicts, strict=True
            )
        ]

    return make


def _distill(
    problems: Iterator[Problem],
    make: Callable[[Sequence[Problem]], list[Rollout]],
    config: DistillConfig,
    context: StageContext,
) -> Metrics:
    """Work `problems` shard by shard, and tell how it goes."""
    total = config.problems.count * config.rollouts
    shown: dict[bool, list[Rollout]] = {True: [], False: []}
    summary = CorpusSummary()
    verdicts = summary.verdicts
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rates]}"),
        TimeRemainingColumn(),
        transient=True,
    )
    with (
        RolloutWriter(context.out_dir / "accepted.parquet") as accepted,
        RolloutWriter(context.out_dir / "rejected.parquet") as rejected,
        bar,
    ):
        task = bar.add_task(f"{context.name}: rollouts", total=total, rates="")
        started = time.monotonic()
        for shard in in_shards(context.work_dir / "train", problems, config.shard_problems, make):
            for correct, writer in ((True, accepted), (False, rejected)):
                chosen = [rollout for rollout in shard if rollout.correct is correct]
                writer.write(chosen)
                shown[correct] += chosen[: _SHOWN_ROLLOUTS - len(shown[correct])]
            summary.add(shard)
            rate = len(shard) / (time.monotonic() - started)
            started = time.monotonic()
            done = verdicts.total()
            rates = {"rollouts_per_s": rate, "accepted_frac": accepted.rows / done}
            context.tracker.log({f"distill/{key}": value for key, value in rates.items()})
            told = f"{rate:,.0f}/s, {rates['accepted_frac']:.1%} accepted"
            bar.update(task, completed=done, rates=told)
    if not accepted.rows:
        raise UserError(
            f"stages.{context.name}: the verifier accepted none of {total} teacher rollouts; ask "
            "easier problems or another teacher, or look at its answers with fewer problems"
        )
    card = data_card(context.name, context.source.about(), summary)
    (context.out_dir / "README.md").write_text(card, encoding="utf-8")
    metrics: Metrics = {
        "rollouts": total,
        "accepted_frac": accepted.rows / total,
        **{f"verdict/{verdict}": verdicts[verdict] for verdict in Verdict},
    }
    context.tracker.log({f"distill/{key}": value for key, value in metrics.items()})
    context.tracker.rollouts("distill/rollouts", [*shown[True], *shown[False]])
    return metrics
