"""One side of a pair in its own process, which works on request.

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
    os.dup2(2, 1)  # Libraries may print, so answers have a file descriptor of their own.
    import torch

    from tests.benchmarks.footprint import resident
    from tests.benchmarks.pairs.work import side_of

    path, folder, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    side = side_of(path, Path(folder))
    # Not getrusage, which includes the parent's memory at the time of the fork.
    ready = resident("VmHWM")
    for line in sys.stdin:
        gc.collect()  # Otherwise the peak depends on when the last round's models are freed.
        work = side.check() if line.strip() == "check" else side.round()
        memory = {"ready_bytes": ready, "peak_bytes": resident("VmHWM")}
        answers.write(json.dumps({**asdict(work), **memory}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
