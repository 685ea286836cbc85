"""Memory of what reads many rollouts and needs few numbers of each: rows of `corpus`."""

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.data.corpus import RolloutWriter
from reasoning_lab.data.sources.config import ReasoningGymConfig
from reasoning_lab.stages.prefer.stage import PreferTeacherStage
from reasoning_lab.types import Completion, Problem, Rollout, Verdict
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
    return dict(in_child(prefer_peak, folder, write_corpus(folder / "corpus", count)))
