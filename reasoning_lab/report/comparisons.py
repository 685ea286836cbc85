"""Paired comparisons of policies and means over seeds: the claims of a report.

Two results are compared only on the same problems, with the seeds that both have pooled. p-values
are corrected by Holm's method for the number of comparisons in a family: all between stages, and
all between variants. Those on one domain of a benchmark are families of their own. From three seeds
on, the test over seeds decides what is said.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from reasoning_lab.evaluate.seed_inference import LEAST_SEEDS, paired_difference_over_seeds
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
        benchmark: The benchmark's name.
        variant: Variant of the policy.
        stage: Stage of the policy.
        baseline_variant: Variant of the baseline policy.
        baseline: Stage of the baseline policy.
        seeds: The seeds that both have, pooled as further samples of the same problems.
        difference: pass@1 of the policy minus pass@1 of the baseline.
        p_corrected: The p-value, corrected for all comparisons of the family.
        over_seeds: The same difference over further seeds and problems; None = there are fewer
            than three seeds.
        seeds_p_corrected: Its p-value, corrected for all comparisons of the family that have one.
        domain: As in `Row`.
    """

    benchmark: str
    variant: str
    stage: str
    baseline_variant: str
    baseline: str
    seeds: tuple[int, ...]
    difference: Difference
    p_corrected: float
    over_seeds: Difference | None = None
    seeds_p_corrected: float | None = None
    domain: str | None = None

    @property
    def decisive(self) -> tuple[Difference, float]:
        """The interval and the corrected p-value that a claim rests on."""
        if self.over_seeds is None or self.seeds_p_corrected is None:
            return self.difference, self.p_corrected
        return self.over_seeds, self.seeds_p_corrected

    def as_json(self) -> dict[str, Any]:
        """The comparison with the keys of `report.json`."""
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
            **self._seeds_json(),
            **({} if self.domain is None else {"domain": self.domain}),
        }

    def _seeds_json(self) -> dict[str, Any]:
        if self.over_seeds is None:
            return {}
        return {
            "seeds_ci95": [self.over_seeds.low, self.over_seeds.high],
            "seeds_p_value": self.over_seeds.p_value,
            "seeds_p_corrected": self.seeds_p_corrected,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StageMean:
    """One stage on one benchmark over several seeds.

    Attributes:
        variant, benchmark, stage: As in `Row`.
        by_seed: Seed to pass@1.
        estimate: All seeds together; its interval is over problems.
        seeds_ci95: 95% interval of the mean over all seeds that could have been drawn.
    """

    variant: str
    benchmark: str
    stage: str
    by_seed: dict[int, float]
    estimate: Estimate
    seeds_ci95: tuple[float, float]

    def as_json(self) -> dict[str, Any]:
        """The mean with the keys of `report.json`."""
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
    """Pool the seeds of each variant, benchmark and stage; stages with one seed are left out.

    Raises:
        UserError: A result is not complete, or seeds differ in problems or samples.
    """
    groups: dict[tuple[str, str, str], list[StageResult]] = {}
    for result in results:
        key = (result.variant, result.benchmark, result.stage)
        groups.setdefault(key, []).append(result)
    means = []
    for (variant, benchmark, stage), seed_results in groups.items():
        if len(seed_results) < 2:
            continue
        if len({frozenset(result.problem_ids) for result in seed_results}) > 1:
            raise UserError(
                f"The seeds of stage '{stage}' answered different problems of '{benchmark}': "
                "evaluate all of them on one set."
            )
        verdicts = {result.seed: result.by_problem() for result in seed_results}
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

    Stages are ordered by their first appearance. A pair of policies that variants share is compared
    once.

    Raises:
        UserError: A result is not complete or appears twice, or seeds differ in samples.
    """
    compared: set[tuple[str, ...]] = set()
    comparisons = []
    for stages in _ladders(results).values():
        *earlier, last = stages
        for baseline, stage in [*pairwise(stages), *((name, last) for name in earlier[:-1])]:
            policies = tuple(
                result.fingerprint for side in (baseline, stage) for result in stages[side].values()
            )
            key = (next(iter(stages[stage].values())).benchmark, *policies)
            if key in compared:
                continue
            compared.add(key)
            comparisons.append(_compare(stages[stage], stages[baseline]))
    return _with_corrected_p(comparisons)


def variant_differences(results: Sequence[StageResult]) -> list[Comparison]:
    """Compare the last policy of each variant with that of the full recipe.

    The full recipe is the variant that lacks no stage, or else the first variant.

    Raises:
        UserError: A result is not complete or appears twice, or seeds differ in samples.
    """
    ladders = _ladders(results)
    variants = list(dict.fromkeys(variant for variant, _, _ in ladders))
    full = NO_ABLATION if NO_ABLATION in variants else next(iter(variants), "")
    last = {key: list(stages.values())[-1] for key, stages in ladders.items()}
    return _with_corrected_p(
        [
            _compare(policy, last[full, benchmark, problems])
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


def _compare(policy: _BySeed, baseline: _BySeed) -> Comparison | None:
    """Compare two policies over the seeds that both have; None = they share no seed."""
    policy_result, baseline_result = next(iter(policy.values())), next(iter(baseline.values()))
    common = tuple(sorted(policy.keys() & baseline.keys()))
    if not common:
        log.warning(
            "No seed has both %s and %s on %s.",
            baseline_result.stage,
            policy_result.stage,
            policy_result.benchmark,
        )
        return None
    later, earlier = ([side[seed].by_problem() for seed in common] for side in (policy, baseline))
    difference = paired_difference(over_seeds(later), over_seeds(earlier))
    enough = len(common) >= LEAST_SEEDS
    return Comparison(
        benchmark=policy_result.benchmark,
        variant=policy_result.variant,
        stage=policy_result.stage,
        baseline_variant=baseline_result.variant,
        baseline=baseline_result.stage,
        seeds=common,
        difference=difference,
        p_corrected=difference.p_value,
        domain=policy_result.domain,
        over_seeds=paired_difference_over_seeds(later, earlier) if enough else None,
    )


def _with_corrected_p(candidates: Sequence[Comparison | None]) -> list[Comparison]:
    """The comparisons with corrected p-values: those on whole benchmarks, then those on domains."""
    comparisons = [comparison for comparison in candidates if comparison is not None]
    whole = [comparison for comparison in comparisons if comparison.domain is None]
    of_domains = [comparison for comparison in comparisons if comparison.domain is not None]
    return [*_corrected_family(whole), *_corrected_family(of_domains)]


def _corrected_family(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons of one family, with p-values corrected for their number."""
    corrected = holm([comparison.difference.p_value for comparison in comparisons])
    over_all_seeds = [c.over_seeds.p_value for c in comparisons if c.over_seeds is not None]
    of_seeds = iter(holm(over_all_seeds))
    return [
        dataclasses.replace(
            comparison,
            p_corrected=p,
            seeds_p_corrected=None if comparison.over_seeds is None else next(of_seeds),
        )
        for comparison, p in zip(comparisons, corrected, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Claims:
    """Everything that a report states beyond its rows.

    Attributes:
        means: Means over seeds; empty if no stage has several.
        stages: Comparisons between the stages of each variant.
        variants: Comparisons of each variant's last policy with that of the full recipe.
    """

    means: Sequence[StageMean] = ()
    stages: Sequence[Comparison] = ()
    variants: Sequence[Comparison] = ()

    @classmethod
    def of(cls, results: Sequence[StageResult]) -> "Claims":
        """The means and comparisons of these results."""
        return cls(stage_means(results), stage_differences(results), variant_differences(results))
