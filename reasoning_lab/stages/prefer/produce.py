"""Preference pairs from verified rollouts: chosen is correct, rejected is not (paper, step 3).

`from_policy` samples the policy that DPO will train; `from_corpus` reuses the rollouts that
rejection sampling threw away, as the paper does. Both write `chosen.parquet` and
`rejected.parquet`, row i of one against row i of the other.
"""

from collections import Counter
from collections.abc import Sequence

from reasoning_lab.data.corpus import read_rollouts, write_prompt_ids, write_rollouts
from reasoning_lab.data.curation import group_by_problem, preference_pairs
from reasoning_lab.engine.rollouts import sampling_of
from reasoning_lab.stages.base import Metrics, StageContext
from reasoning_lab.stages.prefer.config import PreferConfig, PreferTeacherConfig
from reasoning_lab.types import RolloutGroup, Split, UserError, Verdict


def from_policy(config: PreferConfig, context: StageContext) -> Metrics:
    """Pairs of the policy's own rollouts."""
    policy, tokenizer = context.load_policy()
    problems = context.problems(Split.TRAIN, config.problems)
    sampler = context.sampler(policy, tokenizer)
    groups = sampler.kept_groups(
        problems,
        config.group_size,
        sampling_of(config.sampling),
        f"{context.seed}/prefer",
        context.work_dir / "rollouts",
    )
    return _write(groups, config, context)


def from_corpus(config: PreferTeacherConfig, context: StageContext) -> Metrics:
    """Pairs of the teacher's accepted and rejected rollouts."""
    corpus = context.inputs["corpus"]
    rollouts = [
        *read_rollouts(corpus / "accepted.parquet"),
        *read_rollouts(corpus / "rejected.parquet"),
    ]
    return _write(group_by_problem(rollouts), config, context)


def _write(
    groups: Sequence[RolloutGroup],
    config: PreferConfig | PreferTeacherConfig,
    context: StageContext,
) -> Metrics:
    pairs = preference_pairs(groups, config.pairs_per_problem, context.seed, config.pairing)
    if not pairs:
        raise UserError(
            f"stages.{context.name}: none of {len(groups)} problems has both a correct and an "
            "incorrect rollout; choose harder or easier problems, or sample more"
        )
    write_rollouts(context.out_dir / "chosen.parquet", [pair.chosen for pair in pairs])
    write_rollouts(context.out_dir / "rejected.parquet", [pair.rejected for pair in pairs])
    write_prompt_ids(context.out_dir, [group.problem for group in groups])
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    verdicts = Counter(rollout.verdict for rollout in rollouts)
    metrics = {
        "pairs": len(pairs),
        "rollouts": len(rollouts),
        **{f"verdict/{verdict}": verdicts[verdict] for verdict in Verdict},
    }
    context.tracker.log({f"prefer/{key}": value for key, value in metrics.items()})
    sample = [rollout for pair in pairs[:16] for rollout in (pair.chosen, pair.rejected)]
    context.tracker.rollouts("prefer/pairs", sample)
    return metrics
