"""The prompts that a stage trained on, as its artifact remembers them.

One line a prompt: its id, the id of its canonical form, its level and its family. Benchmarks of
what descends from the artifact must not have them, and the report counts later stages that do.
"""

from array import array
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt64

from reasoning_lab.data.sources.canonical import form_id
from reasoning_lab.types import Problem

PROMPT_IDS = "prompt_ids.txt"


@dataclass(frozen=True, slots=True, eq=False)
class TrainedPrompts:
    """N distinct prompts, by their ids in ascending order.

    Attributes:
        ids: `[N]` uint64.
        forms: `[N]` uint64, of their canonical forms.
        kinds: `[N]` uint64, places in `families_and_levels`.
        families_and_levels: Distinct families with a level; an empty family is not known.
    """

    ids: UInt64[np.ndarray, " N"]
    forms: UInt64[np.ndarray, " N"]
    kinds: UInt64[np.ndarray, " N"]
    families_and_levels: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> "TrainedPrompts":
        """Those of `problems`, read once, of which some may be alike."""
        builder = TrainedPromptsBuilder()
        for problem in problems:
            builder.add(problem)
        return builder.build()

    @classmethod
    def read(cls, folder: Path) -> "TrainedPrompts":
        """What `write` wrote, also in an earlier version, when it was the ids alone.

        There are none where the artifact's stage drew no problem.
        """
        path, builder = folder / PROMPT_IDS, TrainedPromptsBuilder()
        if path.exists():
            with path.open(encoding="utf-8") as lines:
                for line in lines:
                    name, *more = line.rstrip("\n").split("\t", 3)
                    form, level, family = more or (name, "0", "")
                    builder.add_ids(name, form, family, int(level))
        return builder.build()

    def write(self, folder: Path) -> None:
        """Write them to an artifact's folder."""
        with (folder / PROMPT_IDS).open("w", encoding="utf-8") as file:
            for name, form, kind in zip(self.ids, self.forms, self.kinds, strict=True):
                family, level = self.families_and_levels[kind]
                file.write(f"{name:016x}\t{form:016x}\t{level}\t{family}\n")

    def in_common(self, other: "TrainedPrompts") -> Bool[np.ndarray, " N"]:
        """`[N]` bool, True = the prompt, or a twin of it, is in `other`."""
        shared: Bool[np.ndarray, " N"] = np.isin(self.ids, other.ids)
        return shared | np.isin(self.forms, other.forms)

    def __len__(self) -> int:
        return len(self.ids)


def seen_kinds(
    held_out: Collection[tuple[str, int]], trained: Collection[tuple[str, int]], unseen: str
) -> str:
    """What was trained on although a benchmark's `unseen` forbids it, in words; empty = nothing.

    Args:
        held_out: Families and levels of the benchmark.
        trained: Those of a stage.
        unseen: As in `config.benchmark.BenchmarkConfig`.
    """
    if unseen == "families":
        seen = {family for family, _ in held_out} & {family for family, _ in trained}
        return ", ".join(f"family {family}" for family in sorted(seen))
    if unseen == "levels":
        pairs = sorted({*held_out} & {*trained})
        return ", ".join(f"level {level} of {family}" for family, level in pairs)
    return ""


class TrainedPromptsBuilder:
    """Collects prompts one by one, in 24 bytes each.

    Attributes:
        added: How many were added, alike ones included.
    """

    def __init__(self) -> None:
        self._ids, self._forms, self._kinds = array("Q"), array("Q"), array("Q")
        self._numbers: dict[tuple[str, int], int] = {}
        self.added = 0

    def add(self, problem: Problem) -> None:
        """Add the prompt of a problem."""
        family = " ".join(problem.family.split())
        self.add_ids(problem.id, form_id(problem), family, problem.level)

    def add_ids(self, name: str, form: str, family: str, level: int) -> None:
        """Add a prompt by its id, that of its form, its family and its level."""
        self._ids.append(int(name, 16))
        self._forms.append(int(form, 16))
        self._kinds.append(self._numbers.setdefault((family, level), len(self._numbers)))
        self.added += 1

    def build(self) -> TrainedPrompts:
        """The distinct ones."""
        ids, first = np.unique(np.array(self._ids, np.uint64), return_index=True)
        forms, kinds = (np.array(column, np.uint64)[first] for column in (self._forms, self._kinds))
        return TrainedPrompts(ids, forms, kinds, tuple(self._numbers))
