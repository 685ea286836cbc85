"""torchrun on this machine: it runs a saved job and ends with the process that started it."""

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

_TERMINATION_TIMEOUT_S = 40.0
# torchrun's own report of each failed process.
_FAILED_PROCESS = re.compile(r"^\s*rank\s*:\s*(\d+) .*\n\s*exitcode\s*:\s*(-?\d+) ", re.MULTILINE)


@contextlib.contextmanager
def torchrun(
    options: Sequence[str], folder: Path, log_file: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Start torchrun with `options` on the job in `folder`; its processes have ended afterwards.

    The terminal's Ctrl-C does not reach torchrun. This process decides when it stops: the ranks
    end when their standard input is closed.
    """
    command = [sys.executable, "-m", "torch.distributed.run", *options]
    with log_file.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*command, "-m", "reasoning_lab.launch.rank", str(folder)],
            stdin=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            _terminate(process)


def torchrun_options(
    nodes: int, node: int, processes: int, address: str = "", port: int = 0
) -> list[str]:
    """Torchrun's options for one machine of a job.

    Args:
        nodes: Machines of the job.
        node: This machine's number.
        processes: Processes on each machine.
        address: Address of the first machine; unused with one machine.
        port: Free port of the first machine; unused with one machine.
    """
    options = [f"--nproc-per-node={processes}"]
    if nodes == 1:
        return ["--standalone", *options]
    master = [f"--master-addr={address}", f"--master-port={port}"]
    return [f"--nnodes={nodes}", f"--node-rank={node}", *master, *options]


def _terminate(process: subprocess.Popen[bytes]) -> None:
    """End torchrun; its ranks end by themselves once their standard input is closed."""
    assert process.stdin is not None
    process.stdin.close()
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_TERMINATION_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run_locally(processes: int, folder: Path) -> str | None:
    """Run the job in `folder` in `processes` on this machine; the failure in words, or None."""
    with torchrun(torchrun_options(1, 0, processes), folder, log_path(folder, 0)) as process:
        if process.wait() == 0:
            return None
    return describe_failure(folder) or "the processes ended too early"


def log_path(folder: Path, node: int) -> Path:
    """The log of one machine's processes."""
    return folder / f"processes-{node}.log"


def log_paths(folder: Path) -> list[Path]:
    """The logs of all machines that have started, in order."""
    return sorted(folder.glob("processes-*.log"))


def describe_failure(folder: Path) -> str | None:
    """Name the process that failed, from torchrun's logs; a process that was killed comes first."""
    logs = [path.read_text(encoding="utf-8", errors="replace") for path in log_paths(folder)]
    matches = [match for text in logs for match in _FAILED_PROCESS.findall(text)]
    failed = sorted({(int(exit_code), int(rank)) for rank, exit_code in matches})
    killed = [(exit_code, rank) for exit_code, rank in failed if exit_code < 0 and exit_code != -15]
    for exit_code, rank in killed or failed:
        cause = (
            f"was killed by signal {-exit_code}"
            if exit_code < 0
            else f"failed with exit code {exit_code}"
        )
        return f"the process of rank {rank} {cause}"
    return None
