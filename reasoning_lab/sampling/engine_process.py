"""An engine in a process of its own, which is started again where it dies.

An engine such as vLLM has process groups of its own, which a trainer's would collide with, and what
ends it should not end the training. So it runs beside the trainer: this module is also the program
of that process. Requests go through a socket, weights through memory (`shared_weights.py`).

A request that an engine dies of is repeated on a new one, which has the same weights. As a seed
fixes a completion, the answer is the one that the first engine would have given. The process ends
as soon as the socket closes, however the trainer ends.
"""

import logging
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from reasoning_lab.sampling.engine import InterruptibleEngine, Sampling
from reasoning_lab.types import Completion, Prompt, UserError

if TYPE_CHECKING:
    from torch import Tensor

    from reasoning_lab.sampling.shared_weights import Places

log = logging.getLogger(__name__)

# A request that ends so many engines in a row would end the next one too.
_MOST_DEATHS = 3
# An engine closes the socket with its end, and takes so long at most from there.
_END_TIMEOUT_S = 30.0


class LoadableEngine(InterruptibleEngine, Protocol):
    """An engine that takes other weights of its architecture."""

    def load_weights(self, weights: Iterable[tuple[str, "Tensor"]]) -> None:
        """Sample from these weights, each with its name in the policy, from now on."""
        ...


class EngineProcess:
    """An engine in a process of its own; it has the methods of `InterruptibleEngine`.

    Args:
        build: Builds the engine there; it must be picklable.
        environment: The process's environment variables.
        output: File to which the process's output is appended; None = it goes to this process's.
        name: Names the engine in errors and in the log.

    Raises:
        UserError: As `build` does, or the process ended before the engine was built.
    """

    def __init__(
        self,
        build: Callable[[], LoadableEngine],
        environment: Mapping[str, str],
        output: Path | None,
        name: str,
    ) -> None:
        from reasoning_lab.sampling.shared_weights import SharedWeights

        self._build, self._environment = build, environment
        self._output, self._name = output, name
        self._shows_why = "what it said shows why" if output is None else f"{output} shows why"
        self._shared = SharedWeights()
        self._weights: Callable[[], Mapping[str, Tensor]] | None = None
        self._version: int | None = None
        self._process, self._connection = self._launched()
        try:
            self._build_there()
        except UserError:
            self.close()
            raise
        except (EOFError, OSError):
            code = self._ended()
            self.close()
            raise UserError(
                f"hardware.sampling: {name} ended before it was ready ({code}); "
                f"{self._shows_why}; give it the memory that it needs (memory_frac, kv_cache_gb)"
            ) from None

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """As the engine does.

        Raises:
            UserError: As the engine does, or it has died too often of these prompts.
        """
        return self._request("generate", prompts, sampling, seeds)  # type: ignore[no-any-return]

    def extend(
        self,
        prompts: Sequence[Prompt],
        started: Sequence[Completion],
        sampling: Sampling,
        seeds: Sequence[int],
        most_tokens: int,
    ) -> list[Completion]:
        """As `InterruptibleEngine` has it.

        Raises:
            UserError: As in `generate`.
        """
        extended: list[Completion] = self._request(
            "extend", prompts, started, sampling, seeds, most_tokens
        )
        return extended

    def load(self, weights: "Callable[[], Mapping[str, Tensor]]", version: int) -> None:
        """Sample from `weights` from now on.

        Args:
            weights: Gives them by name. It is asked again where the engine is started again, so
                what it gives stays the same until the next `load`.
            version: Equal versions have equal weights, which are loaded only once.
        """
        if version == self._version:
            return
        self._weights, self._version = weights, version
        self._with_restarts(self._send_weights)

    def close(self) -> None:
        """End the process and free the memory of the weights."""
        self._connection.close()
        self._ended()
        self._shared.close()

    def _request(self, method: str, *arguments: Any) -> Any:
        def exchange() -> Any:
            self._connection.send((method, arguments))
            return self._receive()

        return self._with_restarts(exchange)

    def _with_restarts(self, exchange: Callable[[], Any]) -> Any:
        """What `exchange` returns, on a new engine where the process ends meanwhile."""
        for deaths in range(1, _MOST_DEATHS + 1):
            try:
                return exchange()
            except (EOFError, OSError):
                log.warning(
                    "%s died (%s): it is started again, gets the weights, and draws the rollouts "
                    "again; %s.",
                    self._name,
                    self._ended(),
                    self._shows_why,
                )
            if deaths < _MOST_DEATHS:
                self._restart()
        raise UserError(
            f"hardware.sampling: {self._name} died {_MOST_DEATHS} times in a row; "
            f"{self._shows_why}; give it the memory that it needs (memory_frac, kv_cache_gb), and "
            "run the same command again to go on from the last checkpoint"
        )

    def _restart(self) -> None:
        """Start the process again; one that ends at once is noticed by the next request."""
        self._connection.close()
        self._process, self._connection = self._launched()
        try:
            self._build_there()
            if self._weights is not None:
                self._send_weights()
        except (EOFError, OSError):
            log.warning("%s ended again (%s) before it was ready.", self._name, self._ended())

    def _launched(self) -> tuple["subprocess.Popen[bytes]", Connection]:
        """A new process and the socket to it, on which it waits for what to build."""
        ours, theirs = Pipe()
        descriptors = (theirs.fileno(), self._shared.fileno)
        with ExitStack() as stack:
            stream = None
            if self._output is not None:
                stream = stack.enter_context(self._output.open("ab"))
            process = subprocess.Popen(
                [sys.executable, "-m", __name__, *map(str, descriptors)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=None if stream is None else subprocess.STDOUT,
                env=dict(self._environment),
                pass_fds=descriptors,
                process_group=0,  # Ctrl-C must reach only the trainers.
            )
        theirs.close()
        return process, ours

    def _build_there(self) -> None:
        """Have the process build its engine; OSError or EOFError where it ends meanwhile."""
        self._connection.send(self._build)
        self._receive()

    def _send_weights(self) -> None:
        assert self._weights is not None
        weights = self._weights()  # Alive until the engine has read them.
        places: Places = self._shared.write(weights)
        self._connection.send(("load_weights", (places,)))
        self._receive()
        del weights
        self._shared.release()

    def _receive(self) -> Any:
        reply = self._connection.recv()
        if isinstance(reply, UserError):
            raise reply
        return reply

    def _ended(self) -> str:
        """How the process ended, which it has, or is about to, or is killed."""
        try:
            code = self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"


def main() -> None:
    """Answer requests until the socket closes, or the engine fails."""
    socket, memory = map(int, sys.argv[1:])
    _end_with_socket(socket)
    try:
        _answer(Connection(socket), memory)
    except EOFError:
        _end()
    except BaseException:
        # Not through the interpreter's own end, which may wait for the engine's threads.
        traceback.print_exc()
        os._exit(1)


def _answer(connection: Connection, memory: int) -> None:
    """Answer with the engine that the first message builds."""
    try:
        engine: LoadableEngine = connection.recv()()
    except UserError as mistake:
        connection.send(mistake)
        return
    from reasoning_lab.sampling.shared_weights import read_weights

    reply: Any = None
    while True:
        connection.send(reply)
        method, arguments = connection.recv()
        try:
            if method == "load_weights":
                engine.load_weights(read_weights(memory, *arguments))
                reply = None
            else:
                reply = getattr(engine, method)(*arguments)
        except UserError as mistake:
            reply = mistake


def _end_with_socket(socket: int) -> None:
    """End this process when the other end of the socket closes, also while it generates."""
    closing = select.poll()
    closing.register(socket, 0)  # Of no event but its end.

    def watch() -> None:
        closing.poll()
        _end()

    threading.Thread(target=watch, daemon=True).start()


def _end() -> None:
    """End this process, which leads its group, and the workers of its engine."""
    os.killpg(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
