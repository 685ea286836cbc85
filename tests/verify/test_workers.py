"""Worker processes: their limits, what they share with their parent, and when they end."""

import os
import time
from pathlib import Path

import pytest
import torch

from reasoning_lab.types import Problem, Verdict
from reasoning_lab.verify import Verifier
from tests.support.processes import fork_server_children, settled_children
from tests.support.verification import boxed, gym_problem

GCD = gym_problem("gcd", "12")
FORMULA = Problem("a formula?", "5", "math", "math")


def test_the_memory_cap_holds() -> None:
    # 2^(10^10) needs 1.25 GB; without the cap it runs into the time limit.
    with Verifier(workers=1, timeout_s=30, memory_mb=32) as small:
        start = time.perf_counter()
        [(_, verdict)] = small.verify([FORMULA], [boxed("2^{10^{10}}")])
        assert verdict in (Verdict.TIMEOUT, Verdict.UNPARSEABLE, Verdict.WRONG)
        assert time.perf_counter() - start < 15
        assert small.verify([FORMULA], [boxed("5.0")]) == [("5.0", Verdict.CORRECT)]


def test_workers_hold_no_torch_and_end_with_the_pool() -> None:
    assert torch.__version__
    before = settled_children()
    with Verifier(workers=2, timeout_s=5, memory_mb=256) as verifier:
        verifier.verify([GCD] * 4, [boxed("13")] * 4)
        started = fork_server_children() - before
        assert len(started) == 2
        assert "libtorch" in Path("/proc/self/maps").read_text()
        for pid in started:
            assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()
        verifier.verify([GCD] * 4, [boxed("14")] * 4)
        assert fork_server_children() - before == started
        os.kill(min(started), 9)
        time.sleep(0.5)
        assert verifier.verify([GCD], [boxed("13")]) == [("13", Verdict.WRONG)]
    assert fork_server_children() == before


def test_checks_inside_a_worker_of_joblibs() -> None:
    """joblib's default start method is unknown outside its workers."""
    joblib = pytest.importorskip("joblib")
    (verdicts,) = joblib.Parallel(n_jobs=2)([joblib.delayed(_verdicts_of_a_new_pool)()])
    assert verdicts == [Verdict.CORRECT, Verdict.WRONG]


def _verdicts_of_a_new_pool() -> list[Verdict]:
    problem = Problem("1/2 of 4?", "2", "math", "halves")
    with Verifier(workers=1, timeout_s=20, memory_mb=1024) as verifier:
        answers = ["\\boxed{4/2}", "\\boxed{3}"]
        return [verdict for _, verdict in verifier.verify([problem] * 2, answers)]
