"""Curves of what runs over all problems: curation, verification, statistics, the report."""

import atexit
import functools
import itertools
import random
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from reasoning_lab.config.folder import CONF
from reasoning_lab.data.corpus import RolloutFile, read_rollouts, write_rollouts
from reasoning_lab.data.curation.decontamination import Decontaminate
from reasoning_lab.data.curation.selection import group_by_problem, harder_subset, preference_pairs
from reasoning_lab.data.curation.step import CurationContext, build_steps, curate
from reasoning_lab.data.rollout_index import RolloutIndex
from reasoning_lab.data.sources.config import ReasoningGymConfig
from reasoning_lab.evaluate.benchmark import measured
from reasoning_lab.evaluate.completions import COMPLETIONS
from reasoning_lab.evaluate.statistics import majority, paired_difference, pass_at_1, pass_at_k
from reasoning_lab.report.comparisons import Claims
from reasoning_lab.report.evidence import Completions, Evidence
from reasoning_lab.report.rows import Row, StageResult
from reasoning_lab.report.write import write_report
from reasoning_lab.types import Completion, Problem, Rollout, RolloutGroup, Split, Verdict
from reasoning_lab.verify import Verifier

from ..distillation import FAMILIES
from ..pairs.ours import answers
from .curve import Curve, doublings

_TEXT = """
a train leaves the station and meets another one that goes twice as fast when both have gone some
miles how many apples does she buy for her friends if each of them wants three more than his brother
had before what is sum product number side area circle square money week hours painter farmer
teacher school garden fence water tank fills empties pays price half third
"""
_WORDS = _TEXT.split()
_SAMPLES = 4
_BENCHMARK_PROBLEMS = 500


def _text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(_WORDS, k=words))


def _problems(count: int, seed: int = 0) -> list[Problem]:
    rng = random.Random(seed)
    return [
        Problem(f"{_text(rng, 30)} {number}?", str(number), "number", f"family{number % 8}")
        for number in range(count)
    ]


def _rollouts(count: int, samples: int) -> list[Rollout]:
    """`samples` of each problem, every second one correct."""
    rng = random.Random(1)
    rollouts = []
    for problem in _problems(count):
        for sample in range(samples):
            text = f"<think>{_text(rng, 60)}</think>\\boxed{{{problem.gold}}}"
            verdict = Verdict.WRONG if sample % 2 else Verdict.CORRECT
            completion = Completion(list(range(rng.randint(40, 80))), text)
            rollouts.append(Rollout(problem, completion, problem.gold, verdict, "author"))
    return rollouts


def _groups(count: int) -> list[RolloutGroup]:
    return group_by_problem(_rollouts(count, _SAMPLES))


def draw_problems(size: int, stack: ExitStack) -> Callable[[], object]:
    source, seeds = ReasoningGymConfig(FAMILIES, 0.05, 0.05), count()
    return lambda: list(source.problems(Split.TRAIN, [1], size, next(seeds)))


def corpus(size: int, stack: ExitStack) -> Callable[[], object]:
    path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "accepted.parquet"
    rollouts = _rollouts(size, 2)

    def work() -> None:
        write_rollouts(path, rollouts)
        read_rollouts(path)

    return work


def curation(size: int, stack: ExitStack) -> Callable[[], object]:
    shipped: Any = OmegaConf.to_container(OmegaConf.load(CONF / "stage" / "curate.yaml"))
    benchmark = [problem.prompt for problem in _problems(_BENCHMARK_PROBLEMS, seed=2)]
    path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "accepted.parquet"
    write_rollouts(path, _rollouts(size, 2))
    background = CurationContext(0, lambda problem: 0.5, {"benchmark": benchmark})
    steps = build_steps(shipped["steps"], "steps")
    return partial(curate, RolloutFile(path), steps, background)


def benchmark_size(size: int, stack: ExitStack) -> Callable[[], object]:
    prompts = [problem.prompt for problem in _problems(size, seed=2)]
    background, rollouts = CurationContext(0, float, {"benchmark": prompts}), _rollouts(500, 1)
    return lambda: list(Decontaminate().drop_reasons(rollouts, background))


def subsets(size: int, stack: ExitStack) -> Callable[[], object]:
    rollouts = _rollouts(size, _SAMPLES)

    def work() -> None:
        harder_subset(RolloutIndex.of(rollouts), [1], size, 0)
        preference_pairs(group_by_problem(rollouts), 2, 0, "length_matched")

    return work


def _pairs(size: int, pairing: str) -> Callable[[], object]:
    groups = group_by_problem(_rollouts(8, size))
    return partial(preference_pairs, groups, size // 4, 0, pairing)


def random_pairs(size: int, stack: ExitStack) -> Callable[[], object]:
    return _pairs(size, "random")


def matched_pairs(size: int, stack: ExitStack) -> Callable[[], object]:
    return _pairs(size, "length_matched")


@functools.cache
def _verifier() -> Verifier:
    """Of all sizes, as its workers take seconds to start."""
    verifier = Verifier(torch.get_num_threads(), timeout_s=10, memory_mb=512)
    atexit.register(verifier.close)
    return verifier


def verification(size: int, stack: ExitStack) -> Callable[[], object]:
    verifier, seeds = _verifier(), itertools.count()

    def work() -> None:
        # Others each time: SymPy remembers the last thousand.
        golds, texts = answers(size, next(seeds))
        problems = [Problem(f"q{at}", gold, "math", "bench") for at, gold in enumerate(golds)]
        verifier.verify(problems, texts)

    return work


def evaluation(size: int, stack: ExitStack) -> Callable[[], object]:
    return partial(measured, _groups(size))


def statistics(size: int, stack: ExitStack) -> Callable[[], object]:
    one, other = (np.random.default_rng(seed).random((size, _SAMPLES)) < 0.5 for seed in (0, 1))
    votes = [["1", "2", "3", None]] * size

    def work() -> None:
        pass_at_1(one)
        pass_at_k(one, _SAMPLES)
        majority(votes, one)
        paired_difference(one, other)

    return work


def _report(
    count: int, variants: Sequence[str], stages: Sequence[str], stack: ExitStack
) -> Callable[[], object]:
    """Everything from verified samples to the files; every policy has the same completions."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    groups = _groups(count)
    write_rollouts(folder / COMPLETIONS, [r for group in groups for r in group.rollouts])
    results: list[StageResult] = []
    rows: list[Row] = []
    evidence = Evidence()
    for variant in variants:
        for stage in stages:
            about: dict[str, Any] = {"variant": variant, "seed": 0, "stage": stage}
            about |= {"benchmark": "held-out"}
            rng = np.random.default_rng(len(rows))
            correct = rng.random((count, _SAMPLES)) < 0.5
            result = StageResult(
                **about,
                fingerprint=f"{len(rows):016x}",
                problem_ids=[group.problem.id for group in groups],
                correct=correct,
                completion_tokens=rng.integers(40, 80, correct.shape),
            )
            estimate = pass_at_1(correct)
            rows.append(
                Row(
                    **about,
                    n=count,
                    samples=_SAMPLES,
                    pass_at_1=estimate.mean,
                    ci95=(estimate.low, estimate.high),
                    completion_tokens=60.0,
                    train_tokens=0,
                    wall_s=0.0,
                    fingerprint=result.fingerprint,
                )
            )
            results.append(result)
            evidence.completions.append(Completions(folder, about))
    return lambda: write_report(rows, Claims.of(results), results, evidence, folder / "report")


def report_problems(size: int, stack: ExitStack) -> Callable[[], object]:
    return _report(size, ["none", "sft"], ["base", "sft", "dpo"], stack)


def report_variants(size: int, stack: ExitStack) -> Callable[[], object]:
    names = ["none", *(f"without {number}" for number in range(1, size))]
    return _report(32, names, ["base", "sft", "dpo"], stack)


CURVES = {
    "draw/problems": Curve(
        "problems",
        "distinct problems drawn from two generated families",
        doublings(256, 4096),
        1,
        draw_problems,
    ),
    "corpus/problems": Curve(
        "problems",
        "rollouts written and read, 2 a problem",
        doublings(512, 32768),
        1,
        corpus,
    ),
    "curate/problems": Curve(
        "problems",
        f"every shipped step, 2 rollouts a problem, a benchmark of {_BENCHMARK_PROBLEMS}",
        doublings(64, 2048),
        1,
        curation,
    ),
    "decontaminate/benchmark": Curve(
        "problems of the benchmark",
        "500 training problems held against it",
        doublings(1024, 16384),
        1,
        benchmark_size,
    ),
    "subset/problems": Curve(
        "problems",
        "the harder subset and length-matched pairs, 4 rollouts a problem",
        doublings(256, 8192),
        1,
        subsets,
    ),
    "pairs/group": Curve(
        "group size", "random preference pairs of 8 problems", doublings(32, 1024), 1, random_pairs
    ),
    "matched/group": Curve(
        "group size",
        "length-matched preference pairs of 8 problems",
        doublings(32, 512),
        2,
        matched_pairs,
    ),
    "verify/problems": Curve(
        "answers",
        "math answers verified by a process a thread",
        doublings(256, 2048),
        1,
        verification,
    ),
    "evaluate/problems": Curve(
        "problems",
        "everything that an evaluation measures, 4 samples a problem",
        doublings(256, 32768),
        1,
        evaluation,
    ),
    "statistics/problems": Curve(
        "problems",
        "pass@1, pass@4, maj@4, a paired test",
        doublings(128, 16384),
        1,
        statistics,
    ),
    "report/problems": Curve(
        "problems",
        "claims and all files of the report, 2 variants of 3 policies",
        doublings(64, 2048),
        1,
        report_problems,
    ),
    "report/variants": Curve(
        "variants",
        "the same, 32 problems, 3 policies a variant",
        doublings(2, 32),
        1,
        report_variants,
    ),
}
