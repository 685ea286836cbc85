"""Problems that were drawn, kept on the disk and read when they are needed."""

import os
import pickle
import tempfile
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar, overload

from reasoning_lab.types import Problem

Item = TypeVar("Item")


class Selected(Sequence[Item]):
    """Some items of a sequence, which are looked up when they are read.

    Args:
        items: The sequence.
        places: Where each of them is in it.
    """

    def __init__(self, items: Sequence[Item], places: Sequence[int]) -> None:
        self._items, self._places = items, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> "Selected[Item]": ...
    def __getitem__(self, index: int | slice) -> "Item | Selected[Item]":
        if isinstance(index, slice):
            return Selected(self._items, self._places[index])
        return self._items[self._places[index]]


class ProblemFile(Sequence[Problem]):
    """Problems in their order; memory holds where each is in the file, 8 bytes a problem.

    Args:
        problems: Read once.
        folder: Gets the file. It has no name there, so that no other process can write to it, and
            it is gone when this process ends.
    """

    def __init__(self, problems: Iterable[Problem], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - open as long as this is
        self._ends = array("q", [0])
        for problem in problems:
            # Not JSON: what a generated problem's checker reads may be no JSON value.
            self._file.write(pickle.dumps(problem))
            self._ends.append(self._file.tell())
        self._file.flush()

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> Selected[Problem]: ...
    def __getitem__(self, index: int | slice) -> Problem | Selected[Problem]:
        places = range(len(self))
        if isinstance(index, slice):
            return Selected(self, places[index])
        start, end = self._ends[places[index]], self._ends[places[index] + 1]
        # Threads that read at once share no position in the file.
        problem: Problem = pickle.loads(os.pread(self._file.fileno(), end - start, start))
        return problem
