"""A vLLM server of the trainers' own, on loopback, which ends with the process that started it.

Between the two stands this module, run as a program: the server never reads its input, so the
program does, and ends the server and its workers when that is closed, however the process that
held it open ended.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.sampling.vllm import LOGPROBS_MODE
from reasoning_lab.types import UserError

log = logging.getLogger(__name__)

_SERVER = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
_PATIENCE_S = 20.0
# What torchrun tells a trainer of its peers, which the server's own workers would take for theirs.
_TORCHRUN = ("RANK", "LOCAL_", "ROLE_", "GROUP_", "WORLD_SIZE", "MASTER_", "TORCHELASTIC_")


@contextmanager
def served(model: Path, dtype: str, hardware: HardwareConfig, output: Path) -> Iterator[str]:
    """The address of a server on `model` that is up; `output` gets what it says.

    Raises:
        UserError: It ended before it answered.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", __name__, *_options(model, dtype, hardware, port)]
    with output.open("w") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=_environment(hardware),
        )
    assert process.stdin is not None
    url = f"http://127.0.0.1:{port}"
    log.info("Starting vLLM at %s.", url)
    try:
        while not _answers(url):
            if process.poll() is not None:
                raise UserError(
                    f"hardware.sampling: the vLLM server ended before it answered; {output} tells "
                    "why; give it the memory that it needs (memory_frac, kv_cache_gb), or name "
                    "servers that run already by hardware.sampling.rollout_urls"
                )
            time.sleep(0.5)
        yield url
    finally:
        process.stdin.close()
        process.wait()


def _options(model: Path, dtype: str, hardware: HardwareConfig, port: int) -> list[str]:
    engine = hardware.sampling
    options = ["--model", str(model.absolute()), "--dtype", dtype]
    options += ["--host", "127.0.0.1", "--port", str(port)]
    options += ["--tensor-parallel-size", str(engine.tensor_parallel_size)]
    options += ["--data-parallel-size", str(engine.data_parallel_size)]
    options += ["--gpu-memory-utilization", str(engine.memory_frac)]
    options += ["--logprobs-mode", LOGPROBS_MODE]
    if engine.kv_cache_gb is not None:
        options += ["--kv-cache-memory-bytes", str(round(engine.kv_cache_gb * 2**30))]
    if hardware.accelerator == "cpu":
        # On a CPU a seeded request whose prompt is read in pieces brings vLLM down.
        options += ["--enforce-eager", "--no-enable-chunked-prefill"]
    return options


def _environment(hardware: HardwareConfig) -> dict[str, str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_TORCHRUN)}
    environment["VLLM_SERVER_DEV_MODE"] = "1"
    if hardware.accelerator == "cpu":
        environment |= {"TORCHDYNAMO_DISABLE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        if hardware.threads is not None:
            environment["OMP_NUM_THREADS"] = str(hardware.threads)
    return environment


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).is_success
    except httpx.TransportError:
        return False


def main() -> None:
    """Run the server with this program's arguments until it ends, or this program's input does."""
    os.setpgid(0, 0)  # Ctrl-C is for the trainers.
    server = subprocess.Popen([*_SERVER, *sys.argv[1:]], stdin=subprocess.DEVNULL)

    def watch() -> None:
        os.read(0, 1)
        server.send_signal(signal.SIGINT)
        try:
            server.wait(_PATIENCE_S)
        finally:
            # With its workers, and this program, which leads their group.
            os.killpg(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    sys.exit(server.wait())


if __name__ == "__main__":
    main()
