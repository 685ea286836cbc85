"""A saved job as processes of one machine or of several, by torchrun.

torchrun and its ranks end with the process that started them.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# What the ranks leave in the launch's folder: the stage's outcome, a stop, a mistake of each rank.
OUTCOME, STOPPED, MISTAKES = "outcome.json", "stopped.json", "mistake-{}.txt"
_POLL_S = 0.5
_TERMINATION_TIMEOUT_S = 40.0
# torchrun's own report of each failed process.
_FAILED_PROCESS = re.compile(r"^\s*rank\s*:\s*(\d+) .*\n\s*exitcode\s*:\s*(-?\d+) ", re.MULTILINE)

# The last line of a traceback.
_ERROR = re.compile(
    r"^(?:\[rank\d+\]: *)?([A-Za-z_][\w.]*(?:Error|Exception)): *(.*)$", re.MULTILINE
)
_MOST_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Launch:
    """A saved job and what it takes.

    Attributes:
        name: The stage's name.
        nodes: Number of machines.
        processes: Processes on each machine.
        gpus: GPUs on each machine.
        folder: Folder of the saved job, at the same path on every machine.
    """

    name: str
    nodes: int
    processes: int
    gpus: int
    folder: Path

    def run_here(
        self,
        node: int = 0,
        address: str = "",
        port: int = 0,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> str | None:
        """Run one machine's part of the job on this machine.

        Args:
            node: The machine's number.
            address: Address of the first machine; unused with one machine.
            port: Free port of the first machine; unused with one machine.
            is_wanted: Asked all the time; False = the processes are ended.

        Returns:
            The failure in words; None = success.
        """
        options = ["--standalone"]
        if self.nodes > 1:
            options = [f"--nnodes={self.nodes}", f"--node-rank={node}"]
            options += [f"--master-addr={address}", f"--master-port={port}"]
        options.append(f"--nproc-per-node={self.processes}")
        log_file = self.folder / f"processes-{node}.log"
        with _torchrun(options, self.folder, log_file) as process:
            while is_wanted():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    failed = process.wait(_POLL_S) != 0
                    return f"the processes of machine {node} failed" if failed else None
        return "the command that submitted the job has ended"

    def logs(self) -> list[Path]:
        """The logs of all machines that have started, in order."""
        return sorted(self.folder.glob("processes-*.log"))

    def failed_process(self) -> str | None:
        """Name the process that failed, by torchrun's logs; one that was killed comes first."""
        logs = [path.read_text(encoding="utf-8", errors="replace") for path in self.logs()]
        matches = [match for text in logs for match in _FAILED_PROCESS.findall(text)]
        failed = sorted({(int(exit_code), int(rank)) for rank, exit_code in matches})
        killed = [(code, rank) for code, rank in failed if code < 0 and code != -15]
        for exit_code, rank in killed or failed:
            if exit_code < 0:
                return f"the process of rank {rank} was killed by signal {-exit_code}"
            error = next((e for text in logs if (e := _first_error(text))), None)
            because = f" ({error})" if error else ""
            return f"the process of rank {rank} failed with exit code {exit_code}{because}"
        return None


def _first_error(log: str) -> str | None:
    """The first error that a process of ours ended with, in one line."""
    errors = (
        match for match in _ERROR.findall(log) if not match[0].startswith("torch.distributed")
    )
    return next((f"{name}: {said}"[:_MOST_CHARACTERS] for name, said in errors), None)


@contextlib.contextmanager
def _torchrun(
    options: Sequence[str], folder: Path, log_file: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Start torchrun with `options` on the job in `folder`; its processes have ended afterwards.

    Neither the terminal's Ctrl-C nor the SIGTERM that a cluster sends to all processes ends
    torchrun, which would give its ranks 30 seconds for their state. This process decides when it
    stops: the ranks end when their standard input is closed.
    """
    command = [sys.executable, "-m", "torch.distributed.run", *options]
    with log_file.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*command, "-m", "reasoning_lab.launch.rank", str(folder)],
            stdin=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGINT"},
            preexec_fn=_only_sigint,
        )
        try:
            yield process
        finally:
            _terminate(process)


def _only_sigint() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _terminate(process: subprocess.Popen[bytes]) -> None:
    """End torchrun; its ranks end by themselves once their standard input is closed."""
    assert process.stdin is not None
    process.stdin.close()
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_TERMINATION_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
