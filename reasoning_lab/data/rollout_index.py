"""What selections need to know of each rollout of a file: a few numbers, without its texts."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int

from reasoning_lab.types import Rollout, prompt_id

_BATCH_ROWS = 4096
_COLUMNS = ["prompt", "family", "level", "text"]


@dataclass(frozen=True, slots=True, eq=False)
class RolloutIndex:
    """N rollouts in their order.

    Attributes:
        problems: `[N]` uint64, equal for rollouts of one problem.
        levels: `[N]` int32.
        families: `[N]` int32, numbers in the alphabetical order of the families' names.
        characters: `[N]` int32, of each completion's text.
    """

    problems: Int[np.ndarray, " N"]
    levels: Int[np.ndarray, " N"]
    families: Int[np.ndarray, " N"]
    characters: Int[np.ndarray, " N"]

    @classmethod
    def read(cls, file: Path) -> "RolloutIndex":
        """Of a parquet file, with one batch of rows in memory."""
        builder = _Builder()
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=_COLUMNS):
                builder.add(
                    batch["prompt"].to_pylist(),
                    batch["family"].to_pylist(),
                    batch["level"].to_pylist(),
                    pc.utf8_length(batch["text"]).to_pylist(),
                )
        return builder.index()

    @classmethod
    def of(cls, rollouts: Iterable[Rollout]) -> "RolloutIndex":
        """Of rollouts in memory."""
        builder = _Builder()
        for rollout in rollouts:
            problem = rollout.problem
            characters = len(rollout.completion.text)
            builder.add([problem.prompt], [problem.family], [problem.level], [characters])
        return builder.index()

    def __len__(self) -> int:
        return len(self.problems)


class _Builder:
    def __init__(self) -> None:
        self._problems, self._levels = array("Q"), array("i")
        self._families, self._characters = array("i"), array("i")
        self._family_numbers: dict[str, int] = {}
        # Rollouts of a problem mostly lie together.
        self._number_of = lru_cache(_BATCH_ROWS)(lambda prompt: int(prompt_id(prompt), 16))

    def add(
        self,
        prompts: Sequence[str],
        families: Sequence[str],
        levels: Sequence[int],
        characters: Sequence[int],
    ) -> None:
        self._problems.extend(map(self._number_of, prompts))
        numbers = self._family_numbers
        self._families.extend(numbers.setdefault(family, len(numbers)) for family in families)
        self._levels.extend(levels)
        self._characters.extend(characters)

    def index(self) -> RolloutIndex:
        # Numbers were given in the order of appearance.
        alphabetical = np.argsort(np.argsort(list(self._family_numbers))).astype(np.int32)
        families = np.array(self._families)
        return RolloutIndex(
            np.array(self._problems),
            np.array(self._levels),
            alphabetical[families] if len(families) else families,
            np.array(self._characters),
        )
