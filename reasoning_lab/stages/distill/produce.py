"""Rejection sampling: several worked solutions a problem, each verified (paper, step 1).

Accepted and rejected rollouts go to separate files, with verdict and author. Mid-training and SFT
train on the accepted ones; Rollout DPO can use the rejected ones. A truncated completion has no
final answer, so it is rejected without being verified, unless `truncated: keep`. Validation
problems are solved and verified the same way; no training stage reads them.

Only one shard of problems is in memory at a time, beside the ids and lengths of all of them.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial

from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.data.card import CorpusSummary, data_card
from reasoning_lab.data.corpus import RolloutWriter
from reasoning_lab.data.curation.selection import group_by_problem
from reasoning_lab.data.shards import sample_in_shards
from reasoning_lab.data.sources.mixture import weighted
from reasoning_lab.data.sources.problem_source import number_of
from reasoning_lab.data.sources.streams import stream_of
from reasoning_lab.data.sources.unreadable import UNREADABLE_GOLD
from reasoning_lab.data.teachers.teacher import ObservingTeacher, SolutionWriter, Teacher
from reasoning_lab.data.trained_prompts import TrainedPrompts
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.stage import Metrics
from reasoning_lab.models.think_tags import has_open_thought
from reasoning_lab.sampling.config import JudgeFunction, ModelJudgeConfig
from reasoning_lab.stages.distill.stage import DistillStage
from reasoning_lab.training.context import StageContext
from reasoning_lab.types import Problem, Rollout, Split, UserError, Verdict

_LOGGED_ROLLOUTS = 16


def run(config: DistillStage, context: StageContext) -> Metrics:
    """Write the corpus and its data card."""
    teacher: Teacher = config.teacher.build()
    levels, key = config.problems.levels, f"stages.{context.name}"
    stream, stream_key = config.problems.stream, f"{key}.problems"
    source = stream_of(context.source, stream, stream_key)
    count = number_of(source, Split.TRAIN, levels, config.problems.count, f"{key}.problems.count")
    validation_count = number_of(
        source, Split.VALIDATION, levels, config.validation, f"{key}.validation"
    )
    drawable = weighted(context.source, config.problems.weights, stream, stream_key)
    observe = teacher.observe if isinstance(teacher, ObservingTeacher) else iter

    def train_problems() -> Iterator[Problem]:
        return drawable.problems(Split.TRAIN, levels, count, context.seed)

    # The first pass reports mistakes in the data before the teacher starts.
    readable = context.readable_golds()
    observed = readable.filter(observe(train_problems()))
    TrainedPrompts.of(observed).write(context.out_dir)
    validation_problems = list(
        readable.filter(
            observe(drawable.problems(Split.VALIDATION, levels, validation_count, context.seed)),
            "validation_problems",
        )
    )
    with teacher.open(context.hardware) as write_solutions, _open_judge(config, context) as judge:
        make_rollouts = partial(
            _make_rollouts, config, context, teacher.name, write_solutions, judge
        )
        problems = readable.without_dropped(train_problems())
        write_rollouts = partial(make_rollouts, config.rollouts)
        metrics = _distill(problems, count, write_rollouts, config, context)
        validation = make_rollouts(1, validation_problems)
    _drop_rejected("validation_problems", validation, context.ledger)
    unanswered = len(validation_problems) - len(validation)
    context.ledger.drop("validation_problems", "no_rollout", unanswered)
    with RolloutWriter(Corpus(context.out_dir).validation_file) as writer:
        writer.write([rollout for rollout in validation if rollout.correct])
    return metrics


def _count(rollouts: Sequence[Rollout], ledger: Ledger) -> None:
    """Count all rollouts of some problems, and the problems without an accepted one."""
    ledger.take("rollouts", len(rollouts))
    _drop_rejected("rollouts", rollouts, ledger)
    accepted = {rollout.problem.id for rollout in rollouts if rollout.correct}
    answered = {rollout.problem.id for rollout in rollouts}
    ledger.drop("problems", "no_accepted_rollout", len(answered - accepted))


def _drop_rejected(unit: str, rollouts: Sequence[Rollout], ledger: Ledger) -> None:
    """Count why rollouts are rejected; wrong answers never warn, as the stage is to reject them."""
    reasons = Counter(_reason(rollout) for rollout in rollouts if not rollout.correct)
    for reason, count in reasons.items():
        ledger.drop(unit, reason, count, selected=reason == str(Verdict.WRONG))


def _reason(rollout: Rollout) -> str:
    """Why a rollout is rejected."""
    if rollout.completion.truncated:
        return "cut_off"
    return str(rollout.verdict) if rollout.completion.answered else "not_answered"


def _open_judge(
    config: DistillStage, context: StageContext
) -> AbstractContextManager[JudgeFunction]:
    """The configured judge, or one that leaves every verdict as it is."""
    if config.judge is None:
        return nullcontext(_keep_verdicts)
    judge: ModelJudgeConfig = config.judge.build()
    return judge.open(context.hardware)


def _keep_verdicts(rollouts: Sequence[Rollout]) -> list[Rollout]:
    return list(rollouts)


def _make_rollouts(
    config: DistillStage,
    context: StageContext,
    author: str,
    write_solutions: SolutionWriter,
    judge: JudgeFunction,
    samples: int,
    problems: Sequence[Problem],
) -> list[Rollout]:
    """Solve problems, and verify and judge the solutions."""
    rollouts = [
        Rollout(
            _without_solutions(problem),
            replace(
                completion, truncated=completion.truncated or has_open_thought(completion.text)
            ),
            None,
            Verdict.UNPARSEABLE,
            author,
        )
        for problem, completions in zip(
            problems, write_solutions(problems, samples, context.seed), strict=True
        )
        for completion in completions
    ]
    rejects_truncated = config.truncated == "reject"
    to_verify = [r for r in rollouts if not (rejects_truncated and r.completion.truncated)]
    judgements = context.verifier.judge(
        [rollout.problem for rollout in to_verify],
        [rollout.completion.text for rollout in to_verify],
    )
    judged = zip(judgements, to_verify, strict=True)
    verified = iter(judge([judgement.applied_to(rollout) for judgement, rollout in judged]))
    return [r if rejects_truncated and r.completion.truncated else next(verified) for r in rollouts]


def _without_solutions(problem: Problem) -> Problem:
    """The problem without a dataset's solutions, which every rollout would repeat."""
    metadata = {key: value for key, value in problem.metadata.items() if key != "solutions"}
    return replace(problem, metadata=metadata)


def _distill(
    problems: Iterator[Problem],
    count: int,
    make_rollouts: Callable[[Sequence[Problem]], list[Rollout]],
    config: DistillStage,
    context: StageContext,
) -> Metrics:
    """Solve `problems`, of which there are `count`, shard by shard, and log the progress."""
    logged: dict[bool, list[Rollout]] = {True: [], False: []}
    summary = CorpusSummary()
    verdicts = summary.verdicts
    solved_now = 0

    def solve(shard: Sequence[Problem]) -> list[Rollout]:
        nonlocal solved_now
        solved_now = len(shard)
        return _with_levels(make_rollouts(shard), config.level_pass_rates)

    def accepted_frac() -> float:
        return accepted.rows / max(1, verdicts.total())

    with (
        RolloutWriter(Corpus(context.out_dir).accepted_file) as accepted,
        RolloutWriter(Corpus(context.out_dir).rejected_file) as rejected,
        context.progress.task(
            "problem", count, measures=lambda: [f"{accepted_frac():.1%} accepted"]
        ) as task,
    ):
        started = time.monotonic()
        shards = sample_in_shards(
            context.work_dir / "train", problems, config.shard_problems, solve
        )
        for number, shard in enumerate(shards, start=1):
            for correct, writer in ((True, accepted), (False, rejected)):
                chosen = [rollout for rollout in shard if rollout.correct is correct]
                writer.write(chosen)
                logged[correct] += chosen[: _LOGGED_ROLLOUTS - len(logged[correct])]
            summary.add(shard)
            _count(shard, context.ledger)
            rate = len(shard) / (time.monotonic() - started)
            started = time.monotonic()
            rates = {"rollouts_per_s": rate, "accepted_frac": accepted_frac()}
            context.tracker.log({f"distill/{key}": value for key, value in rates.items()})
            if solved_now:
                tokens = sum(len(rollout.completion.token_ids) for rollout in shard)
                task.advance(solved_now, tokens)
            else:
                task.start(min(number * config.shard_problems, count))
            solved_now = 0
    if not accepted.rows:
        raise UserError(_none_accepted(verdicts.total(), config, context))
    metrics = _finish(summary, accepted.rows, context)
    context.tracker.log_rollouts("distill/rollouts", [*logged[True], *logged[False]])
    return metrics


def _with_levels(rollouts: Sequence[Rollout], pass_rates: Sequence[float] | None) -> list[Rollout]:
    """`rollouts` at the levels that their problems' pass rates have; see `level_pass_rates`."""
    levels = {
        group.problem.id: 1 + sum(group.pass_rate < bound for bound in pass_rates or ())
        for group in group_by_problem(rollouts)
        if pass_rates is not None and len(group.rollouts) > 1
    }

    def at_level(rollout: Rollout) -> Rollout:
        level = levels.get(rollout.problem.id, rollout.problem.level)
        return replace(rollout, problem=replace(rollout.problem, level=level))

    return [at_level(rollout) for rollout in rollouts]


def _finish(summary: CorpusSummary, accepted: int, context: StageContext) -> Metrics:
    """Count the problems without a rollout, and write the card; the metrics."""
    verdicts = summary.verdicts
    flow = context.ledger.flows["problems"]
    unanswered = flow.taken - flow.dropped[UNREADABLE_GOLD] - summary.problems.total()
    context.ledger.drop("problems", "no_rollout", unanswered)
    card = data_card(context.name, context.source.provenance(), summary, context.ledger)
    (context.out_dir / "README.md").write_text(card, encoding="utf-8")
    metrics: Metrics = {
        "rollouts": verdicts.total(),
        "accepted_frac": accepted / verdicts.total(),
        "cut_off": summary.truncated,
        **{f"verdict/{verdict}": verdicts[verdict] for verdict in Verdict},
        **{f"judged/{verdict}": count for verdict, count in summary.judged.items() if count},
    }
    context.tracker.log({f"distill/{key}": value for key, value in metrics.items()})
    return metrics


def _none_accepted(total: int, config: DistillStage, context: StageContext) -> str:
    """One sentence about `total` rollouts of which none was accepted, with the reasons."""
    key = f"stages.{context.name}"
    reasons = context.ledger.reasons("rollouts")
    remedy = "ask easier problems or another teacher"
    if hasattr(config.teacher, "answer_pattern"):
        remedy += f", or describe answers without a box in {key}.teacher.answer_pattern"
    return f"{key}: the verifier accepted none of {total} teacher rollouts ({reasons}); {remedy}"
