"""Evaluate one policy on one benchmark: held-out problems, fixed protocol, every sample kept.

Before it samples, it checks that no benchmark prompt is among the prompts that any stage of
the policy's lineage trained on.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from reasoning_lab.data.corpus import read_prompt_ids, write_rollouts
from reasoning_lab.data.problems import ProblemSource
from reasoning_lab.engine.rollouts import sampling_of
from reasoning_lab.evaluate.completions import COMPLETIONS
from reasoning_lab.evaluate.config import EvaluateConfig
from reasoning_lab.evaluate.statistics import pass_at_1
from reasoning_lab.schema import BenchmarkConfig
from reasoning_lab.stages.base import Metrics, StageContext
from reasoning_lab.types import Problem, RolloutGroup, Split, UserError, Verdict


def benchmark_problems(
    source: ProblemSource, config: BenchmarkConfig, name: str, lineage: Sequence[Path]
) -> list[Problem]:
    """The benchmark's problems, once it is sure that none was trained on.

    Args:
        source: Draws them from its test split.
        config: How many, at which levels.
        name: The benchmark's, for the error.
        lineage: Artifact folders of every stage that the policy comes from.

    Raises:
        UserError: When a prompt was trained on; it names the stage's artifact.
    """
    problems = list(source.problems(Split(config.split), config.levels, config.count, config.seed))
    ids = {problem.id for problem in problems}
    for folder in lineage:
        shared = ids & read_prompt_ids(folder)
        if shared:
            raise UserError(
                f"benchmarks.{name}: {len(shared)} of its {len(ids)} prompts were trained on in "
                f"'{folder}'; take them out of the stage's data"
            )
    return problems


def run(config: EvaluateConfig, context: StageContext) -> Metrics:
    """Sample, verify, write `completions.parquet`."""
    name, benchmark = config.name, config.benchmark
    held_out = benchmark_problems(context.source, benchmark, name, context.lineage)
    problems = list(context.verifier.with_readable_golds(held_out))
    policy, tokenizer = context.load_policy()
    sampler = context.sampler(policy, tokenizer)
    groups = sampler.kept_groups(
        problems,
        benchmark.samples,
        sampling_of(benchmark.sampling),
        f"{context.seed}/evaluate/{name}",
        context.work_dir / "rollouts",
    )
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    write_rollouts(context.out_dir / COMPLETIONS, rollouts)
    estimate = pass_at_1(correct_samples(groups))
    verdicts = Counter(rollout.verdict for rollout in rollouts)
    metrics: Metrics = {
        "pass@1": estimate.mean,
        "ci95": [estimate.low, estimate.high],
        "n": len(problems),
        "samples": benchmark.samples,
        "completion_tokens": float(np.mean([len(r.completion.token_ids) for r in rollouts])),
        "truncated_frac": float(np.mean([r.completion.truncated for r in rollouts])),
        **{f"{verdict}_frac": verdicts[verdict] / len(rollouts) for verdict in Verdict},
        "families": family_means(groups),
    }
    numbers = {key: value for key, value in metrics.items() if isinstance(value, int | float)}
    context.tracker.log({f"eval/{name}/{key}": value for key, value in numbers.items()})
    context.tracker.rollouts(f"eval/{name}/completions", rollouts[:64])
    return metrics


def correct_samples(groups: Sequence[RolloutGroup]) -> list[list[bool]]:
    """`[P][S]`, True = correct."""
    return [[rollout.correct for rollout in group.rollouts] for group in groups]


def family_means(groups: Sequence[RolloutGroup]) -> Mapping[str, float]:
    """Mean pass rate of each problem family."""
    rates: dict[str, list[float]] = {}
    for group in groups:
        rates.setdefault(group.problem.family, []).append(group.pass_rate)
    return {family: float(np.mean(rates[family])) for family in sorted(rates)}
