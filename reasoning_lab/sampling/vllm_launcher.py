"""Start a vLLM server on loopback, which ends with the process that started it.

This module also runs as a program between the two. It reads its input, which the server never does.
The input closes however the parent process ends, and then the program ends the server and its
workers.
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
from reasoning_lab.sampling.vllm import LOGPROBS_MODE, vllm_environment
from reasoning_lab.types import UserError

log = logging.getLogger(__name__)

_SERVER = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
_SHUTDOWN_TIMEOUT_S = 20.0


@contextmanager
def running_server(
    model: Path, dtype: str, hardware: HardwareConfig, output: Path
) -> Iterator[str]:
    """Start a server on `model` and yield its address once it responds.

    Args:
        model: Folder of the checkpoint.
        dtype: The precision of weights and arithmetic.
        hardware: The devices and the limits of memory.
        output: File that receives the server's output.

    Raises:
        UserError: The server ended before it responded.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", __name__, *_options(model, dtype, hardware, port)]
    with output.open("w") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=vllm_environment(hardware) | {"VLLM_SERVER_DEV_MODE": "1"},
        )
    assert process.stdin is not None
    url = f"http://127.0.0.1:{port}"
    log.info("Starting vLLM at %s.", url)
    try:
        while not _responds(url):
            if process.poll() is not None:
                raise UserError(
                    f"hardware.sampling: the vLLM server ended before it responded; {output} shows "
                    "why; give it the memory that it needs (memory_frac, kv_cache_gb), or give "
                    "the addresses of running servers in hardware.sampling.rollout_urls"
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
        # On a CPU vLLM crashes on a seeded request with a chunked prompt.
        options += ["--enforce-eager", "--no-enable-chunked-prefill"]
    return options


def _responds(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).is_success
    except httpx.TransportError:
        return False


def main() -> None:
    """Run the server with this program's arguments until it ends, or until the input closes."""
    os.setpgid(0, 0)  # Ctrl-C must reach only the trainers.
    server = subprocess.Popen([*_SERVER, *sys.argv[1:]], stdin=subprocess.DEVNULL)

    def end_with_input() -> None:
        os.read(0, 1)
        server.send_signal(signal.SIGINT)
        try:
            server.wait(_SHUTDOWN_TIMEOUT_S)
        finally:
            # The group has the server, its workers and this program, which leads it.
            os.killpg(os.getpid(), signal.SIGKILL)

    threading.Thread(target=end_with_input, daemon=True).start()
    sys.exit(server.wait())


if __name__ == "__main__":
    main()
