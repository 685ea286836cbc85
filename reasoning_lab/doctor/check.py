"""A check: what goes wrong with a model, where that was reported, and how it is seen.

A check that raises `UserError` has found something: the error says what, where and the remedy.
Any other exception means that the check itself failed, and takes one line, not the whole command.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from reasoning_lab.doctor.model_under_test import ModelUnderTest
from reasoning_lab.sampling.engine_check import first_line
from reasoning_lab.types import UserError


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WRONG = "wrong"
    NOT_APPLICABLE = "not applicable"
    NOT_RUN = "not run"
    FAILED = "could not be run"


@dataclass(frozen=True, slots=True)
class Result:
    """How a check ended, and a sentence: what is wrong, or why nothing is."""

    state: State
    sentence: str = ""


def ok(note: str = "") -> Result:
    """Nothing is wrong; `note` says what the lab does about a trait that trips other tools."""
    return Result(State.OK, note)


def wrong(sentence: str) -> Result:
    """Something is: what, where, and the remedy."""
    return Result(State.WRONG, sentence)


def not_applicable(reason: str) -> Result:
    """The model or the config has nothing that could be wrong."""
    return Result(State.NOT_APPLICABLE, reason)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that can be wrong with a model.

    Attributes:
        name: Short for what goes wrong.
        goes_wrong: What happens to whoever trains such a model.
        source: The public report that the check comes from.
        examine: Looks for it; may raise `UserError` in place of `wrong`.
        needs: Checks before it, without whose success it would say nothing of its own.
    """

    name: str
    goes_wrong: str
    source: str
    examine: Callable[[ModelUnderTest], Result]
    needs: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Examined:
    """A check, how it ended and the seconds that it took."""

    check: Check
    result: Result
    wall_s: float


def run_checks(checks: Sequence[Check], model: ModelUnderTest) -> Iterator[Examined]:
    """Run the checks in their order; yields each one as it ends."""
    # By the name of a check that is not ok: those to mend first, itself or what it waits for.
    causes: dict[str, list[str]] = {}
    for check in checks:
        start = time.perf_counter()
        waits_for = [cause for name in check.needs for cause in causes.get(name, ())]
        result = _result(check, model, list(dict.fromkeys(waits_for)))
        if result.state in (State.WRONG, State.NOT_RUN, State.FAILED):
            causes[check.name] = waits_for or [check.name]
        yield Examined(check, result, time.perf_counter() - start)


def _result(check: Check, model: ModelUnderTest, waits_for: Sequence[str]) -> Result:
    if waits_for:
        verb = "is" if len(waits_for) == 1 else "are"
        return Result(State.NOT_RUN, f"it is run once {' and '.join(waits_for)} {verb} ok")
    try:
        return check.examine(model)
    except UserError as error:
        return wrong(str(error))
    except Exception as error:
        return Result(State.FAILED, first_line(error))
