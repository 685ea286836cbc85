r"""Verdicts for many completions at once, in worker processes that can be killed.

A model's answer is hostile input: `\boxed{10^{10^{10^{10}}}}` keeps sympy busy for ever, and an
alarm that sympy happens to swallow doesn't end it. So the comparison runs in pebble's processes,
under a memory cap and a time limit; extraction, which is linear, stays in the parent.

A worker writes no file, opens no socket, starts no program and knows no environment variable (see
`sandbox`). No checker of the lab evaluates an answer; this is a second wall.

Workers are forked from a fork server that has the checkers imported, so a killed one is replaced
in milliseconds. The server is a fresh process: it has none of the parent's torch or its threads.
It ends with the parent.

A gold may be as bad as an answer, so it too is read there, once, before an answer that repeats
its text counts as correct. The memory cap needs Linux; a script that uses this needs the usual
`if __name__ == "__main__":`.
"""

import hashlib
import importlib
import math
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.targets import TRUSTED_VARIABLE, trusted_folders, trusted_packages
from reasoning_lab.types import Problem, UserError, Verdict
from reasoning_lab.verify.answers import extract_answer, nesting_depth
from reasoning_lab.verify.own_rules import await_answer_process, start_answer_process
from reasoning_lab.verify.sandbox import SandboxError, seal

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHECKERS = "reasoning_lab.verify.checkers"
_MAX_ANSWER_CHARS = 2_000
# math-verify's time doubles with each level from here on; published answers have 4 at most.
_MAX_NESTING = 12
_CHUNK_ITEMS = 32
# A digest takes some 120 bytes.
_MAX_KNOWN_GOLDS = 2**17
_CHECKERS_OF_GOLD_ALONE = ("math", "number")
_START_S = 120
_MIB = 2**20
# What one answer can do to a worker; all three become TIMEOUT.
_CULPRIT_ERRORS = (TimeoutError, ProcessExpired, MemoryError)


class Verifier:
    """Gives each completion its verdict; processes start when first needed and are reused.

    An answer that exceeds its time or memory gets TIMEOUT, unless its library swallows the
    MemoryError, which then reads as UNPARSEABLE or WRONG: never as CORRECT.

    Args:
        workers: Number of worker processes.
        timeout_s: Most seconds that one answer may take.
        memory_mb: Most MiB of address space that a worker may take beyond its imports.
    """

    def __init__(self, workers: int, timeout_s: float, memory_mb: int) -> None:
        self._workers = workers
        self._timeout_s = timeout_s
        self._memory_mb = memory_mb
        self._pool: ProcessPool | None = None
        # Keys of golds that were read, oldest first.
        self._readable: dict[bytes, None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, busy ones too; a later `verify` starts new ones."""
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None

    def verify(
        self, problems: Sequence[Problem], texts: Sequence[str]
    ) -> list[tuple[str | None, Verdict]]:
        """Return (extracted answer, verdict) for each completion text, in order.

        Args:
            problems: What was asked, one for each text.
            texts: Completion texts.

        Raises:
            UserError: A problem's checker is unknown or can't read its gold.
        """
        answers = [extract_answer(text) for text in texts]
        verdicts = [_quick_verdict(p, a) for p, a in zip(problems, answers, strict=True)]
        repeated = (p for p, v in zip(problems, verdicts, strict=True) if v is Verdict.CORRECT)
        for complaint in self._complaints(repeated).values():
            raise UserError(complaint)
        items = [
            (problem, answer)
            for problem, answer, verdict in zip(problems, answers, verdicts, strict=True)
            if verdict is None and answer is not None
        ]
        checked = iter(self._run(_verdict, items))
        return [
            (answer, verdict or next(checked) or Verdict.TIMEOUT)
            for answer, verdict in zip(answers, verdicts, strict=True)
        ]

    def unreadable_golds(self, problems: Sequence[Problem]) -> list[Problem]:
        """Return the problems whose gold the checker can't read, in order.

        A gold that exceeds its time or memory is one of them. Each distinct gold is read once.

        Raises:
            UserError: A checker is unknown.
        """
        complaints = self._complaints(problems)
        return [problem for problem in problems if _gold_key(problem) in complaints]

    def _complaints(self, problems: Iterable[Problem]) -> dict[bytes, str]:
        """What is wrong with the golds that can't be read, by their keys."""
        keyed = {_gold_key(problem): problem for problem in problems}
        unknown = [(key, p) for key, p in keyed.items() if key not in self._readable]
        complaints = {}
        results = self._run(_complaint, [problem for _, problem in unknown])
        for (key, problem), complaint in zip(unknown, results, strict=True):
            if complaint is None:
                complaints[key] = (
                    f"{problem.origin}: to read the gold {problem.gold[:100]!r} takes more than "
                    f"{self._timeout_s:g} s or {self._memory_mb} MiB; drop this problem"
                )
            elif complaint:
                complaints[key] = complaint
            else:
                self._readable[key] = None
        while len(self._readable) > _MAX_KNOWN_GOLDS:
            del self._readable[next(iter(self._readable))]
        return complaints

    def _run(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result | None]:
        """Results in order: in chunks, then one by one where a chunk didn't come back.

        None stands for an item that spent its time, its memory or its worker.
        """
        size = max(1, min(_CHUNK_ITEMS, math.ceil(len(items) / self._workers)))
        chunks = [items[start : start + size] for start in range(0, len(items), size)]
        futures = [self._submit(work, chunk) for chunk in chunks]
        found = [
            _chunk_results(future) if len(chunk) > 1 else [_single_result(future)]
            for chunk, future in zip(chunks, futures, strict=True)
        ]
        singles = iter(
            [
                self._submit(work, [item])
                for chunk, results in zip(chunks, found, strict=True)
                if results is None
                for item in chunk
            ]
        )
        in_order: list[Result | None] = []
        for chunk, results in zip(chunks, found, strict=True):
            in_order += results or [_single_result(next(singles)) for _ in chunk]
        return in_order

    def _submit(
        self, work: Callable[[Item], Result], items: Sequence[Item]
    ) -> ProcessFuture[list[Result]]:
        # A pool breaks when something from outside kills an idle worker.
        if self._pool is None or not self._pool.active:
            self.close()
            _forget_foreign_start_method()
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([_CHECKERS])
            self._pool = ProcessPool(
                max_workers=self._workers,
                initializer=_start_worker,
                initargs=(self._memory_mb, os.environ.get(TRUSTED_VARIABLE, "")),
                context=context,
            )
            # A worker that cannot start would be started again and again.
            self._pool.schedule(os.getpid).result(timeout=_START_S)
        return self._pool.schedule(
            _run_chunk, args=(work, items, self._timeout_s), timeout=self._timeout_s
        )


def verifier_of(hardware: HardwareConfig) -> Verifier:
    """A verifier with the configured workers and limits."""
    return Verifier(
        hardware.verifier_workers, hardware.verifier_timeout_s, hardware.verifier_memory_mb
    )


def _forget_foreign_start_method() -> None:
    """Undo a default that only this process knows, such as `loky` in a worker of joblib's.

    Every new process is told the default of the one that started it, and dies of one that it
    does not know.
    """
    known = multiprocessing.get_all_start_methods()
    if multiprocessing.get_start_method(allow_none=True) not in (None, *known):
        multiprocessing.set_start_method(None, force=True)


def _quick_verdict(problem: Problem, answer: str | None) -> Verdict | None:
    """Give the verdict that needs no parsing, or None; CORRECT holds only for a readable gold."""
    if answer is None:
        return Verdict.UNPARSEABLE
    if answer == problem.gold.strip():
        return Verdict.CORRECT
    if len(answer) > _MAX_ANSWER_CHARS or nesting_depth(answer) > _MAX_NESTING:
        return Verdict.UNPARSEABLE
    return None


def _gold_key(problem: Problem) -> bytes:
    """A digest of what decides whether the gold can be read."""
    needed = {
        key: value
        for key, value in problem.metadata.items()
        if key != "row" and problem.checker not in _CHECKERS_OF_GOLD_ALONE
    }
    described = repr((problem.checker, problem.gold, needed))
    return hashlib.blake2b(described.encode("utf-8", "replace"), digest_size=16).digest()


def _chunk_results(future: ProcessFuture[list[Result]]) -> list[Result | None] | None:
    """A chunk's results; None = some member spent the chunk's time, memory or worker."""
    # To catch the error would tie it to the frames of every caller, with all their texts.
    if isinstance(future.exception(), (*_CULPRIT_ERRORS, BrokenProcessPool)):
        return None
    return [*future.result()]


def _single_result(future: ProcessFuture[list[Result]]) -> Result | None:
    if isinstance(future.exception(), _CULPRIT_ERRORS):
        return None
    return future.result()[0]


def _start_worker(memory_mb: int, trusted: str) -> None:
    # The fork server has the environment of its own start.
    os.environ[TRUSTED_VARIABLE] = trusted
    # A sealed worker cannot start it, and it must not be a fork of one that has seen golds.
    if trusted_packages():
        start_answer_process(memory_mb)
    checkers = importlib.import_module(_CHECKERS)
    # The first parse builds tables for some 0.2 s, which no answer should pay for.
    checkers.check(Problem("warm-up", gold="\\frac{1}{2}", checker="math", family=""), "2")
    await_answer_process()
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + memory_mb * _MIB)
    _limit(resource.RLIMIT_CORE, 0)
    # No checker of the lab evaluates an answer, so a kernel that refuses costs no verdict.
    with suppress(SandboxError):
        seal(trusted_folders())


def _limit(what: int, amount: int) -> None:
    """Set a soft resource limit of this process, within its hard one."""
    _, hard = resource.getrlimit(what)
    resource.setrlimit(
        what, (amount if hard == resource.RLIM_INFINITY else min(amount, hard), hard)
    )


def _run_chunk(
    work: Callable[[Item], Result], items: Sequence[Item], timeout_s: float
) -> list[Result]:
    # Pebble ends what takes too long; this ends it where the parent, and so pebble, was killed.
    _limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + 2 * timeout_s) + 1)
    return [work(item) for item in items]


def _verdict(item: tuple[Problem, str]) -> Verdict:
    from reasoning_lab.verify.checkers import check

    return check(*item)


def _complaint(problem: Problem) -> str:
    """What keeps the gold from being read; empty when nothing does."""
    from reasoning_lab.verify.checkers import gold_complaint

    return gold_complaint(problem) or ""
