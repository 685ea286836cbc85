"""Rollouts of several files by problem, read from the disk some problems at a time."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int

from reasoning_lab.data.corpus import RolloutFile
from reasoning_lab.data.curation.selection import group_by_problem
from reasoning_lab.types import Rollout, RolloutGroup

_BATCH_ROWS = 4096


class RolloutGroups:
    """The rollouts of each problem; the problems are in the order of their first appearance.

    Rollouts of a problem that lie together, in each file, are read once. Where they are scattered,
    every batch of problems reads the row groups that have some of it.

    Args:
        files: One after the other, and so are a problem's rollouts.

    Attributes:
        levels: `[P]` int32, of each problem.
    """

    def __init__(self, files: Sequence[RolloutFile]) -> None:
        indices = [file.index for file in files]
        ids, firsts, numbers = np.unique(
            np.concatenate([index.problems for index in indices]),
            return_index=True,
            return_inverse=True,
        )
        in_order = np.argsort(firsts)
        places = np.empty(len(ids), np.int64)
        places[in_order] = np.arange(len(ids))
        self._files, self._sizes = files, [len(index) for index in indices]
        self._problems = places[numbers]  # `[N]`, of each rollout.
        self.levels = np.concatenate([index.levels for index in indices])[firsts[in_order]]

    def __len__(self) -> int:
        return len(self.levels)

    def __iter__(self) -> Iterator[RolloutGroup]:
        return self.select(np.arange(len(self)))

    def select(self, problems: Int[np.ndarray, " K"]) -> Iterator[RolloutGroup]:
        """The groups of the problems at some places, in their order here."""
        rows = np.flatnonzero(np.isin(self._problems, problems))
        rows = rows[np.argsort(self._problems[rows], kind="stable")]
        ends = np.flatnonzero(np.diff(self._problems[rows], append=-1)) + 1
        batches = np.split(rows, ends[:-1][np.diff(ends // _BATCH_ROWS) > 0])
        for batch in batches:
            yield from group_by_problem(self._read(np.sort(batch)))

    def _read(self, rows: Int[np.ndarray, " K"]) -> Iterator[Rollout]:
        start = 0
        for file, size in zip(self._files, self._sizes, strict=True):
            end = start + size
            yield from file.select(rows[(start <= rows) & (rows < end)] - start)
            start = end
