r"""From a completion's text to its verdict: the whole path of verification starts here.

1. The checker's form of answer says how it is taken out of the text (`extraction.py`).
2. An answer that repeats the gold's text is correct, once the gold has been parsed. An answer that
   is missing, too long or nested too deeply is unparseable. None of them needs a worker.
3. A sandboxed worker process takes every other answer (`workers.py`) and calls `check`
   (`checkers.py`), which picks the problem's checker.
4. The checker parses gold and answer and compares them: `math.py`, `number.py`, `choice.py`,
   `instructions/`, `gym/` or `user_checkers.py`. Its verdict is correct, wrong or unparseable.
5. An answer that exceeds its time or memory, or kills its worker, gets the verdict timeout.

An answer that is a program goes to `programs/` instead of a worker: it is run and tested there.

A gold is hostile input like an answer, so a worker parses it too, once for each distinct gold.
"""

import hashlib
import threading
from collections.abc import Iterable, Sequence
from typing import Self

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.types import Problem, UserError, Verdict
from reasoning_lab.verify.extraction import PROGRAM, answer_form
from reasoning_lab.verify.instructions.language import LanguageModelError, load_language_model
from reasoning_lab.verify.programs.pool import ProgramPool, ProgramResult
from reasoning_lab.verify.verdicts import Judgement
from reasoning_lab.verify.workers import WorkerPool

# A digest takes some 120 bytes.
_MAX_KNOWN_GOLDS = 2**17
_CHECKERS_WITHOUT_METADATA = ("math", "number", "instructions")
_SHOWN_CHARS = 100
# A verdict, and the fraction of the tests that the answer passed where there are tests.
_Outcome = tuple[Verdict, float | None]


class Verifier:
    """Gives each completion its verdict; its worker processes start when first needed.

    Threads may share it; their calls wait for each other.

    An answer that exceeds its time or memory gets TIMEOUT. If a library swallows the MemoryError,
    the answer gets UNPARSEABLE or WRONG, and never CORRECT.

    Args:
        workers: Number of worker processes.
        timeout_s: Most seconds that one answer may take.
        memory_mb: Most MiB of address space that a worker may take beyond its imports.
    """

    def __init__(self, workers: int, timeout_s: float, memory_mb: int) -> None:
        self._pool = WorkerPool(workers, timeout_s, memory_mb)
        self._programs = ProgramPool(workers, timeout_s, memory_mb)
        self._lock = threading.Lock()
        # Keys of the golds that were parsed, oldest first.
        self._readable_golds: dict[bytes, None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, busy ones too; a later `verify` starts new ones."""
        self._pool.close()
        self._programs.close()

    def verify(
        self, problems: Sequence[Problem], texts: Sequence[str]
    ) -> list[tuple[str | None, Verdict]]:
        """Return (extracted answer, verdict) of each judgement; see `judge`."""
        return [(j.answer, j.verdict) for j in self.judge(problems, texts)]

    def judge(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Judgement]:
        """Judge each completion text as an answer to its problem, in order.

        Raises:
            UserError: A problem's checker is unknown or can't read its gold, or its answers are
                programs and this machine cannot isolate them.
        """
        answers = [
            answer_form(problem.checker).extract(text)
            for problem, text in zip(problems, texts, strict=True)
        ]
        quick_verdicts = [_quick_verdict(p, a) for p, a in zip(problems, answers, strict=True)]
        triples = list(zip(problems, answers, quick_verdicts, strict=True))
        quickly_correct = (problem for problem, _, v in triples if v is Verdict.CORRECT)
        remaining = [(problem, a) for problem, a, v in triples if v is None and a is not None]
        with self._lock:
            for gold_error in self._gold_errors(quickly_correct).values():
                raise UserError(gold_error)
            checked = iter(self._outcomes(remaining))
        return [
            Judgement(a, *(next(checked) if v is None else _quick_outcome(problem, v)))
            for problem, a, v in triples
        ]

    def _outcomes(self, items: Sequence[tuple[Problem, str]]) -> list[_Outcome]:
        """Return the outcome of each answer, in order."""
        compared = [item for item in items if not _is_run(item[0])]
        verdicts = iter(self._verdicts(compared))
        results = iter(self._run([item for item in items if _is_run(item[0])]))
        return [
            next(results) if _is_run(problem) else (next(verdicts) or Verdict.TIMEOUT, None)
            for problem, _ in items
        ]

    def _verdicts(self, items: Sequence[tuple[Problem, str]]) -> list[Verdict | None]:
        """Return what the checkers say; None = the answer exceeded a limit."""
        try:
            return self._pool.map(_check, items)
        except LanguageModelError:
            # A sandboxed worker cannot load the model, which few problems need.
            self._pool.prepare(load_language_model)
            return self._pool.map(_check, items)

    def unreadable_golds(self, problems: Sequence[Problem]) -> list[Problem]:
        """Return the problems whose gold the checker can't read, in order.

        A gold that exceeds its time or memory is one of them. Each distinct gold is parsed once.

        Raises:
            UserError: A checker is unknown.
        """
        with self._lock:
            gold_errors = self._gold_errors(problems)
        return [problem for problem in problems if _gold_key(problem) in gold_errors]

    def _gold_errors(self, problems: Iterable[Problem]) -> dict[bytes, str]:
        """Return the error of each gold that can't be read, by the gold's key."""
        by_key = {_gold_key(problem): problem for problem in problems}
        unknown = [(key, p) for key, p in by_key.items() if key not in self._readable_golds]
        gold_errors = {}
        errors = self._errors_of_golds([problem for _, problem in unknown])
        for (key, problem), error in zip(unknown, errors, strict=True):
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

    def _errors_of_golds(self, problems: Sequence[Problem]) -> list[str | None]:
        """Return the error of each gold; empty = there is none, None = it exceeds its limits."""
        compared = [problem for problem in problems if not _is_run(problem)]
        references = [problem for problem in problems if _is_run(problem)]
        errors = iter(self._pool.map(_gold_error, compared))
        results = iter(self._run([(problem, problem.gold) for problem in references]))
        return [
            _reference_error(problem, next(results)) if _is_run(problem) else next(errors)
            for problem in problems
        ]

    def _run(self, items: Sequence[tuple[Problem, str]]) -> list[ProgramResult]:
        return self._programs.results([p for p, _ in items], [program for _, program in items])


def build_verifier(hardware: HardwareConfig) -> Verifier:
    """Build a verifier with the configured workers and limits."""
    return Verifier(
        hardware.verifier_workers, hardware.verifier_timeout_s, hardware.verifier_memory_mb
    )


def _is_run(problem: Problem) -> bool:
    return answer_form(problem.checker) is PROGRAM


def _quick_verdict(problem: Problem, answer: str | None) -> Verdict | None:
    """Return a verdict that needs no parsing, or None; CORRECT holds only for a readable gold."""
    if answer is None:
        return Verdict.UNPARSEABLE
    form = answer_form(problem.checker)
    if form.may_be_gold and answer == problem.gold.strip():
        return Verdict.CORRECT
    return None if form.allows(answer) else Verdict.UNPARSEABLE


def _quick_outcome(problem: Problem, verdict: Verdict) -> _Outcome:
    return verdict, float(verdict is Verdict.CORRECT) if _is_run(problem) else None


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


def _reference_error(problem: Problem, result: ProgramResult) -> str | None:
    """Return why a reference program is no gold; empty when it passes its own tests."""
    if result.verdict is Verdict.TIMEOUT:
        return None
    if result.verdict is Verdict.CORRECT:
        return ""
    return (
        f"{problem.origin}: '{problem.checker}' can't use the gold "
        f"{problem.gold[:_SHOWN_CHARS]!r}, which passes {result.passed_frac:.0%} of its own tests; "
        "correct or drop this problem in its data source"
    )
