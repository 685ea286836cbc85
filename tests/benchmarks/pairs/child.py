"""One side of a pair in a process of its own, which works when it is told to.

    python -m tests.benchmarks.pairs.child IMPORT.PATH FOLDER THREADS

Each line of stdin, `check` or `round`, is answered by a line of JSON: the work, the most memory
that the process has had so far, and what it had when it was ready: libraries, above all.
"""

import gc
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What libraries print is no answer.
    import torch

    from tests.benchmarks.footprint import resident
    from tests.benchmarks.pairs.work import side_of

    path, folder, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    side = side_of(path, Path(folder))
    # Not getrusage, which tells of a child what its parent had when it was started.
    ready = resident("VmHWM")
    for line in sys.stdin:
        gc.collect()  # Else a peak depends on when the last round's models go.
        work = side.check() if line.strip() == "check" else side.round()
        memory = {"ready_bytes": ready, "peak_bytes": resident("VmHWM")}
        answers.write(json.dumps({**asdict(work), **memory}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
