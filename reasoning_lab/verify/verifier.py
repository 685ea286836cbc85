r"""From a completion's text to its verdict: the whole path of verification starts here.

1. `extract_answer` takes the answer out of the text (`extraction.py`).
2. An answer that repeats the gold's text is correct, once the gold has been parsed. An answer that
   is missing, too long or nested too deeply is unparseable. None of them needs a worker.
3. A sandboxed worker process takes every other answer (`workers.py`) and calls `check`
   (`checkers.py`), which picks the problem's checker.
4. The checker parses gold and answer and compares them: `math.py`, `number.py`, `choice.py`, `gym/`
   or `user_checkers.py`. Its verdict is correct, wrong or unparseable.
5. An answer that exceeds its time or memory, or kills its worker, gets the verdict timeout.

A gold is hostile input like an answer, so a worker parses it too, once for each distinct gold.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Self

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.types import Problem, UserError, Verdict
from reasoning_lab.verify.extraction import extract_answer, nesting_depth
from reasoning_lab.verify.workers import WorkerPool

_MAX_ANSWER_CHARS = 2_000
# math-verify's time doubles with each level from here on; published answers have 4 at most.
_MAX_NESTING = 12
# A digest takes some 120 bytes.
_MAX_KNOWN_GOLDS = 2**17
_CHECKERS_WITHOUT_METADATA = ("math", "number")
_SHOWN_CHARS = 100


class Verifier:
    """Gives each completion its verdict; its worker processes start when first needed.

    An answer that exceeds its time or memory gets TIMEOUT. If a library swallows the MemoryError,
    the answer gets UNPARSEABLE or WRONG, and never CORRECT.

    Args:
        workers: Number of worker processes.
        timeout_s: Most seconds that one answer may take.
        memory_mb: Most MiB of address space that a worker may take beyond its imports.
    """

    def __init__(self, workers: int, timeout_s: float, memory_mb: int) -> None:
        self._pool = WorkerPool(workers, timeout_s, memory_mb)
        # Keys of the golds that were parsed, oldest first.
        self._readable_golds: dict[bytes, None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, busy ones too; a later `verify` starts new ones."""
        self._pool.close()

    def verify(
        self, problems: Sequence[Problem], texts: Sequence[str]
    ) -> list[tuple[str | None, Verdict]]:
        """Return (extracted answer, verdict) for each completion text and its problem, in order.

        Raises:
            UserError: A problem's checker is unknown or can't read its gold.
        """
        answers = [extract_answer(text) for text in texts]
        quick_verdicts = [_quick_verdict(p, a) for p, a in zip(problems, answers, strict=True)]
        triples = list(zip(problems, answers, quick_verdicts, strict=True))
        quickly_correct = (problem for problem, _, v in triples if v is Verdict.CORRECT)
        for gold_error in self._gold_errors(quickly_correct).values():
            raise UserError(gold_error)
        remaining = [(problem, a) for problem, a, v in triples if v is None and a is not None]
        verdicts = iter(self._pool.map(_check, remaining))
        return [(a, v or next(verdicts) or Verdict.TIMEOUT) for _, a, v in triples]

    def unreadable_golds(self, problems: Sequence[Problem]) -> list[Problem]:
        """Return the problems whose gold the checker can't read, in order.

        A gold that exceeds its time or memory is one of them. Each distinct gold is parsed once.

        Raises:
            UserError: A checker is unknown.
        """
        gold_errors = self._gold_errors(problems)
        return [problem for problem in problems if _gold_key(problem) in gold_errors]

    def _gold_errors(self, problems: Iterable[Problem]) -> dict[bytes, str]:
        """Return the error of each gold that can't be read, by the gold's key."""
        by_key = {_gold_key(problem): problem for problem in problems}
        unknown = [(key, p) for key, p in by_key.items() if key not in self._readable_golds]
        gold_errors = {}
        results = self._pool.map(_gold_error, [problem for _, problem in unknown])
        for (key, problem), error in zip(unknown, results, strict=True):
            if error is None:
                limits = f"{self._pool.timeout_s:g} s or {self._pool.memory_mb} MiB"
                gold_errors[key] = (
                    f"{problem.origin}: to read the gold {problem.gold[:_SHOWN_CHARS]!r} takes "
                    f"more than {limits}; drop this problem"
                )
            elif error:
                gold_errors[key] = error
            else:
                self._readable_golds[key] = None
        while len(self._readable_golds) > _MAX_KNOWN_GOLDS:
            del self._readable_golds[next(iter(self._readable_golds))]
        return gold_errors


def build_verifier(hardware: HardwareConfig) -> Verifier:
    """Build a verifier with the configured workers and limits."""
    return Verifier(
        hardware.verifier_workers, hardware.verifier_timeout_s, hardware.verifier_memory_mb
    )


def _quick_verdict(problem: Problem, answer: str | None) -> Verdict | None:
    """Return a verdict that needs no parsing, or None; CORRECT holds only for a readable gold."""
    if answer is None:
        return Verdict.UNPARSEABLE
    if answer == problem.gold.strip():
        return Verdict.CORRECT
    if len(answer) > _MAX_ANSWER_CHARS or nesting_depth(answer) > _MAX_NESTING:
        return Verdict.UNPARSEABLE
    return None


def _gold_key(problem: Problem) -> bytes:
    """Return a digest of everything that decides whether the gold can be read."""
    without_row = {key: value for key, value in problem.metadata.items() if key != "row"}
    metadata = {} if problem.checker in _CHECKERS_WITHOUT_METADATA else without_row
    content = repr((problem.checker, problem.gold, metadata))
    return hashlib.blake2b(content.encode("utf-8", "replace"), digest_size=16).digest()


def _check(item: tuple[Problem, str]) -> Verdict:
    # Only workers import the checkers, which import sympy and reasoning-gym.
    from reasoning_lab.verify.checkers import check

    return check(*item)


def _gold_error(problem: Problem) -> str:
    """Return why the gold can't be read; empty when it can."""
    from reasoning_lab.verify.checkers import gold_error

    return gold_error(problem) or ""
