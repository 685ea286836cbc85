"""A million problems from a file: time to read them once and again, and memory.

`python tests/benchmarks/sources.py [ROWS]` prints one JSON line.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

SOLUTION = "Half of it is less than all of it, so we go on with the rest. " * 10


def write(path: Path, rows: int) -> None:
    with path.open("w") as lines:
        for number in range(rows):
            row = {"prompt": f"What is {number} + 1?", "gold": str(number + 1), "s": SOLUTION}
            lines.write(json.dumps(row) + "\n")


def measure_draw(path: Path, count: int) -> dict[str, float]:
    """In a process of its own, whose memory is that of the draw alone."""
    import datasets  # noqa: F401  Its import is no part of the times.

    from reasoning_lab.data.sources.config import FileConfig
    from reasoning_lab.data.sources.row_mapping import RowMapping
    from reasoning_lab.types import Split

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = perf_counter()
    rows = RowMapping(solutions="s")
    source = FileConfig(path=str(path), rows=rows, test_frac=0.01, validation_frac=0.01).build()
    opened = perf_counter()
    drawn = sum(1 for _ in source.problems(Split.TRAIN, [1], count, 0))
    return {
        "opened_s": round(opened - started, 2),
        "drawn": drawn,
        "drawn_s": round(perf_counter() - opened, 2),
        "rise_mib": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024),
        "anonymous_mib": round(_anonymous_kib() / 1024),
    }


def _anonymous_kib() -> int:
    """Memory that is not a mapped file, which Linux can drop when it must."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1])
    return 0


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write(path, rows)
        environment = {**os.environ, "HF_DATASETS_CACHE": folder}
        runs = [
            subprocess.run(
                [sys.executable, __file__, "draw", str(path), str(rows * 9 // 10)],
                env=environment,
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            for _ in range(2)
        ]
        first, again = (json.loads(run) for run in runs)
        size = path.stat().st_size >> 20
    print(json.dumps({"rows": rows, "file_mib": size, "first": first, "again": again}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["draw"]:
        print(json.dumps(measure_draw(Path(sys.argv[2]), int(sys.argv[3]))))
    else:
        main()
