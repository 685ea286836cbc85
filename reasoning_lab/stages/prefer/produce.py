"""Preference pairs from verified rollouts: chosen is correct, rejected is not (paper, step 3).

`from_policy` samples the policy that DPO will train. `from_corpus` reuses the rollouts that
rejection sampling rejected, as the paper does. `from_both` pairs rollouts of both authors. All
write `Preferences`: row i of both sides is one pair, and each pair's authors, lengths and verifier
are written beside them.
"""

import json
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from reasoning_lab.data.artifacts import Corpus, Preferences
from reasoning_lab.data.corpus import write_prompt_ids, write_rollouts
from reasoning_lab.data.curation.selection import group_by_problem, preference_pairs
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.stage import Metrics
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.sampling.rollouts import sampling_from_config
from reasoning_lab.stages.prefer.stage import PreferMixedStage, PreferStage, PreferTeacherStage
from reasoning_lab.training.context import StageContext
from reasoning_lab.types import PreferencePair, Problem, RolloutGroup, Split, UserError, Verdict
from reasoning_lab.verify import verifier_version


def from_policy(config: PreferStage, context: StageContext, policy: Policy) -> Metrics:
    """Pairs of the policy's own rollouts."""
    problems = context.problems(Split.TRAIN, config.problems)
    return _write(_policy_groups(policy, problems, config, context), config, context)


def from_corpus(config: PreferTeacherStage, context: StageContext, corpus: Corpus) -> Metrics:
    """Pairs of the teacher's accepted and rejected rollouts."""
    return _write(_teacher_groups(corpus), config, context)


def from_both(
    config: PreferMixedStage, context: StageContext, policy: Policy, corpus: Corpus
) -> Metrics:
    """Pairs of the policy's rollouts and the teacher's of the same problems."""
    teacher_groups = _selected_teacher_groups(corpus, config, context)
    problems = [group.problem for group in teacher_groups]
    policy_groups = _policy_groups(policy, problems, config, context)
    groups = []
    for by_teacher, by_policy in zip(teacher_groups, policy_groups, strict=True):
        rollouts = [
            rollout
            for author, group in (("policy", by_policy), ("teacher", by_teacher))
            for rollout in group.rollouts
            if (config.chosen_from if rollout.correct else config.rejected_from) in ("any", author)
        ]
        unused = len(by_policy.rollouts) + len(by_teacher.rollouts) - len(rollouts)
        context.ledger.take("rollouts", unused)
        context.ledger.drop("rollouts", "other_author", unused, selected=True)
        groups.append(RolloutGroup(by_teacher.problem, rollouts))
    return _write(groups, config, context)


def _policy_groups(
    policy: Policy, problems: Sequence[Problem], config: PreferStage, context: StageContext
) -> list[RolloutGroup]:
    """Rollouts that the policy samples, one group a problem."""
    sampler = context.sampler(*context.load_policy(policy))
    return sampler.resumable_groups(
        problems,
        config.group_size,
        sampling_from_config(config.sampling),
        f"{context.seed}/prefer",
        context.work_dir / "rollouts",
    )


def _selected_teacher_groups(
    corpus: Corpus, config: PreferMixedStage, context: StageContext
) -> list[RolloutGroup]:
    """The teacher's rollouts of `config.problems.count` random problems of the corpus."""
    selection = config.problems
    all_groups = _teacher_groups(corpus)
    groups = [group for group in all_groups if group.problem.level in selection.levels]
    context.ledger.take("problems", len(all_groups))
    context.ledger.drop("problems", "other_level", len(all_groups) - len(groups), selected=True)
    if len(groups) < selection.count:
        raise UserError(
            f"stages.{context.name}.problems: the corpus has {len(groups)} problems at levels "
            f"{list(selection.levels)} and {selection.count} were asked for; ask for fewer, or "
            "distill more"
        )
    context.ledger.drop("problems", "beyond_count", len(groups) - selection.count, selected=True)
    return random.Random(f"{context.seed}/prefer").sample(groups, selection.count)


def _teacher_groups(corpus: Corpus) -> list[RolloutGroup]:
    """The teacher's accepted and rejected rollouts, by problem."""
    return group_by_problem([*corpus.accepted(), *corpus.rejected()])


def _write(
    groups: Sequence[RolloutGroup], config: PreferStage | PreferTeacherStage, context: StageContext
) -> Metrics:
    pairs = preference_pairs(groups, config.pairs_per_problem, context.seed, config.pairing)
    _count(groups, len(pairs), context.ledger)
    if not pairs:
        raise UserError(
            f"stages.{context.name}: none of {len(groups)} problems has both a correct and an "
            "incorrect rollout; choose harder or easier problems, or sample more"
        )
    preferences = Preferences(context.out_dir)
    write_rollouts(preferences.chosen_file, [pair.chosen for pair in pairs])
    write_rollouts(preferences.rejected_file, [pair.rejected for pair in pairs])
    with preferences.pairs_file.open("w") as stream:
        stream.writelines(json.dumps(_provenance(pair)) + "\n" for pair in pairs)
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
    context.tracker.log_rollouts("prefer/pairs", sample)
    return metrics


def _count(groups: Sequence[RolloutGroup], pairs: int, ledger: Ledger) -> None:
    """Count the groups that give no pair, and the rollouts that are in none."""
    rollouts, without_counterpart = 0, 0
    for group in groups:
        rollouts += len(group.rollouts)
        ledger.take("groups")
        correct = sum(rollout.correct for rollout in group.rollouts)
        if not 0 < correct < len(group.rollouts):
            ledger.drop("groups", "no_wrong_rollout" if correct else "no_correct_rollout")
            without_counterpart += len(group.rollouts)
    ledger.take("rollouts", rollouts)
    ledger.drop("rollouts", "no_counterpart", without_counterpart, selected=True)
    unpaired = rollouts - without_counterpart - 2 * pairs
    ledger.drop("rollouts", "beyond_pairs_per_problem", unpaired, selected=True)


def _provenance(pair: PreferencePair) -> dict[str, Any]:
    problem = pair.chosen.problem
    provenance: dict[str, Any] = {"prompt_id": problem.id}
    for side, rollout in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        provenance |= {
            f"{side}_author": rollout.author,
            f"{side}_verdict": str(rollout.verdict),
            f"{side}_judge": rollout.judge,
            f"{side}_characters": len(rollout.completion.text),
            f"{side}_tokens": len(rollout.completion.token_ids) or None,
        }
    return provenance | {"checker": problem.checker, "verifier": verifier_version()}
