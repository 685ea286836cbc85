"""Paired comparisons of policies and means over seeds: the claims of a report.

Two results are compared only over the very same problems; the seeds that both have are
pooled. p-values are corrected by Holm's method for the number of comparisons that are made
together: all between stages, and all between variants.
"""

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from reasoning_lab.evaluate.statistics import (
    Difference,
    Estimate,
    across_seeds,
    holm,
    over_seeds,
    paired_difference,
    pass_at_1,
)
from reasoning_lab.graph.recipe import NO_ABLATION
from reasoning_lab.report.rows import StageResult
from reasoning_lab.types import UserError

log = logging.getLogger(__name__)

_BySeed = Mapping[int, StageResult]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How much better one policy is than another, over the same problems.

    Attributes:
        benchmark: The set of held-out problems.
        variant: Of the policy in question.
        stage: Of the policy in question.
        baseline_variant: Of the policy that it is compared with.
        baseline: Stage of that policy.
        seeds: The seeds that both have, pooled as further samples of the same problems.
        difference: pass@1 of the policy minus that of the baseline.
        p_corrected: Its p-value, corrected for the comparisons made together with it.
    """

    benchmark: str
    variant: str
    stage: str
    baseline_variant: str
    baseline: str
    seeds: tuple[int, ...]
    difference: Difference
    p_corrected: float

    def as_json(self) -> dict[str, Any]:
        """The comparison under its names in `report.json`."""
        return {
            "benchmark": self.benchmark,
            "variant": self.variant,
            "stage": self.stage,
            "baseline_variant": self.baseline_variant,
            "baseline": self.baseline,
            "seeds": list(self.seeds),
            "n": self.difference.n,
            "difference": self.difference.mean,
            "ci95": [self.difference.low, self.difference.high],
            "p_value": self.difference.p_value,
            "p_corrected": self.p_corrected,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StageMean:
    """One stage on one benchmark over several seeds.

    Attributes:
        variant: As in `Row`.
        benchmark: As in `Row`.
        stage: As in `Row`.
        by_seed: Seed to its own pass@1.
        estimate: Of the seeds together; its interval speaks of new problems.
        seeds_ci95: Of the mean over all seeds that could have been drawn.
    """

    variant: str
    benchmark: str
    stage: str
    by_seed: dict[int, float]
    estimate: Estimate
    seeds_ci95: tuple[float, float]

    def as_json(self) -> dict[str, Any]:
        """The mean under its names in `report.json`."""
        return {
            "variant": self.variant,
            "stage": self.stage,
            "benchmark": self.benchmark,
            "n": self.estimate.n,
            "pass@1": self.estimate.mean,
            "ci95": [self.estimate.low, self.estimate.high],
            "seeds_ci95": list(self.seeds_ci95),
            "by_seed": {str(seed): value for seed, value in self.by_seed.items()},
        }


def stage_means(results: Sequence[StageResult]) -> list[StageMean]:
    """Pool the seeds of each variant, benchmark and stage; empty where none has several.

    Raises:
        UserError: A result is not complete, or seeds differ in problems or samples.
    """
    groups: dict[tuple[str, str, str], list[StageResult]] = {}
    for result in results:
        key = (result.variant, result.benchmark, result.stage)
        groups.setdefault(key, []).append(result)
    means = []
    for (variant, benchmark, stage), own in groups.items():
        if len(own) < 2:
            continue
        if len({frozenset(result.problem_ids) for result in own}) > 1:
            raise UserError(
                f"The seeds of stage '{stage}' answered different problems of '{benchmark}': "
                "evaluate all of them on one set."
            )
        verdicts = {result.seed: result.by_problem() for result in own}
        by_seed = {seed: float(correct.mean()) for seed, correct in verdicts.items()}
        means.append(
            StageMean(
                variant=variant,
                benchmark=benchmark,
                stage=stage,
                by_seed=by_seed,
                estimate=pass_at_1(over_seeds(list(verdicts.values()))),
                seeds_ci95=across_seeds(list(by_seed.values())),
            )
        )
    return means


def stage_differences(results: Sequence[StageResult]) -> list[Comparison]:
    """Compare successive stages of each variant, then its last stage with each earlier one.

    Stages are ordered as they first appear. A pair of policies that an earlier variant shares
    is compared once.

    Raises:
        UserError: A result is not complete or appears twice, or seeds differ in samples.
    """
    compared: set[tuple[str, ...]] = set()
    found = []
    for stages in _ladders(results).values():
        for baseline, stage in _stage_pairs(list(stages)):
            policies = tuple(
                result.fingerprint for side in (baseline, stage) for result in stages[side].values()
            )
            key = (next(iter(stages[stage].values())).benchmark, *policies)
            if key in compared:
                continue
            compared.add(key)
            found.append(_compared(stages[stage], stages[baseline]))
    return _corrected(found)


def variant_differences(results: Sequence[StageResult]) -> list[Comparison]:
    """Compare the last policy of each variant with that of the full recipe.

    The full recipe is the variant from which nothing was taken, or else the first.

    Raises:
        UserError: A result is not complete or appears twice, or seeds differ in samples.
    """
    ladders = _ladders(results)
    variants = list(dict.fromkeys(variant for variant, _, _ in ladders))
    full = NO_ABLATION if NO_ABLATION in variants else next(iter(variants), "")
    last = {key: list(stages.values())[-1] for key, stages in ladders.items()}
    return _corrected(
        [
            _compared(policy, last[full, benchmark, problems])
            for (variant, benchmark, problems), policy in last.items()
            if variant != full and (full, benchmark, problems) in last
        ]
    )


def _ladders(
    results: Sequence[StageResult],
) -> dict[tuple[str, str, frozenset[str]], dict[str, dict[int, StageResult]]]:
    """(variant, benchmark, problems) -> stage -> seed -> result, in order of appearance."""
    ladders: dict[tuple[str, str, frozenset[str]], dict[str, dict[int, StageResult]]] = {}
    for result in results:
        key = (result.variant, result.benchmark, frozenset(result.problem_ids))
        seeds = ladders.setdefault(key, {}).setdefault(result.stage, {})
        if result.seed in seeds:
            raise UserError(
                f"Stage '{result.stage}' with seed {result.seed} has two results on "
                f"'{result.benchmark}': name the two recipes as different variants."
            )
        seeds[result.seed] = result
    return ladders


def _stage_pairs(stages: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(earlier, later): successive ones, then the last against those not yet compared."""
    yield from pairwise(stages)
    for stage in stages[:-2]:
        yield stage, stages[-1]


def _compared(policy: _BySeed, baseline: _BySeed) -> Comparison | None:
    """`policy` against `baseline` over the seeds of both; None where there is no such seed."""
    one, other = next(iter(policy.values())), next(iter(baseline.values()))
    common = tuple(sorted(policy.keys() & baseline.keys()))
    if not common:
        log.warning("No seed has both %s and %s on %s.", other.stage, one.stage, one.benchmark)
        return None
    later, earlier = (
        over_seeds([side[seed].by_problem() for seed in common]) for side in (policy, baseline)
    )
    difference = paired_difference(later, earlier)
    return Comparison(
        benchmark=one.benchmark,
        variant=one.variant,
        stage=one.stage,
        baseline_variant=other.variant,
        baseline=other.stage,
        seeds=common,
        difference=difference,
        p_corrected=difference.p_value,
    )


def _corrected(found: Sequence[Comparison | None]) -> list[Comparison]:
    made = [comparison for comparison in found if comparison is not None]
    corrected = holm([comparison.difference.p_value for comparison in made])
    return [
        dataclasses.replace(comparison, p_corrected=p)
        for comparison, p in zip(made, corrected, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Claims:
    """All that a report says beyond its rows.

    Attributes:
        means: Over seeds; empty where no stage has several.
        stages: Between the stages of each variant.
        variants: Between each variant's last policy and the full recipe's.
    """

    means: Sequence[StageMean] = ()
    stages: Sequence[Comparison] = ()
    variants: Sequence[Comparison] = ()

    @classmethod
    def of(cls, results: Sequence[StageResult]) -> "Claims":
        """What these results allow to say."""
        return cls(stage_means(results), stage_differences(results), variant_differences(results))
