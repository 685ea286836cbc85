"""Drawing the tiny recipe's problems, stage after stage in one process, and all of them once more.

`python -m tests.benchmarks.draws` prints the seconds of CPU that each draw takes. The runs of a
sweep draw again what an earlier one drew.
"""

from time import process_time
from typing import Any

from reasoning_lab.commands.schemas import register_schemas
from reasoning_lab.commands.sweep import recipes
from reasoning_lab.data.sources.streams import stream_of
from reasoning_lab.types import Split

SEED = 0


def main() -> None:
    register_schemas()
    (recipe,) = recipes([f"seed={SEED}"])
    source = recipe.root.data.build()
    stages = ("pretrain", "distill", "prefer", "rl")
    print(f"| draw | {' | '.join(stages)} | together |")
    print("| :-- " + "| --: " * (len(stages) + 1) + "|")
    for name in ("first", "again"):
        seconds = []
        for stage in stages:
            config: Any = recipe.root.stages[stage]
            problems = config.problems
            before = process_time()
            stream = stream_of(source, problems.stream, f"stages.{stage}.problems")
            assert problems.count == sum(
                1 for _ in stream.problems(Split.TRAIN, problems.levels, problems.count, SEED)
            )
            seconds.append(process_time() - before)
        cells = [f"{value:.1f}" for value in (*seconds, sum(seconds))]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
