"""Distillation of many problems: seconds, rate, and memory as it goes.

`python -m tests.benchmarks.distillation COUNT` distils COUNT problems of the tiny families with the
procedural teacher, two rollouts each, in a fresh folder; prints one JSON line. Memory is the
resident set of the process without the verifier's workers, after the first tenth and at the end.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.config.problems import ProblemsConfig
from reasoning_lab.data.corpus import stream_rollouts
from reasoning_lab.data.sources.config import ReasoningGymConfig
from reasoning_lab.data.teachers.config import ProceduralTeacherConfig
from reasoning_lab.stages.distill.produce import run
from reasoning_lab.stages.distill.stage import DistillStage
from reasoning_lab.tracking.tracker import Tracker
from reasoning_lab.training.context import StageContext
from reasoning_lab.verify import Verifier

# Wide ranges, so that a million distinct prompts exist; families that are drawn fast.
FAMILIES = {
    "chain_sum": {1: {"min_terms": 2, "max_terms": 6, "min_digits": 1, "max_digits": 4}},
    "gcd": {1: {"min_value": 2, "max_value": 500}},
}


class MemoryTracker(Tracker):
    """Notes the resident memory, in MiB, each time a shard is done."""

    def __init__(self) -> None:
        self.resident_mb: list[float] = []

    def log(self, metrics: object) -> None:
        status = Path("/proc/self/status").read_text().split("VmRSS:")[1]
        self.resident_mb.append(int(status.split()[0]) / 1024)


def main(count: int) -> None:
    """Distil `count` problems and print the figures."""
    config = DistillStage(
        teacher=ProceduralTeacherConfig(),
        problems=ProblemsConfig(levels=[1], count=count),
        validation=100,
        rollouts=2,
    )
    tracker = MemoryTracker()
    with (
        tempfile.TemporaryDirectory() as folder,
        Verifier(workers=2, timeout_s=5, memory_mb=1024) as verifier,
    ):
        out_dir = Path(folder) / "out"
        out_dir.mkdir()
        context = StageContext(
            name="distill",
            seed=0,
            out_dir=out_dir,
            work_dir=Path(folder) / "work",
            stage=config,
            model=ModelConfig(),
            source=ReasoningGymConfig(FAMILIES, 0.05, 0.05),
            hardware=HardwareConfig(),
            verifier=verifier,
            tracker=tracker,
        )
        started = time.monotonic()
        run(config, context)
        seconds = time.monotonic() - started
        names = ("accepted", "rejected")
        rows = sum(1 for n in names for _ in stream_rollouts(out_dir / f"{n}.parquet"))
        corpus_mb = sum(file.stat().st_size for file in out_dir.iterdir()) / 2**20
    early, late = tracker.resident_mb[len(tracker.resident_mb) // 10], tracker.resident_mb[-1]
    print(
        json.dumps(
            {
                "problems": count,
                "rollouts": rows,
                "seconds": round(seconds, 1),
                "rollouts_per_s": round(rows / seconds),
                "resident_mb_at_a_tenth": round(early),
                "resident_mb_at_the_end": round(late),
                "corpus_mb": round(corpus_mb),
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
