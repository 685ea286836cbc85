"""Memory of what reads many rollouts and needs few numbers of each: rows of `corpus`."""

import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from reasoning_lab.commands.rescore import rescore
from reasoning_lab.config.benchmark import BenchmarkConfig, SamplingConfig
from reasoning_lab.config.components import EngineConfig
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.optimization import OptimizationConfig
from reasoning_lab.config.problems import ProblemsConfig
from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.data.corpus import RolloutWriter
from reasoning_lab.data.sources.config import FileConfig, ReasoningGymConfig
from reasoning_lab.data.sources.problem_source import ProblemSource
from reasoning_lab.evaluate.completions import Evaluation
from reasoning_lab.evaluate.stage import EvaluateStage
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.stages.prefer.stage import PreferTeacherStage
from reasoning_lab.stages.rl.prompts import PromptPlan, prompt_batches
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.types import Completion, Problem, Prompt, Rollout, Split, Verdict
from reasoning_lab.verify import Verifier
from tests.support.contexts import data_context

from .footprint import in_child, peak_anonymous, resident

WORDS = ("seven", "twelve", "is", "carry", "so", "we", "find", "19", "=", "+", "7", "12", "x", "y")
_WORDS_OF_ROLLOUT = 300  # About 1,000 characters.
_SAMPLES = 8


def groups(count: int) -> Iterator[list[Rollout]]:
    """`count` rollouts of about 1,000 characters, problem by problem; about half are correct."""
    rng = random.Random(0)
    for number in range(count // _SAMPLES):
        problem = Problem(f"What is {number} plus 12?", "19", "number", "sums")
        yield [
            Rollout(problem, Completion([], " ".join(words)), "19", verdict, "benchmark")
            for verdict in rng.choices((Verdict.CORRECT, Verdict.WRONG), k=_SAMPLES)
            for words in [rng.choices(WORDS, k=_WORDS_OF_ROLLOUT)]
        ]


def write_all(path: Path, some: Iterator[Rollout]) -> Path:
    with RolloutWriter(path) as writer:
        while batch := list(islice(some, 1000)):
            writer.write(batch)
    return path


def write_corpus(folder: Path, count: int) -> Corpus:
    folder.mkdir()
    corpus, remaining = Corpus(folder), groups(count)
    with (
        RolloutWriter(corpus.accepted_file) as accepted,
        RolloutWriter(corpus.rejected_file) as rejected,
    ):
        while some := [rollout for group in islice(remaining, 256) for rollout in group]:
            accepted.write([rollout for rollout in some if rollout.correct])
            rejected.write([rollout for rollout in some if not rollout.correct])
    return corpus


def prefer_peak(folder: Path, corpus: Corpus) -> dict[str, Any]:
    """Of a process that pairs a corpus as `prefer_teacher` does."""
    stage = PreferTeacherStage(pairs_per_problem=1)
    source = ReasoningGymConfig({"gcd": {1: {}}}, 0, 0)
    with Verifier(1, 1.0, 512) as verifier, peak_anonymous() as peak:
        context = data_context(folder, "prefer", source, verifier, stage=stage)
        before, start = resident("RssAnon"), time.perf_counter()
        metrics = replace(context, inputs={Corpus.kind: corpus}).run_stage()
        return {
            "rollouts": metrics["rollouts"],
            "pairs": metrics["pairs"],
            "seconds": time.perf_counter() - start,
            "anonymous_bytes": peak() - before,
        }


def prefer(folder: Path, count: int = 200_000) -> dict[str, Any]:
    folder = folder / "prefer"
    folder.mkdir()
    return dict(in_child(prefer_peak, folder, write_corpus(folder / "corpus", count)))


def problem_source(folder: Path) -> ProblemSource:
    return FileConfig(
        path=str(folder / "problems.jsonl"), test_frac=0.0, validation_frac=0.0
    ).build()


def prompts_peak(folder: Path, count: int) -> dict[str, Any]:
    """Of a process that draws the prompts of RL and reads those of some steps."""
    source = problem_source(folder)
    optimization = OptimizationConfig(length="20 steps", batch_size=64)
    stage = RLStage(optimization=optimization, dynamic_sampling_rounds=1)
    with Verifier(1, 10.0, 1024) as verifier, peak_anonymous() as peak:
        context = data_context(folder, "rl", source, verifier)
        before, start = resident("RssAnon"), time.perf_counter()
        pool = context.problems(Split.TRAIN, ProblemsConfig([1], count))
        for batch in prompt_batches(PromptPlan(stage, pool, context.seed)):
            assert len(batch.problems) + len(batch.replacements) == count
        return {
            "problems": len(pool),
            "seconds": time.perf_counter() - start,
            "anonymous_bytes": peak() - before,
        }


def prompts(folder: Path, count: int = 200_000) -> dict[str, Any]:
    folder = folder / "prompts"
    folder.mkdir()
    write_problems(folder, count)
    return dict(in_child(prompts_peak, folder, count))


def write_problems(folder: Path, count: int) -> None:
    with (folder / "problems.jsonl").open("w") as lines:
        for number in range(count):
            prompt = f"What is {number} plus 12? " + "Think before you answer. " * 12
            lines.write(json.dumps({"prompt": prompt, "gold": "19", "level": 1}) + "\n")


class Repeating:
    """An engine of 250 tokens and about 1,000 characters; no text has an answer."""

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        first = 1000  # Python shares small integers.
        return [
            Completion(list(range(first, first + 250)), f"{seed} plus 12 " + "is that so? " * 80)
            for seed in seeds
        ]

    def close(self) -> None:
        pass


class RepeatingConfig(EngineConfig):
    def open(self, hardware: HardwareConfig) -> Repeating:
        return Repeating()


def evaluate_peak(folder: Path, model: Path, count: int) -> dict[str, Any]:
    """Of a process that evaluates an engine."""
    source = problem_source(folder)
    benchmark = BenchmarkConfig(
        split="train",
        levels=[1],
        count=count // _SAMPLES,
        samples=_SAMPLES,
        sampling=SamplingConfig(1.0, 1.0, 250),
    )
    stage = EvaluateStage(
        benchmark_name="bench", benchmark=benchmark, engine=RepeatingConfig("repeating")
    )
    with Verifier(1, 10.0, 1024) as verifier, peak_anonymous() as peak:
        context = data_context(folder, "evaluate", source, verifier, stage=stage)
        before, start = resident("RssAnon"), time.perf_counter()
        replace(context, inputs={Policy.kind: Policy(model)}).run_stage()
        return {
            "completions": count,
            "seconds": time.perf_counter() - start,
            "anonymous_bytes": peak() - before,
        }


def samples_peak(folder: Path) -> int:
    """Of a process that reads what a report needs of it."""
    before = resident("RssAnon")
    with peak_anonymous() as peak:
        Evaluation(folder).samples(_SAMPLES)
        return peak() - before


def rescore_peak(folder: Path) -> int:
    """Of a process that verifies its completions again."""
    before = resident("RssAnon")
    with peak_anonymous() as peak:
        rescore(folder, None, HardwareConfig(), folder / "rescored")
        return peak() - before


def evaluate(folder: Path, model: Path, count: int = 200_000) -> dict[str, Any]:
    folder = folder / "evaluate"
    folder.mkdir()
    write_problems(folder, count // _SAMPLES)
    return {
        **in_child(evaluate_peak, folder, model, count),
        "report_anonymous_bytes": in_child(samples_peak, folder / "out"),
        "rescore_anonymous_bytes": in_child(rescore_peak, folder / "out"),
    }
