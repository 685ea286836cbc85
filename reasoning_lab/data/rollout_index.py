"""What selections need to know of each rollout of a file: a few numbers, without its texts."""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int

from reasoning_lab.types import Message, Rollout, prompt_id, user_text

# Column of what comes before the prompt: a list of roles and contents; null = a plain prompt.
EARLIER_MESSAGES = "earlier_messages"
_REMEMBERED_PROMPTS = 4096


def earlier_messages_of(value: Sequence[Mapping[str, str]] | None) -> tuple[Message, ...]:
    """What a row has in the column `EARLIER_MESSAGES`."""
    return tuple(Message(**turn) for turn in value or ())


def user_texts(batch: pa.RecordBatch) -> list[str]:
    """What identifies the problem of each row; `batch` has both columns of the prompt."""
    prompts, earlier = (batch[name].to_pylist() for name in ("prompt", EARLIER_MESSAGES))
    return [
        user_text(prompt, earlier_messages_of(turns)) if turns else prompt
        for prompt, turns in zip(prompts, earlier, strict=True)
    ]


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

    COLUMNS: ClassVar = ("prompt", EARLIER_MESSAGES, "family", "level", "text")

    @classmethod
    def of_batches(cls, batches: Iterable[pa.RecordBatch]) -> "RolloutIndex":
        """Of rows with `COLUMNS`."""
        builder = _Builder()
        for batch in batches:
            families, levels = (batch[name].to_pylist() for name in ("family", "level"))
            characters = pc.utf8_length(batch["text"]).to_pylist()
            builder.add(user_texts(batch), families, levels, characters)
        return builder.index()

    @classmethod
    def of(cls, rollouts: Iterable[Rollout]) -> "RolloutIndex":
        """Of rollouts in memory."""
        builder = _Builder()
        for rollout in rollouts:
            problem = rollout.problem
            characters = len(rollout.completion.text)
            builder.add([problem.user_text], [problem.family], [problem.level], [characters])
        return builder.index()

    def __len__(self) -> int:
        return len(self.problems)


class _Builder:
    def __init__(self) -> None:
        self._problems, self._levels = array("Q"), array("i")
        self._families, self._characters = array("i"), array("i")
        self._family_numbers: dict[str, int] = {}
        # Rollouts of a problem mostly lie together.
        self._number_of = lru_cache(_REMEMBERED_PROMPTS)(lambda text: int(prompt_id(text), 16))

    def add(
        self,
        user_texts: Sequence[str],
        families: Sequence[str],
        levels: Sequence[int],
        characters: Sequence[int],
    ) -> None:
        self._problems.extend(map(self._number_of, user_texts))
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
