"""Evaluate one policy on one benchmark: held-out problems, fixed protocol, every sample kept.

Before it samples, it checks that no benchmark prompt is among the prompts that any stage of
the policy's lineage trained on.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import astuple
from pathlib import Path

import numpy as np

from reasoning_lab.config.benchmark import BenchmarkConfig
from reasoning_lab.data.corpus import read_prompt_ids, write_rollouts
from reasoning_lab.data.sources.problem_source import ProblemSource, draw_benchmark
from reasoning_lab.data.sources.unreadable import ReadableGoldFilter, UnreadablePolicy
from reasoning_lab.evaluate.completion_metrics import completion_metrics, metric_means
from reasoning_lab.evaluate.completions import Evaluation
from reasoning_lab.evaluate.stage import EvaluateStage
from reasoning_lab.evaluate.statistics import majority, pass_at_1, pass_at_k
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.stage import Metrics
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.sampling.rollouts import RolloutSampler, sampling_from_config
from reasoning_lab.training.context import StageContext
from reasoning_lab.types import Problem, Rollout, RolloutGroup, UserError, Verdict
from reasoning_lab.verify import verifier_version


def benchmark_problems(
    source: ProblemSource, config: BenchmarkConfig, name: str, lineage: Sequence[Path]
) -> list[Problem]:
    """The benchmark's problems, once it is sure that none was trained on.

    `lineage` are the artifact folders of every stage that the policy comes from.

    Raises:
        UserError: When a prompt was trained on; it names the stage's artifact.
    """
    problems = list(draw_benchmark(source, config))
    ids = {problem.id for problem in problems}
    for folder in lineage:
        shared = ids & read_prompt_ids(folder)
        if shared:
            raise UserError(
                f"benchmarks.{name}: {len(shared)} of its {len(ids)} prompts were trained on in "
                f"'{folder}'; take them out of the stage's data"
            )
    return problems


def run(config: EvaluateStage, context: StageContext, policy: Policy) -> Metrics:
    """Sample, verify, write every completion."""
    name, benchmark = config.benchmark_name, config.benchmark
    source = context.benchmark_source(name)
    held_out = benchmark_problems(source, benchmark, name, _lineage(policy, context))
    unreadable = UnreadablePolicy(
        benchmark.unreadable, benchmark.max_unreadable_frac, f"benchmarks.{name}"
    )
    source.record_rows(context.ledger)
    golds = ReadableGoldFilter(context.verifier, context.ledger, lambda _: unreadable)
    problems = list(golds.filter(held_out))
    context.ledger.require_passed(
        "problems", f"benchmarks.{name}", "correct its golds or its checker"
    )
    with closing(_sampler(config, context, policy)) as sampler:
        groups = list(
            sampler.resumable_groups(
                problems,
                benchmark.samples,
                sampling_from_config(benchmark.sampling),
                f"{context.seed}/evaluate/{name}",
                context.work_dir / "rollouts",
            )
        )
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    _count(rollouts, context.ledger)
    write_rollouts(Evaluation(context.out_dir).completions_file, rollouts)
    functions = completion_metrics(
        benchmark.metrics, benchmark.sampling.max_new_tokens, f"benchmarks.{name}.metrics"
    )
    further = metric_means(functions, groups)
    metrics = {
        **measured(groups),
        **further,
        "unreadable_golds": len(golds.dropped),
        "verifier": verifier_version(),
        "problems": digest(problems),
    }
    numbers = {key: value for key, value in metrics.items() if isinstance(value, int | float)}
    numbers |= {key: value[0] for key, value in further.items() if value is not None}
    context.tracker.log({f"eval/{name}/{key}": value for key, value in numbers.items()})
    context.tracker.log_rollouts(f"eval/{name}/completions", rollouts[:64])
    return metrics


def _count(rollouts: Sequence[Rollout], ledger: Ledger) -> None:
    """Count the completions; one that a server did not give counts as wrong in every metric."""
    ledger.take("completions", len(rollouts))
    empty = [rollout.problem.origin for rollout in rollouts if not rollout.completion.answered]
    ledger.drop("completions", "not_answered", len(empty), origins=empty)


def _sampler(config: EvaluateStage, context: StageContext, policy: Policy) -> RolloutSampler:
    instruction = config.benchmark.instruction
    if config.engine is not None:
        return context.engine_sampler(policy, config.engine, instruction)
    return context.sampler(*context.load_policy(policy), instruction)


def _lineage(policy: Policy, context: StageContext) -> list[Path]:
    """Artifact folders of all whose problems reached the policy, or the base it comes from."""
    base = [] if context.model.path is None else Policy(Path(context.model.path)).ancestors()
    return list(dict.fromkeys(record.path for record in [*policy.ancestors(), *base]))


def measured(groups: Sequence[RolloutGroup]) -> Metrics:
    """What a benchmark's verified completions say.

    pass@1 with its interval; pass@k over all samples, and maj@k over the first k of them, for
    k = 2, 4, … and all, each with its interval; pass@1 of each sample alone, likewise (a run, where
    the protocol speaks of runs);
    fractions of the verdicts and of what was cut off; lengths in tokens of right and of wrong
    completions, null where there is none or the engine gives no tokens; the mean of each family.

    Args:
        groups: One a problem, equally large.
    """
    correct = correct_samples(groups)
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    verdicts = Counter(rollout.verdict for rollout in rollouts)
    estimate = pass_at_1(correct)
    runs = [pass_at_1(run[:, None]) for run in np.asarray(correct).T]
    metrics: Metrics = {
        "pass@1": estimate.mean,
        "ci95": [estimate.low, estimate.high],
        "n": estimate.n,
        "samples": estimate.samples,
        "by_sample": [run.mean for run in runs],
        "by_sample_ci95": [[run.low, run.high] for run in runs],
    }
    doublings = [2**power for power in range(1, estimate.samples.bit_length())]
    for k in sorted({*doublings, estimate.samples} - {1}):
        metrics[f"pass@{k}"] = [*astuple(pass_at_k(correct, k))[:3]]
        votes = [[_vote(rollout) for rollout in group.rollouts[:k]] for group in groups]
        metrics[f"maj@{k}"] = [*astuple(majority(votes, [row[:k] for row in correct]))[:3]]
    return {
        **metrics,
        "completion_tokens": _mean_tokens(rollouts),
        "correct_tokens": _mean_tokens([r for r in rollouts if r.correct]),
        "wrong_tokens": _mean_tokens([r for r in rollouts if not r.correct]),
        "truncated_frac": float(np.mean([r.completion.truncated for r in rollouts])),
        **{f"{verdict}_frac": verdicts[verdict] / len(rollouts) for verdict in Verdict},
        "families": family_means(groups),
    }


def digest(problems: Sequence[Problem]) -> str:
    """sha256 over prompts and golds in the order of the prompts' ids: what was really asked."""
    content = sorted((problem.id, problem.prompt, problem.gold) for problem in problems)
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _vote(rollout: Rollout) -> str | None:
    """What the completion answers; None where it cannot be read, which is no vote."""
    return rollout.answer if rollout.verdict in (Verdict.CORRECT, Verdict.WRONG) else None


def _mean_tokens(rollouts: Sequence[Rollout]) -> float | None:
    lengths = [len(rollout.completion.token_ids) for rollout in rollouts]
    return float(np.mean(lengths)) if any(lengths) else None


def correct_samples(groups: Sequence[RolloutGroup]) -> list[list[bool]]:
    """`[P][S]`, True = correct."""
    return [[rollout.correct for rollout in group.rollouts] for group in groups]


def family_means(groups: Sequence[RolloutGroup]) -> Mapping[str, float]:
    """Mean pass rate of each problem family."""
    rates: dict[str, list[float]] = {}
    for group in groups:
        rates.setdefault(group.problem.family, []).append(group.pass_rate)
    return {family: float(np.mean(rates[family])) for family in sorted(rates)}
