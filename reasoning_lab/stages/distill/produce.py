"""Rejection sampling: several worked solutions a problem, each verified (paper, step 1).

Accepted and rejected rollouts are kept apart, with verdict and author: the accepted train
mid-training and SFT, the rejected can serve Rollout DPO. Validation problems are worked and
verified the same way; no training stage reads them.
"""

from collections import Counter
from collections.abc import Sequence

from rich.progress import track

from reasoning_lab.data.corpus import write_prompt_ids, write_rollouts
from reasoning_lab.data.shards import in_shards
from reasoning_lab.data.teacher import Teacher
from reasoning_lab.stages.base import Metrics, StageContext
from reasoning_lab.stages.distill.config import DistillConfig
from reasoning_lab.targets import factory
from reasoning_lab.types import Completion, Problem, Rollout, Split, UserError, Verdict

_SHARD_PROBLEMS = 1024


def run(config: DistillConfig, context: StageContext) -> Metrics:
    """Write `accepted.parquet`, `rejected.parquet` and `validation.parquet`."""
    teacher: Teacher = factory(config.teacher, f"stages.{context.name}.teacher")()
    levels = config.problems.levels
    problems = context.source.problems(Split.TRAIN, levels, config.problems.count, context.seed)
    validation = context.source.problems(Split.VALIDATION, levels, config.validation, context.seed)
    rollouts = _work(teacher, problems, config.rollouts, context, "train")
    accepted = [rollout for rollout in rollouts if rollout.correct]
    rejected = [rollout for rollout in rollouts if not rollout.correct]
    if not accepted:
        raise UserError(
            f"stages.{context.name}: the verifier accepted none of {len(rollouts)} teacher "
            "rollouts; look at rejected ones, or lower the teacher's unnoticed_slip_rate"
        )
    write_rollouts(context.out_dir / "accepted.parquet", accepted)
    write_rollouts(context.out_dir / "rejected.parquet", rejected)
    worked = _work(teacher, validation, 1, context, "validation")
    held = [rollout for rollout in worked if rollout.correct]
    write_rollouts(context.out_dir / "validation.parquet", held)
    write_prompt_ids(context.out_dir, problems)
    verdicts = Counter(rollout.verdict for rollout in rollouts)
    metrics = {
        "rollouts": len(rollouts),
        "accepted_frac": len(accepted) / len(rollouts),
        **{f"verdict/{verdict}": verdicts[verdict] for verdict in Verdict},
    }
    context.tracker.log({f"distill/{key}": value for key, value in metrics.items()})
    context.tracker.rollouts("distill/rollouts", [*accepted[:16], *rejected[:16]])
    return metrics


def _work(
    teacher: Teacher,
    problems: Sequence[Problem],
    samples: int,
    context: StageContext,
    folder: str,
) -> list[Rollout]:
    def make(start: int, stop: int) -> list[Rollout]:
        pairs = [
            (problem, text)
            for problem in problems[start:stop]
            for text in teacher.rollouts(problem, samples, context.seed)
        ]
        asked, texts = zip(*pairs, strict=True)
        verdicts = context.verifier.verify(asked, texts)
        return [
            Rollout(problem, Completion([], text), answer, verdict, teacher.name)
            for (problem, text), (answer, verdict) in zip(pairs, verdicts, strict=True)
        ]

    shards = in_shards(context.work_dir / folder, len(problems), _SHARD_PROBLEMS, make)
    total = -(-len(problems) // _SHARD_PROBLEMS)
    label = f"{context.name}: {teacher.name} teacher"
    return [rollout for shard in track(shards, label, total, transient=True) for rollout in shard]
