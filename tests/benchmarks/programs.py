"""Speed of the verifier on programs, one JSON line: programs a second, and CPU time of each.

    python -m tests.benchmarks.programs [--workers 2] [--programs 1000]

The programs are the reference programs of `tests/support/program_forms.txt`, in turn. The CPU time
counts all processes; unlike the wall-clock time, other programs of the machine hardly change it.
"""

import argparse
import json
import resource
import time
from itertools import cycle, islice

from reasoning_lab.types import Verdict
from reasoning_lab.verify import Verifier
from tests.support.program_forms import FORMS
from tests.support.programs import fenced


def cpu_s() -> float:
    """CPU seconds of this process and of the children that it waited for."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--programs", type=int, default=1000)
    arguments = parser.parse_args()
    # The limit is far: a busy machine must not turn a verdict into a timeout.
    verifier = Verifier(arguments.workers, timeout_s=60, memory_mb=1024)
    problems = list(islice(cycle(FORMS.values()), arguments.programs))
    # Another text than the gold's, which would be correct without a run.
    texts = [fenced(f"{problem.gold}\n# a copy") for problem in problems]
    start_cpu_s, start = cpu_s(), time.perf_counter()
    with verifier:
        verdicts = [verdict for _, verdict in verifier.verify(problems, texts)]
    wall_s, used_s = time.perf_counter() - start, cpu_s() - start_cpu_s
    assert set(verdicts) == {Verdict.CORRECT}
    figures = {
        "workers": arguments.workers,
        "programs": len(problems),
        "programs_per_s": len(problems) / wall_s,
        "cpu_ms_per_program": 1_000 * used_s / len(problems),
    }
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
