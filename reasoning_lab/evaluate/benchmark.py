"""Evaluate one policy on one benchmark: held-out problems, fixed protocol, every sample kept.

Before it samples, it checks that no benchmark prompt is among the prompts that any stage of
the policy's lineage trained on.
"""

import hashlib
import json
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import astuple
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Int

from reasoning_lab.config.benchmark import BenchmarkConfig
from reasoning_lab.data.corpus import RolloutFile, RolloutWriter
from reasoning_lab.data.rollout_groups import RolloutGroups
from reasoning_lab.data.sources.problem_source import ProblemSource, draw_benchmark
from reasoning_lab.data.sources.unreadable import ReadableGoldFilter, UnreadablePolicy
from reasoning_lab.data.trained_prompts import TrainedPrompts, seen_kinds
from reasoning_lab.evaluate.completion_metrics import completion_metrics, metric_means
from reasoning_lab.evaluate.completions import Evaluation
from reasoning_lab.evaluate.stage import EvaluateStage
from reasoning_lab.evaluate.statistics import majority, pass_at_1, pass_at_k
from reasoning_lab.evaluate.token_budgets import budget_means
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.stage import Metrics
from reasoning_lab.models.policy import load_tokenizer
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.sampling.rollouts import RolloutSampler, sampling_from_config
from reasoning_lab.training.context import StageContext
from reasoning_lab.types import Problem, Rollout, RolloutGroup, UserError, Verdict
from reasoning_lab.verify import verifier_version

_BATCH_ROLLOUTS = 1024
_LOGGED_ROLLOUTS = 64


def benchmark_problems(
    source: ProblemSource, config: BenchmarkConfig, name: str, lineage: Sequence[Path]
) -> list[Problem]:
    """The benchmark's problems, once it is sure that none was trained on, nor a twin of one.

    `lineage` are the artifact folders of every stage that the policy comes from.

    Raises:
        UserError: When a prompt, a twin of it, or what else the benchmark's `unseen` says was
            trained on; it names the stage's artifact.
    """
    problems = list(draw_benchmark(source, config))
    held_out = TrainedPrompts.of(problems)
    for folder in lineage:
        trained = TrainedPrompts.read(folder)
        if shared := int(held_out.in_common(trained).sum()):
            raise UserError(
                f"benchmarks.{name}: {shared} of its {len(held_out)} prompts, or twins of them, "
                f"were trained on in '{folder}'; take them out of the stage's data"
            )
        kinds = (held_out.families_and_levels, trained.families_and_levels)
        if seen := seen_kinds(*kinds, config.unseen):
            raise UserError(
                f"benchmarks.{name}.unseen={config.unseen}: '{folder}' trained on {seen}; take "
                "that out of the stage's data, or leave this benchmark out"
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
    completions = Evaluation(context.out_dir).completions()
    logged: list[Rollout] = []
    with closing(_sampler(config, context, policy)) as sampler:
        functions = completion_metrics(
            benchmark.metrics,
            benchmark.sampling.completion_tokens,
            f"benchmarks.{name}.metrics",
            sampler.thought_prefix,
        )
        groups = sampler.resumable_groups(
            problems,
            benchmark.samples,
            sampling_from_config(benchmark.sampling),
            f"{context.seed}/evaluate/{name}",
            context.work_dir / "rollouts",
        )
        batch_groups = max(1, _BATCH_ROLLOUTS // benchmark.samples)
        measures = measured(
            _written(groups, batch_groups, completions.path, logged, context.ledger)
        )
    further = metric_means(functions, RolloutGroups([completions])) if functions else {}
    further |= _within_budgets(config, context, policy, completions, sampler.thought_prefix)
    metrics = {
        **measures,
        **further,
        "unreadable_golds": len(golds.dropped),
        "verifier": verifier_version(),
        "thought_prefix": sampler.thought_prefix,
        "problems": digest(problems),
    }
    context.tracker.log(tracked_metrics(name, metrics, further))
    context.tracker.log_rollouts(f"eval/{name}/completions", logged)
    return metrics


def tracked_metrics(
    name: str, metrics: Metrics, further: Mapping[str, Sequence[float] | None]
) -> dict[str, float]:
    """What a tracker gets of a benchmark's metrics, all under `eval/NAME/`.

    These are the single numbers, the means of the `further` metrics, and pass@1 of each domain
    where the problems are of several.
    """
    numbers = {key: value for key, value in metrics.items() if isinstance(value, int | float)}
    numbers |= {key: value[0] for key, value in further.items() if value is not None}
    domains: dict[str, Metrics] = metrics["domains"]
    if len(domains) > 1:
        numbers |= {f"{domain}/pass@1": value["pass@1"] for domain, value in domains.items()}
    return {f"eval/{name}/{key}": value for key, value in numbers.items()}


def _written(
    groups: Iterator[RolloutGroup],
    batch_groups: int,
    path: Path,
    logged: list[Rollout],
    ledger: Ledger,
) -> Iterator[RolloutGroup]:
    """Pass on `groups` whose completions are written and counted; `logged` gets the first.

    A completion that a server did not give counts as wrong in every metric.
    """
    with RolloutWriter(path) as writer:
        while batch := list(islice(groups, batch_groups)):
            rollouts = [rollout for group in batch for rollout in group.rollouts]
            writer.write(rollouts)
            logged += rollouts[: _LOGGED_ROLLOUTS - len(logged)]
            empty = [one.problem.origin for one in rollouts if not one.completion.answered]
            ledger.take("completions", len(rollouts))
            ledger.drop("completions", "not_answered", len(empty), origins=empty)
            yield from batch


def _sampler(config: EvaluateStage, context: StageContext, policy: Policy) -> RolloutSampler:
    instruction = config.benchmark.instruction
    if config.engine is not None:
        return context.engine_sampler(policy, config.engine, instruction)
    return context.sampler(*context.load_policy(policy), instruction)


def _within_budgets(
    config: EvaluateStage,
    context: StageContext,
    policy: Policy,
    completions: RolloutFile,
    thought_prefix: str,
) -> dict[str, list[float] | None]:
    """pass@1 by token budget; nothing without budgets, or where only a server has the tokenizer."""
    budgets, benchmark = config.benchmark.token_budgets, config.benchmark
    remote = config.engine is not None and config.engine.runtime == "server"
    if not budgets or (remote and not policy.path.is_dir()):
        return {}
    return budget_means(
        budgets,
        benchmark.sampling.completion_tokens,
        RolloutGroups([completions]),
        load_tokenizer(policy.path, policy.revision, "model.path"),
        context.verifier,
        thought_prefix,
    )


def _lineage(policy: Policy, context: StageContext) -> list[Path]:
    """Artifact folders of all whose problems reached the policy, or the base it comes from."""
    base = [] if context.model.path is None else Policy(Path(context.model.path)).ancestors()
    return list(dict.fromkeys(record.path for record in [*policy.ancestors(), *base]))


def measured(groups: Iterable[RolloutGroup]) -> Metrics:
    """What a benchmark's verified completions say.

    pass@1 with its interval; pass@k over all samples, and maj@k over the first k of them, for
    k = 2, 4, … and all, each with its interval; pass@1 of each sample alone, likewise (a run, where
    the protocol speaks of runs);
    fractions of the verdicts and of what was cut off; lengths in tokens of right and of wrong
    completions, null where there is none or the engine gives no tokens; the mean of each family;
    pass@1 of each domain with its interval and its number of problems.

    Args:
        groups: One a problem, equally large; read once.
    """
    correct: list[list[bool]] = []
    votes: list[list[str | None]] = []
    lengths, truncated = array("q"), 0
    verdicts, families = Counter[Verdict](), defaultdict[str, list[float]](list)
    domains = defaultdict[str, list[list[bool]]](list)
    for group in groups:
        correct.append([rollout.correct for rollout in group.rollouts])
        votes.append([_vote(rollout) for rollout in group.rollouts])
        lengths.extend(len(rollout.completion.token_ids) for rollout in group.rollouts)
        truncated += sum(rollout.completion.truncated for rollout in group.rollouts)
        verdicts.update(rollout.verdict for rollout in group.rollouts)
        families[group.problem.family].append(group.pass_rate)
        domains[group.problem.domain].append(correct[-1])
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
        first_votes, first_correct = [row[:k] for row in votes], [row[:k] for row in correct]
        metrics[f"maj@{k}"] = [*astuple(majority(first_votes, first_correct))[:3]]
    tokens, right = np.array(lengths), np.array(correct).ravel()
    return {
        **metrics,
        "completion_tokens": _mean_tokens(tokens),
        "correct_tokens": _mean_tokens(tokens[right]),
        "wrong_tokens": _mean_tokens(tokens[~right]),
        "truncated_frac": truncated / len(tokens),
        **{f"{verdict}_frac": verdicts[verdict] / len(tokens) for verdict in Verdict},
        "families": {family: float(np.mean(families[family])) for family in sorted(families)},
        "domains": {domain: _domain_metrics(domains[domain]) for domain in sorted(domains)},
    }


def _domain_metrics(correct: Sequence[Sequence[bool]]) -> Metrics:
    estimate = pass_at_1(correct)
    return {"pass@1": estimate.mean, "ci95": [estimate.low, estimate.high], "n": estimate.n}


def digest(problems: Sequence[Problem]) -> str:
    """sha256 over prompts and golds in the order of the prompts' ids: what was really asked."""
    content = sorted(
        (problem.id, problem.prompt, problem.gold, *map(astuple, problem.earlier_messages))
        for problem in problems
    )
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _vote(rollout: Rollout) -> str | None:
    """What the completion answers; None where it cannot be read, which is no vote."""
    return rollout.answer if rollout.verdict in (Verdict.CORRECT, Verdict.WRONG) else None


def _mean_tokens(lengths: Int[np.ndarray, " N"]) -> float | None:
    return float(np.mean(lengths)) if lengths.any() else None
