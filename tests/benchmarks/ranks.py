"""RL with a vLLM a rank: two ranks on two cores against one rank on one, whole steps and drawing.

    .venv-vllm/bin/python -m tests.benchmarks.ranks [SIZE] [ROUNDS]

`make test-vllm` makes that environment. A step has 16 prompts with 8 completions each, which end as
in the pair `grpo_ending`; a model has random weights. One rank has its vLLM in its own process, on
one core; of two ranks each has one beside it, and everything of a rank has one thread. Both kinds
work in turn. The first of each run's steps is left out. Needs an idle machine of two cores.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from reasoning_lab.config.hardware import HardwareConfig, SamplingHardwareConfig
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.data.sources.config import FileConfig
from reasoning_lab.launch.job import launched, run_job
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.tracking.live import METRICS
from reasoning_lab.tracking.progress import RunPosition
from reasoning_lab.tracking.trackers import tracker_of
from reasoning_lab.training.job import Job
from reasoning_lab.verify import Verifier

from .pairs.ours import rl_stage
from .pairs.workload import ENDING_POLICY, SIZES, write_workload

STEPS, PROMPTS = 5, 16
_MEASURES = ("completions/s, drawing", "completions/s, steps", "weights, of a step")


def measured(ranks: int, size_name: str, workload: Path, folder: Path) -> tuple[float, ...]:
    """The measures of one run in processes of its own, as medians of its steps."""
    command = [sys.executable, "-m", __spec__.name, str(ranks), size_name]
    cores = sorted(os.sched_getaffinity(0))[:ranks]
    subprocess.run(
        ["taskset", "-c", ",".join(map(str, cores)), *command, str(workload), str(folder)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=(workload / "log").open("a"),
        env={**os.environ, "REASONING_LAB_TRUSTED": "tests", "OMP_NUM_THREADS": "1"},
    )
    rows = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    steps = [row for row in rows if "time/generate_s" in row][1:]
    names = ("time/generate_s", "time/step_s", "time/sync_weights_s")
    drawing, step, weights = ([row[name] for row in steps] for name in names)
    completions = PROMPTS * SIZES[size_name].group_size
    return (
        completions / statistics.median(drawing),
        completions / statistics.median(step),
        statistics.median([one / whole for one, whole in zip(weights, step, strict=True)]),
    )


def train(ranks: int, size_name: str, workload: Path, folder: Path) -> None:
    """The run itself."""
    for name in ("out", "work"):
        (folder / name).mkdir(parents=True)
    size = replace(SIZES[size_name], rl_prompts=PROMPTS)
    job = Job(
        name="rl",
        stage=replace(rl_stage(size, STEPS), rollout_engine="vllm"),
        seed=0,
        out_dir=folder / "out",
        work_dir=folder / "work",
        inputs={"policy": Policy(workload / ENDING_POLICY)},
        model=ModelConfig(),
        data=FileConfig(
            path=str(workload / "grpo" / "problems.jsonl"), test_frac=0.0, validation_frac=0.0
        ),
        hardware=HardwareConfig(
            threads=1,
            devices=ranks,
            strategy="single" if ranks == 1 else "ddp",
            sampling=SamplingHardwareConfig(kv_cache_gb=1.0),
        ),
        benchmarks={},
        position=RunPosition(live_dir=folder),
    )
    if ranks > 1:
        launched(job)
        return
    with Verifier(workers=1, timeout_s=20, memory_mb=1024) as verifier:
        run_job(job, job.data.build(), {}, verifier, tracker_of(None, folder))


def main(arguments: Sequence[str]) -> None:
    size_name = arguments[0] if arguments else "30m"
    rounds = int(arguments[1]) if len(arguments) > 1 else 3
    size = replace(SIZES[size_name], rl_prompts=PROMPTS, steps={"grpo": STEPS})
    with tempfile.TemporaryDirectory() as temporary:
        workload = Path(temporary)
        write_workload(size, workload)
        print(f"One rank and two: | {' | '.join(_MEASURES)} | ratios of the first two")
        for at in range(rounds):
            one, two = (
                measured(ranks, size_name, workload, workload / f"run-{at}-{ranks}")
                for ranks in (1, 2)
            )
            values = [f"{a:.3g}, {b:.3g}" for a, b in zip(one, two, strict=True)]
            ratios = f"{two[0] / one[0]:.2f}, {two[1] / one[1]:.2f}"
            print(f"Round {at + 1}: | {' | '.join(values)} | {ratios}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 5:
        train(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        main(sys.argv[1:])
