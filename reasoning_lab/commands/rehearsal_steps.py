"""The steps of a rehearsal: how each ended, and an error as one sentence that names a key."""

import errno
import os
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from reasoning_lab.types import UserError

# What says that a file could not be written whole: the system, and torch's archives.
_NO_SPACE = (*map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)), "] . unexpected pos")
_MOST_CHARACTERS = 300


class State(StrEnum):
    """How a step ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_REACHED = "not reached"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was rehearsed.

    Attributes:
        name: A stage or evaluation of the recipe, or what is done before and after them.
        state: How it ended.
        wall_s: Seconds that it took.
        sentence: What is wrong, where, and the remedy; or what it waits for.
    """

    name: str
    state: State
    wall_s: float = 0.0
    sentence: str = ""


@dataclass(slots=True)
class Steps:
    """The steps so far; what raises an error in one of them does not end the rehearsal."""

    done: list[Step] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every step did."""
        return all(step.state is State.PASSED for step in self.done)

    def has_failed(self, names: Sequence[str]) -> bool:
        """Whether one of these did not pass."""
        return any(step.name in names and step.state is not State.PASSED for step in self.done)

    @contextmanager
    def step(self, name: str, key: str) -> Iterator[None]:
        """Run the block as a step; `key` is named where an error does not name one itself."""
        start = time.perf_counter()
        state, sentence = State.PASSED, ""
        try:
            yield
        except Exception as error:
            state, sentence = State.FAILED, sentence_of(error, key)
        self.done.append(Step(name, state, time.perf_counter() - start, sentence))

    def skip(self, name: str, waits_for: Sequence[str]) -> None:
        """Note a step that is not run, as those before it did not pass."""
        self.done.append(
            Step(name, State.NOT_REACHED, sentence=f"it waits for {', '.join(waits_for)}")
        )


def sentence_of(error: Exception, key: str) -> str:
    """An error as one sentence; one of the lab's own is one already."""
    if isinstance(error, UserError):
        return str(error)
    # Not by its class: torch, safetensors and Arrow have errors of their own.
    if any(words in str(error) for words in _NO_SPACE):
        return (
            f"{key}: the disk is full, or a file may not grow ({error}); free some space, or "
            "choose another folder by paths.runs=FOLDER"
        )
    message = " ".join(str(error).split())[:_MOST_CHARACTERS]
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(frame.filename).name}, line {frame.lineno}"
    return f"{key}: it failed with {type(error).__name__}: {message or 'no message'} ({place})"
