r"""A pool of sandboxed worker processes, each of which can be killed.

A model's answer is hostile input: `\boxed{10^{10^{10^{10}}}}` keeps sympy busy for ever, and sympy
may swallow an alarm. So pebble's processes do the work, under a memory cap and a time limit. A
worker writes no file, opens no socket, starts no program and sees no environment variable (see
`sandbox`).

A fork server forks the workers. It has the checkers imported, so it replaces a killed worker in
milliseconds. It is a fresh process without the parent's torch and threads, and ends with the
parent. The memory cap needs Linux. A script that uses the pool needs the usual
`if __name__ == "__main__":`.
"""

import importlib
import math
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from reasoning_lab.config.targets import TRUSTED_VARIABLE, trusted_folders, trusted_packages
from reasoning_lab.types import Problem, UserError
from reasoning_lab.verify.sandbox import SandboxError, enter_sandbox
from reasoning_lab.verify.user_checkers import start_checker_server, wait_for_checker_server

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHECKERS = "reasoning_lab.verify.checkers"
_CHUNK_ITEMS = 32
_START_TIMEOUT_S = 120
_MIB = 2**20
# What one item can do to its worker; the item's result is then None.
_ITEM_ERRORS = (TimeoutError, ProcessExpired, MemoryError)


class WorkerPool:
    """Calls a function on many items in worker processes, which start at the first call.

    The arguments are those of `Verifier`.
    """

    def __init__(self, workers: int, timeout_s: float, memory_mb: int) -> None:
        self._workers = workers
        self.timeout_s = timeout_s
        self.memory_mb = memory_mb
        self._pool: ProcessPool | None = None
        self._preparations: list[Callable[[], None]] = []

    def close(self) -> None:
        """End the workers, busy ones too; a later `map` starts new ones."""
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None

    def prepare(self, function: Callable[[], None]) -> None:
        """Have workers call a function before they enter the sandbox; running ones are ended."""
        self._preparations.append(function)
        self.close()

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result | None]:
        """Return the results in order; None = the item exceeded a limit or killed its worker.

        Items are sent in chunks. The items of a chunk that fails are sent again one by one.
        """
        size = max(1, min(_CHUNK_ITEMS, math.ceil(len(items) / self._workers)))
        chunks = [items[start : start + size] for start in range(0, len(items), size)]
        futures = [self._submit(function, chunk) for chunk in chunks]
        chunk_results = [
            _results_of_chunk(future) if len(chunk) > 1 else [_result_of_item(future)]
            for chunk, future in zip(chunks, futures, strict=True)
        ]
        failed = [c for c, results in zip(chunks, chunk_results, strict=True) if results is None]
        retries = iter([self._submit(function, [item]) for chunk in failed for item in chunk])
        in_order: list[Result | None] = []
        for chunk, results in zip(chunks, chunk_results, strict=True):
            in_order += results or [_result_of_item(next(retries)) for _ in chunk]
        return in_order

    def _submit(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> ProcessFuture[list[Result]]:
        # A pool breaks when another process kills an idle worker.
        if self._pool is None or not self._pool.active:
            self.close()
            _reset_unknown_start_method()
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([_CHECKERS])
            self._pool = ProcessPool(
                max_workers=self._workers,
                initializer=_start_worker,
                initargs=(
                    self.memory_mb,
                    os.environ.get(TRUSTED_VARIABLE, ""),
                    self._preparations,
                ),
                context=context,
            )
            # Without this check, pebble would restart a worker that cannot start for ever.
            try:
                self._pool.schedule(os.getpid).result(timeout=_START_TIMEOUT_S)
            except TimeoutError:
                self.close()
                raise UserError(
                    f"The verifier's workers did not start within {_START_TIMEOUT_S} s. They "
                    "import the script that runs: put its lines below `if __name__ == '__main__':`"
                ) from None
        return self._pool.schedule(
            _run_chunk, args=(function, items, self.timeout_s), timeout=self.timeout_s
        )


def _reset_unknown_start_method() -> None:
    """Undo a default start method that only this process knows, such as joblib's `loky`.

    Every new process receives the default of its parent, and fails on one that it does not know.
    """
    known = multiprocessing.get_all_start_methods()
    if multiprocessing.get_start_method(allow_none=True) not in (None, *known):
        multiprocessing.set_start_method(None, force=True)


def _results_of_chunk(future: ProcessFuture[list[Result]]) -> list[Result | None] | None:
    """Return a chunk's results; None = one of its items exceeded a limit or killed the worker."""
    # Catching the error would tie it to the frames of every caller, with all their texts.
    if isinstance(future.exception(), (*_ITEM_ERRORS, BrokenProcessPool)):
        return None
    return [*future.result()]


def _result_of_item(future: ProcessFuture[list[Result]]) -> Result | None:
    if isinstance(future.exception(), _ITEM_ERRORS):
        return None
    return future.result()[0]


def _start_worker(memory_mb: int, trusted: str, preparations: Sequence[Callable[[], None]]) -> None:
    # The environment of the fork server is that of its own start.
    os.environ[TRUSTED_VARIABLE] = trusted
    # A sandboxed worker cannot start this server, and no fork of a worker may serve answers.
    if trusted_packages():
        start_checker_server(memory_mb)
    checkers = importlib.import_module(_CHECKERS)
    # The first parse builds tables for some 0.2 s, which should count against no answer.
    checkers.check(Problem("warm-up", gold="\\frac{1}{2}", checker="math", family=""), "2")
    for prepare in preparations:
        prepare()
    wait_for_checker_server()
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _set_soft_limit(resource.RLIMIT_AS, pages * resource.getpagesize() + memory_mb * _MIB)
    _set_soft_limit(resource.RLIMIT_CORE, 0)
    # The lab's checkers evaluate no answer, so they also work where the kernel has no sandbox.
    with suppress(SandboxError):
        enter_sandbox(trusted_folders())


def _set_soft_limit(limit: int, amount: int) -> None:
    """Set a soft resource limit of this process, within its hard limit."""
    _, hard = resource.getrlimit(limit)
    soft = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
    resource.setrlimit(limit, (soft, hard))


def _run_chunk(
    function: Callable[[Item], Result], items: Sequence[Item], timeout_s: float
) -> list[Result]:
    # Pebble kills a worker that takes too long. This limit ends it when the parent was killed.
    _set_soft_limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + 2 * timeout_s) + 1)
    return [function(item) for item in items]
