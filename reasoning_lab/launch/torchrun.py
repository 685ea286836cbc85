"""torchrun on this machine: started for a saved job, ended with the process that started it."""

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

_PATIENCE_S = 40.0
# What torchrun writes of each process that failed.
_FAILED = re.compile(r"^\s*rank\s*:\s*(\d+) .*\n\s*exitcode\s*:\s*(-?\d+) ", re.MULTILINE)


@contextlib.contextmanager
def torchrun(
    options: Sequence[str], folder: Path, log_file: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Start it with `options`; its processes do the job in `folder`, and have ended afterwards.

    Deaf to the terminal's Ctrl-C: this process decides, and closing their input ends them.
    """
    words = [sys.executable, "-m", "torch.distributed.run", *options]
    with log_file.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*words, "-m", "reasoning_lab.launch.rank", str(folder)],
            stdin=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            _end(process)


def rendezvous(
    nodes: int, node: int, processes: int, address: str = "", port: int = 0
) -> list[str]:
    """The options by which `nodes` machines, this one's number being `node`, find each other.

    `address` and `port` are those of the first, which a machine alone does not need.
    """
    options = [f"--nproc-per-node={processes}"]
    if nodes == 1:
        return ["--standalone", *options]
    where = [f"--master-addr={address}", f"--master-port={port}"]
    return [f"--nnodes={nodes}", f"--node-rank={node}", *where, *options]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End torchrun and its processes, which end by themselves once their input is closed."""
    assert process.stdin is not None
    process.stdin.close()
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run_here(processes: int, folder: Path) -> str | None:
    """Do the job in `folder` in so many processes; what went wrong, None = nothing."""
    with torchrun(rendezvous(1, 0, processes), folder, log_of(folder, 0)) as process:
        if process.wait() == 0:
            return None
    return failure(folder) or "the processes ended before their time"


def log_of(folder: Path, node: int) -> Path:
    """What the processes of one machine say."""
    return folder / f"processes-{node}.log"


def logs_of(folder: Path) -> list[Path]:
    """What the machines that began have said, in order."""
    return sorted(folder.glob("processes-*.log"))


def failure(folder: Path) -> str | None:
    """Which process failed, from torchrun's own account; one that was killed comes first."""
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in logs_of(folder)]
    found = [told for text in texts for told in _FAILED.findall(text)]
    failed = sorted({(int(code), int(number)) for number, code in found})
    killed = [(code, number) for code, number in failed if code < 0 and code != -15]
    for code, number in killed or failed:
        how = f"was killed by signal {-code}" if code < 0 else f"failed with exit code {code}"
        return f"the process of rank {number} {how}"
    return None
