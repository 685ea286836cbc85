"""Rejection sampling: several worked solutions a problem, each verified (paper, step 1).

Accepted and rejected rollouts are kept apart, with verdict and author: the accepted train
mid-training and SFT, the rejected can serve Rollout DPO. A completion that was cut off has no final
answer: it is rejected unverified, whatever its draft says, unless `truncated: keep`. Validation
problems are worked and verified the same way; no training stage reads them.

One shard of problems is in memory at a time: a million problems take no more than their ids and
lengths.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial

from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from reasoning_lab.config.targets import factory
from reasoning_lab.data.card import CorpusSummary, data_card
from reasoning_lab.data.corpus import RolloutWriter, write_prompt_ids
from reasoning_lab.data.shards import sample_in_shards
from reasoning_lab.data.sources.unreadable import UNREADABLE_GOLD
from reasoning_lab.data.teachers.teacher import ObservingTeacher, SolutionWriter, Teacher
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.models.think_tags import has_open_thought
from reasoning_lab.sampling.judge import Judging, ModelJudge
from reasoning_lab.stages.distill.stage import DistillStage
from reasoning_lab.training.loop import Metrics, StageContext
from reasoning_lab.types import Problem, Rollout, Split, UserError, Verdict

_SHOWN_ROLLOUTS = 16


def run(config: DistillStage, context: StageContext) -> Metrics:
    """Write `accepted.parquet`, `rejected.parquet`, `validation.parquet` and the data card."""
    teacher: Teacher = factory(config.teacher, f"stages.{context.name}.teacher")()
    draw = context.source.problems
    levels, count = config.problems.levels, config.problems.count
    survey = teacher.observe if isinstance(teacher, ObservingTeacher) else iter

    def trained() -> Iterator[Problem]:
        return draw(Split.TRAIN, levels, count, context.seed)

    # Drawn twice, so that what is wrong with the data is found before the teacher is asked.
    readable = context.readable_golds()
    write_prompt_ids(context.out_dir, readable.filter(survey(trained())))
    drawn = draw(Split.VALIDATION, levels, config.validation, context.seed)
    held_out = list(readable.filter(survey(drawn), "validation_problems"))
    with teacher.open(context.hardware) as writing, _judging(config, context) as judge:
        verify = partial(_verified, teacher, writing, judge, config.truncated == "reject")
        problems = readable.without_dropped(trained())
        metrics = _distill(problems, verify(config.rollouts, context), config, context)
        validated = verify(1, context)(held_out)
    _drop_rejected("validation_problems", validated, context.ledger)
    context.ledger.drop("validation_problems", "no_rollout", len(held_out) - len(validated))
    with RolloutWriter(context.out_dir / "validation.parquet") as validation:
        validation.write([rollout for rollout in validated if rollout.correct])
    return metrics


def _count(rollouts: Sequence[Rollout], ledger: Ledger) -> None:
    """Count all rollouts of some problems, and the problems that no accepted one is left of."""
    ledger.take("rollouts", len(rollouts))
    _drop_rejected("rollouts", rollouts, ledger)
    accepted = {rollout.problem.id for rollout in rollouts if rollout.correct}
    answered = {rollout.problem.id for rollout in rollouts}
    ledger.drop("problems", "no_accepted_rollout", len(answered - accepted))


def _drop_rejected(unit: str, rollouts: Sequence[Rollout], ledger: Ledger) -> None:
    """Count why rollouts are rejected; wrong answers are what the stage is there to reject."""
    reasons = Counter(_reason(rollout) for rollout in rollouts if not rollout.correct)
    for reason, count in reasons.items():
        ledger.drop(unit, reason, count, selected=reason == str(Verdict.WRONG))


def _reason(rollout: Rollout) -> str:
    """Why a rollout is rejected."""
    if rollout.completion.truncated:
        return "cut_off"
    return str(rollout.verdict) if rollout.completion.answered else "not_answered"


def _judging(config: DistillStage, context: StageContext) -> AbstractContextManager[Judging]:
    """The configured judge at work, or one that leaves every verdict as it is."""
    if config.judge is None:
        return nullcontext(_as_verified)
    judge: ModelJudge = factory(config.judge, f"stages.{context.name}.judge")()
    return judge.open(context.hardware)


def _as_verified(rollouts: Sequence[Rollout]) -> list[Rollout]:
    return list(rollouts)


def _verified(
    teacher: Teacher,
    writing: SolutionWriter,
    judge: Judging,
    reject_truncated: bool,
    samples: int,
    context: StageContext,
) -> Callable[[Sequence[Problem]], list[Rollout]]:
    """What makes the rollouts of some problems, each with its verdict."""

    def make(problems: Sequence[Problem]) -> list[Rollout]:
        written = writing(problems, samples, context.seed)
        rollouts = [
            Rollout(
                _without_solutions(problem),
                replace(
                    completion, truncated=completion.truncated or has_open_thought(completion.text)
                ),
                None,
                Verdict.UNPARSEABLE,
                teacher.name,
            )
            for problem, completions in zip(problems, written, strict=True)
            for completion in completions
        ]
        complete = [one for one in rollouts if not (reject_truncated and one.completion.truncated)]
        verdicts = context.verifier.verify(
            [one.problem for one in complete], [one.completion.text for one in complete]
        )
        verified = judge(
            [
                replace(one, answer=answer, verdict=verdict)
                for one, (answer, verdict) in zip(complete, verdicts, strict=True)
            ]
        )
        verified_in_order = iter(verified)
        return [
            one if reject_truncated and one.completion.truncated else next(verified_in_order)
            for one in rollouts
        ]

    return make


def _without_solutions(problem: Problem) -> Problem:
    """A dataset's solutions are in the completions: every rollout would repeat all of them."""
    kept = {key: value for key, value in problem.metadata.items() if key != "solutions"}
    return replace(problem, metadata=kept)


def _progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rates]}"),
        TimeRemainingColumn(),
        transient=True,
        disable=not get_console().is_terminal,
    )


def _distill(
    problems: Iterator[Problem],
    make: Callable[[Sequence[Problem]], list[Rollout]],
    config: DistillStage,
    context: StageContext,
) -> Metrics:
    """Work `problems` shard by shard, and tell how it goes."""
    shown: dict[bool, list[Rollout]] = {True: [], False: []}
    summary = CorpusSummary()
    verdicts = summary.verdicts
    bar = _progress_bar()
    with (
        RolloutWriter(context.out_dir / "accepted.parquet") as accepted,
        RolloutWriter(context.out_dir / "rejected.parquet") as rejected,
        bar,
    ):
        task = bar.add_task(f"{context.name}: problems", total=config.problems.count, rates="")
        started = time.monotonic()
        shards = sample_in_shards(context.work_dir / "train", problems, config.shard_problems, make)
        for number, shard in enumerate(shards, start=1):
            for correct, writer in ((True, accepted), (False, rejected)):
                chosen = [rollout for rollout in shard if rollout.correct is correct]
                writer.write(chosen)
                shown[correct] += chosen[: _SHOWN_ROLLOUTS - len(shown[correct])]
            summary.add(shard)
            _count(shard, context.ledger)
            rate = len(shard) / (time.monotonic() - started)
            started = time.monotonic()
            accepted_frac = accepted.rows / max(1, verdicts.total())
            rates = {"rollouts_per_s": rate, "accepted_frac": accepted_frac}
            context.tracker.log({f"distill/{key}": value for key, value in rates.items()})
            told = f"{rate:,.0f}/s, {accepted_frac:.1%} accepted"
            done = min(number * config.shard_problems, config.problems.count)
            bar.update(task, completed=done, rates=told)
    total = verdicts.total()
    if not accepted.rows:
        raise UserError(_none_accepted(total, config, context))
    flow = context.ledger.flows["problems"]
    unanswered = flow.taken - flow.dropped[UNREADABLE_GOLD] - summary.problems.total()
    context.ledger.drop("problems", "no_rollout", unanswered)
    card = data_card(context.name, context.source.provenance(), summary, context.ledger)
    (context.out_dir / "README.md").write_text(card, encoding="utf-8")
    metrics: Metrics = {
        "rollouts": total,
        "accepted_frac": accepted.rows / total,
        "cut_off": summary.truncated,
        **{f"verdict/{verdict}": verdicts[verdict] for verdict in Verdict},
        **{f"judged/{verdict}": count for verdict, count in summary.judged.items() if count},
    }
    context.tracker.log({f"distill/{key}": value for key, value in metrics.items()})
    context.tracker.log_rollouts("distill/rollouts", [*shown[True], *shown[False]])
    return metrics


def _none_accepted(total: int, config: DistillStage, context: StageContext) -> str:
    """One sentence about `total` rollouts of which none was accepted, with the reasons."""
    key = f"stages.{context.name}"
    reasons = context.ledger.reasons("rollouts")
    remedy = "ask easier problems or another teacher"
    if "answer_pattern" in config.teacher:
        remedy += f", or describe answers without a box in {key}.teacher.answer_pattern"
    return f"{key}: the verifier accepted none of {total} teacher rollouts ({reasons}); {remedy}"
