"""Preference pairs from verified rollouts: chosen is correct, rejected is not (paper, step 3).

`from_policy` samples the policy that DPO will train. `from_corpus` reuses the rollouts that
rejection sampling rejected, as the paper does. `from_both` pairs rollouts of both authors. All
write `Preferences`: row i of both sides is one pair, and each pair's authors, lengths and verifier
are written beside them.
"""

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import Int

from reasoning_lab.config.problems import in_words
from reasoning_lab.data.artifacts import Corpus, Preferences
from reasoning_lab.data.corpus import RolloutWriter
from reasoning_lab.data.curation.selection import at_levels, preference_pairs
from reasoning_lab.data.problem_file import ProblemFile
from reasoning_lab.data.rollout_groups import RolloutGroups
from reasoning_lab.data.trained_prompts import TrainedPromptsBuilder
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.stage import Metrics
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.sampling.config import VLLMEngineConfig
from reasoning_lab.sampling.rollouts import RolloutSampler, sampling_from_config
from reasoning_lab.stages.prefer.stage import PreferMixedStage, PreferStage, PreferTeacherStage
from reasoning_lab.training.completion_limit import completion_limit
from reasoning_lab.training.context import StageContext
from reasoning_lab.types import (
    PreferencePair,
    Problem,
    Rollout,
    RolloutGroup,
    Split,
    UserError,
    Verdict,
)
from reasoning_lab.verify import verifier_version

_BATCH_PAIRS = 1024
_LOGGED_ROLLOUTS = 32


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
    groups = _teacher_groups(corpus)
    chosen = _selected_problems(groups, config, context)
    problems = ProblemFile((group.problem for group in groups.select(chosen)), context.work_dir)
    takes = {True: config.chosen_from, False: config.rejected_from}

    def of_both() -> Iterator[RolloutGroup]:
        policy_groups = _policy_groups(policy, problems, config, context)
        for by_teacher, by_policy in zip(groups.select(chosen), policy_groups, strict=True):
            rollouts = [
                rollout
                for author, group in (("policy", by_policy), ("teacher", by_teacher))
                for rollout in group.rollouts
                if takes[rollout.correct] in ("any", author)
            ]
            unused = len(by_policy.rollouts) + len(by_teacher.rollouts) - len(rollouts)
            context.ledger.take("rollouts", unused)
            context.ledger.drop("rollouts", "other_author", unused, selected=True)
            yield RolloutGroup(by_teacher.problem, rollouts)

    return _write(of_both(), config, context)


def _policy_groups(
    policy: Policy, problems: Sequence[Problem], config: PreferStage, context: StageContext
) -> Iterator[RolloutGroup]:
    """Rollouts that the policy samples, one group a problem."""
    key = f"stages.{context.name}.sampling.max_new_tokens"
    tokens = completion_limit(config.sampling.max_new_tokens, policy, key)
    with closing(_sampler(policy, config, context)) as sampler:
        yield from sampler.resumable_groups(
            problems,
            config.group_size,
            sampling_from_config(replace(config.sampling, max_new_tokens=tokens)),
            f"{context.seed}/prefer",
            context.work_dir / "rollouts",
        )


def _sampler(policy: Policy, config: PreferStage, context: StageContext) -> RolloutSampler:
    if config.rollout_engine == "vllm":
        engine = VLLMEngineConfig(system_prompt=context.model.system_prompt)
        return context.engine_sampler(policy, engine, "")
    return context.sampler(*context.load_policy(policy))


def _selected_problems(
    groups: RolloutGroups, config: PreferMixedStage, context: StageContext
) -> Int[np.ndarray, " K"]:
    """Which problems of the corpus have pairs: `config.problems.count` random ones, in order."""
    selection = config.problems
    eligible = np.flatnonzero(at_levels(groups.levels, selection.levels))
    count = len(eligible) if selection.known_count is None else selection.known_count
    context.ledger.take("problems", len(groups))
    context.ledger.drop("problems", "other_level", len(groups) - len(eligible), selected=True)
    if len(eligible) < max(count, 1):
        raise UserError(
            f"stages.{context.name}.problems: the corpus has {len(eligible)} problems at "
            f"{in_words(selection.levels)} and {selection.count} were asked for; ask for fewer, "
            "or distill more"
        )
    context.ledger.drop("problems", "beyond_count", len(eligible) - count, selected=True)
    drawn = random.Random(f"{context.seed}/prefer").sample(range(len(eligible)), count)
    chosen: Int[np.ndarray, " K"] = eligible[np.sort(drawn)]
    return chosen


def _teacher_groups(corpus: Corpus) -> RolloutGroups:
    """The teacher's accepted and rejected rollouts, by problem."""
    return RolloutGroups([corpus.accepted(), corpus.rejected()])


def _write(
    groups: Iterable[RolloutGroup], config: PreferStage | PreferTeacherStage, context: StageContext
) -> Metrics:
    preferences, verdicts = Preferences(context.out_dir), Counter[Verdict]()
    prompts = TrainedPromptsBuilder()
    logged: list[Rollout] = []

    def pairs() -> Iterator[PreferencePair]:
        for group in groups:
            of_problem = preference_pairs(
                [group], config.pairs_per_problem, context.seed, config.pairing
            )
            _count(group, len(of_problem), context.ledger)
            prompts.add(group.problem)
            verdicts.update(rollout.verdict for rollout in group.rollouts)
            yield from of_problem

    remaining = pairs()
    with (
        RolloutWriter(preferences.chosen_file) as chosen,
        RolloutWriter(preferences.rejected_file) as rejected,
        preferences.pairs_file.open("w") as provenance,
    ):
        while batch := list(islice(remaining, _BATCH_PAIRS)):
            chosen.write([pair.chosen for pair in batch])
            rejected.write([pair.rejected for pair in batch])
            provenance.writelines(json.dumps(_provenance(pair)) + "\n" for pair in batch)
            both = [rollout for pair in batch for rollout in (pair.chosen, pair.rejected)]
            logged += both[: _LOGGED_ROLLOUTS - len(logged)]
    if not chosen.rows:
        raise UserError(
            f"stages.{context.name}: none of {prompts.added} problems has both a correct and an "
            "incorrect rollout; choose harder or easier problems, sample more, or leave out this "
            "stage and the one that trains on its pairs"
        )
    prompts.build().write(context.out_dir)
    metrics = {
        "pairs": chosen.rows,
        "rollouts": verdicts.total(),
        **{f"verdict/{verdict}": verdicts[verdict] for verdict in Verdict},
    }
    context.tracker.log({f"prefer/{key}": value for key, value in metrics.items()})
    context.tracker.log_rollouts("prefer/pairs", logged)
    return metrics


def _count(group: RolloutGroup, pairs: int, ledger: Ledger) -> None:
    """Count the group if it gives no pair, and its rollouts that are in none."""
    rollouts = len(group.rollouts)
    correct = sum(rollout.correct for rollout in group.rollouts)
    ledger.take("groups")
    ledger.take("rollouts", rollouts)
    if 0 < correct < rollouts:
        unpaired = rollouts - 2 * pairs
        ledger.drop("rollouts", "beyond_pairs_per_problem", unpaired, selected=True)
    else:
        ledger.drop("groups", "no_wrong_rollout" if correct else "no_correct_rollout")
        ledger.drop("rollouts", "no_counterpart", rollouts, selected=True)


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
