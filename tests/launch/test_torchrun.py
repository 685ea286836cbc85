"""What torchrun's log says of a launch that failed."""

from pathlib import Path

import pytest

from reasoning_lab.launch.torchrun import Launch

REPORT = """
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
Root Cause (first observed failure):
[0]:
  time      : 2026-11-29_21:00:00
  host      : here
  rank      : 1 (local_rank: 1)
  exitcode  : {exit_code} (pid: 77)
"""
TRACEBACK = """\
Traceback (most recent call last):
  File "/somewhere/job.py", line 1, in main
    work(folder, verifier)
OSError: [Errno 28] No space left on device
Traceback (most recent call last):
  File "/somewhere/job.py", line 1, in main
RuntimeError: Connection closed by peer
"""


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    return Launch("rl", 1, 2, 0, tmp_path)


def test_the_first_error_of_the_processes_is_told(launch: Launch) -> None:
    log = TRACEBACK + REPORT.format(exit_code=1)
    (launch.folder / "processes-0.log").write_text(log)
    assert launch.failed_process() == (
        "the process of rank 1 failed with exit code 1 "
        "(OSError: [Errno 28] No space left on device)"
    )


def test_a_process_that_says_nothing_is_named_alone(launch: Launch) -> None:
    (launch.folder / "processes-0.log").write_text(REPORT.format(exit_code=1))
    assert launch.failed_process() == "the process of rank 1 failed with exit code 1"


def test_of_a_killed_process_its_signal_is_told(launch: Launch) -> None:
    """Its peers' errors say only that it is gone."""
    (launch.folder / "processes-0.log").write_text(TRACEBACK + REPORT.format(exit_code=-9))
    assert launch.failed_process() == "the process of rank 1 was killed by signal 9"
