"""What a report says: one row a policy and benchmark, and paired differences between stages.

Place in the flow: evaluation artifacts become `Row` and `StageResult`; `stage_differences`
compares stages problem by problem; `write_report` turns both into files.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from reasoning_lab.evaluate.statistics import (
    Difference,
    Estimate,
    over_seeds,
    paired_difference,
    pass_at_1,
)
from reasoning_lab.types import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One policy on one benchmark; every number of the table comes from here.

    Attributes:
        variant: Which recipe: its name, or what was taken out of it.
        stage: The stage that made the policy.
        seed: The recipe's seed.
        benchmark: The set of held-out problems.
        n: Problems.
        samples: Completions of each problem.
        pass_at_1: Fraction in [0, 1]; `pass@1` in the file.
        ci95: Ends of its 95% interval.
        completion_tokens: Mean length of a completion, in tokens.
        train_tokens: Tokens that the stage trained on; 0 for a policy that was taken as it is.
        wall_s: Seconds that the stage took.
        fingerprint: The policy's artifact.
    """

    variant: str
    stage: str
    seed: int
    benchmark: str
    n: int
    samples: int
    pass_at_1: float
    ci95: tuple[float, float]
    completion_tokens: float
    train_tokens: int
    wall_s: float
    fingerprint: str

    def as_json(self) -> dict[str, Any]:
        """The row under its names in `report.json`."""
        return {
            "variant": self.variant,
            "stage": self.stage,
            "seed": self.seed,
            "benchmark": self.benchmark,
            "n": self.n,
            "samples": self.samples,
            "pass@1": self.pass_at_1,
            "ci95": list(self.ci95),
            "completion_tokens": self.completion_tokens,
            "train_tokens": self.train_tokens,
            "wall_s": self.wall_s,
            "fingerprint": self.fingerprint,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """Every verified sample of one policy on one benchmark.

    Attributes:
        variant: As in `Row`.
        stage: As in `Row`.
        seed: As in `Row`.
        benchmark: As in `Row`.
        problem_ids: P distinct ids, in any order.
        correct: `[P, S]` bool, True = correct; row p belongs to `problem_ids[p]`.
    """

    variant: str
    stage: str
    seed: int
    benchmark: str
    problem_ids: Sequence[str]
    correct: npt.ArrayLike

    def by_problem(self) -> npt.NDArray[np.bool_]:
        """`[P, S]` bool with the problems in the order of their ids.

        Raises:
            UserError: The ids repeat, don't match the rows, or a sample is missing.
        """
        verified = over_seeds([self.correct])
        if len(verified) != len(self.problem_ids) or len(set(self.problem_ids)) != len(verified):
            raise UserError(
                f"The results of stage '{self.stage}' on '{self.benchmark}' don't have one row "
                "for each distinct problem: evaluate it again."
            )
        return verified[np.argsort(np.asarray(self.problem_ids))]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageDifference:
    """How much better a stage's policy is than a baseline stage's, over the same problems.

    Attributes:
        variant: As in `Row`.
        benchmark: As in `Row`.
        stage: The later stage.
        baseline: The earlier stage.
        seeds: The seeds that both have, pooled as further samples of the same problems.
        difference: pass@1 of `stage` minus that of `baseline`.
    """

    variant: str
    benchmark: str
    stage: str
    baseline: str
    seeds: tuple[int, ...]
    difference: Difference

    def as_json(self) -> dict[str, Any]:
        """The difference under its names in `report.json`."""
        return {
            "variant": self.variant,
            "benchmark": self.benchmark,
            "stage": self.stage,
            "baseline": self.baseline,
            "seeds": list(self.seeds),
            "n": self.difference.n,
            "difference": self.difference.mean,
            "ci95": [self.difference.low, self.difference.high],
            "p_value": self.difference.p_value,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StageMean:
    """One stage on one benchmark over several seeds.

    Attributes:
        variant: As in `Row`.
        benchmark: As in `Row`.
        stage: As in `Row`.
        by_seed: Seed to its own pass@1.
        estimate: Of the seeds together; its interval speaks of new problems, `by_seed` of
            new seeds.
    """

    variant: str
    benchmark: str
    stage: str
    by_seed: dict[int, float]
    estimate: Estimate

    def as_json(self) -> dict[str, Any]:
        """The mean under its names in `report.json`."""
        return {
            "variant": self.variant,
            "stage": self.stage,
            "benchmark": self.benchmark,
            "n": self.estimate.n,
            "pass@1": self.estimate.mean,
            "ci95": [self.estimate.low, self.estimate.high],
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
        means.append(
            StageMean(
                variant=variant,
                benchmark=benchmark,
                stage=stage,
                by_seed={seed: float(correct.mean()) for seed, correct in verdicts.items()},
                estimate=pass_at_1(over_seeds(list(verdicts.values()))),
            )
        )
    return means


def stage_differences(results: Sequence[StageResult]) -> list[StageDifference]:
    """Compare successive stages, then the last stage with each earlier one, without repeats.

    Stages are ordered as they first appear. Only results over the very same problems are
    compared; seeds that share them are pooled. The p-values are not corrected for the
    number of comparisons.

    Raises:
        UserError: A result is not complete or appears twice, or seeds differ in samples.
    """
    groups: dict[tuple[str, str, frozenset[str]], dict[str, dict[int, StageResult]]] = {}
    for result in results:
        key = (result.variant, result.benchmark, frozenset(result.problem_ids))
        seeds = groups.setdefault(key, {}).setdefault(result.stage, {})
        if result.seed in seeds:
            raise UserError(
                f"Stage '{result.stage}' with seed {result.seed} has two results on "
                f"'{result.benchmark}': name the two recipes as different variants."
            )
        seeds[result.seed] = result
    differences = []
    for (variant, benchmark, _), stages in groups.items():
        for baseline, stage in _stage_pairs(list(stages)):
            common = tuple(sorted(stages[stage].keys() & stages[baseline].keys()))
            if not common:
                log.warning("No seed has both %s and %s on %s.", baseline, stage, benchmark)
                continue
            later, earlier = (
                over_seeds([stages[name][seed].by_problem() for seed in common])
                for name in (stage, baseline)
            )
            differences.append(
                StageDifference(
                    variant=variant,
                    benchmark=benchmark,
                    stage=stage,
                    baseline=baseline,
                    seeds=common,
                    difference=paired_difference(later, earlier),
                )
            )
    return differences


def _stage_pairs(stages: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(earlier, later): successive ones, then the last against those not yet compared."""
    yield from pairwise(stages)
    for stage in stages[:-2]:
        yield stage, stages[-1]
