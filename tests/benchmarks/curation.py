"""Curation of many rollouts by every shipped step: a row of `corpus`."""

import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from reasoning_lab.config.folder import CONF
from reasoning_lab.data.corpus import RolloutFile
from reasoning_lab.data.curation.step import CurationContext, build_steps, curate
from reasoning_lab.types import Completion, Problem, Rollout, Verdict

from .footprint import in_child, peak_anonymous, resident
from .lists import write_all

_VOCABULARY = [
    start + end
    for start in ("tra", "lea", "mee", "gon", "app", "fri", "bro", "pai", "far", "wat")
    for end in ("in", "ve", "ts", "ing", "le", "end", "ther", "nt", "mer", "er")
]


def curated_rollouts(count: int) -> Iterator[Rollout]:
    """Two of each problem; one problem in ten differs from the last in a word."""
    rng = random.Random(0)
    words: list[str] = []
    for number in range(count // 2):
        words = rng.choices(_VOCABULARY, k=30) if number % 10 else [*words[:-1], f"{number}"]
        problem = Problem(" ".join([*words, "?"]), str(number), "number", f"family{number % 8}")
        for sample in range(2):
            chain = " ".join(rng.choices(_VOCABULARY, k=60))
            text = f"<think>\n{chain} {sample}\n</think>\n\n\\boxed{{{number}}}"
            yield Rollout(problem, Completion([], text), str(number), Verdict.CORRECT, "rule")


def curate_peak(file: Path) -> dict[str, Any]:
    options: Any = OmegaConf.to_container(OmegaConf.load(CONF / "stage" / "curate.yaml"))
    steps = build_steps(options["steps"], "steps")
    rng = random.Random(1)
    benchmark = [" ".join(rng.choices(_VOCABULARY, k=30)) for _ in range(500)]
    before = resident("RssAnon")
    with peak_anonymous() as peak:
        start = time.perf_counter()
        context = CurationContext(0, lambda _: 0.5, {"benchmark": benchmark})
        _, counts = curate(RolloutFile(file), steps, context)
        return {
            "documents": counts[0].rollouts_in,
            "remaining": counts[-1].rollouts_out,
            "seconds": time.perf_counter() - start,
            "anonymous_bytes": peak() - before,
        }


def curated(folder: Path, count: int) -> dict[str, Any]:
    half, whole = (
        in_child(curate_peak, write_all(folder / f"curate-{n}.parquet", curated_rollouts(n)))
        for n in (count // 2, count)
    )
    return {**whole, "ratio": math.log2(whole["seconds"] / half["seconds"])}
