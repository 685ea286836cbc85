"""Problems from reasoning-gym families, split by prompt.

A prompt's split is a function of the prompt alone: whatever the seed, the level or the
count, a held-out prompt can never be drawn for training.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from reasoning_lab.data.sources.problems import check_fractions, split_of
from reasoning_lab.data.sources.unreadable import Unreadable
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.types import Problem, Split, UserError
from reasoning_lab.verify.gym import require_reviewed_family

# Spacing between derived seeds: reasoning-gym uses seed + index for problem number index.
_SEED_STRIDE = 10**7
_BLOCK_PROBLEMS = 2**15


class ReasoningGymSource:
    """Draws problems of several families and difficulty levels.

    Args:
        families: Family name to level to that family's reasoning-gym options.
        test_frac: Fraction of all prompts that is held out for benchmarks.
        validation_frac: Fraction of all prompts that early stopping and tuning may look at.

    Raises:
        UserError: For a family that the lab does not judge. `problems` raises it for an unknown
            family or an option that reasoning-gym refuses.
    """

    def __init__(
        self,
        families: Mapping[str, Mapping[int, Mapping[str, Any]]],
        test_frac: float,
        validation_frac: float,
    ) -> None:
        check_fractions(test_frac, validation_frac)
        for family in families:
            require_reviewed_family(family, f"data.families.{family}")
        self._families = families
        self._test_frac = test_frac
        self._validation_frac = validation_frac

    def content(self) -> str:
        return f"reasoning-gym {version('reasoning-gym')}"

    def is_local(self) -> bool:
        return True

    def about(self) -> Mapping[str, str]:
        return {
            "name": f"reasoning-gym: {', '.join(self._families)}",
            "revision": version("reasoning-gym"),
            "licence": "Apache-2.0",
        }

    def fixed_split(self, problem_id: str) -> Split | None:
        return None

    def unreadable(self, problem: Problem) -> Unreadable | None:
        """A generated gold that cannot be read is an error of the generator."""
        if problem.checker.removeprefix("reasoning_gym/") not in self._families:
            return None
        return Unreadable("refuse", 0.0, "data")

    def record_rows(self, ledger: Ledger) -> None:
        """It reads none."""

    def available(self, split: Split, levels: Sequence[int]) -> int | None:
        return None

    def problems(
        self, split: Split, levels: Sequence[int], count: int, seed: int
    ) -> Iterator[Problem]:
        """Yield `count` problems of `split` with distinct prompts, the families in turn.

        A family whose prompts run out is left to the others, so a small family can give
        fewer than its share. Shuffled within blocks, so that a million need no more memory
        than their ids.
        """
        streams = [
            self._stream(family, level, options, seed)
            for family, by_level in self._families.items()
            for level, options in by_level.items()
            if level in levels
        ]
        if not streams:
            raise UserError(f"data: no family has a level in {list(levels)}; add one or ask others")
        seen: set[int] = set()
        rng = random.Random(seed)
        given = 0
        while given < count:
            block: list[Problem] = []
            wanted = min(_BLOCK_PROBLEMS, count - given)
            while len(block) < wanted and streams:
                for stream in list(streams):
                    problem = self._next(stream, split, seen)
                    if problem is None:
                        streams.remove(stream)
                    else:
                        block.append(problem)
            if len(block) < wanted:
                raise UserError(
                    f"data: only {given + len(block)} distinct {split} prompts at levels "
                    f"{list(levels)}, {count} asked for; ask for fewer, or widen the families"
                )
            rng.shuffle(block)
            yield from block[: count - given]
            given += len(block)

    def _next(self, stream: Iterator[Problem], split: Split, seen: set[int]) -> Problem | None:
        """The next unseen problem of `split`; None when 2,000 draws in a row bring none."""
        for _ in range(2000):
            problem = next(stream)
            name = problem.id
            if int(name, 16) in seen:
                continue
            if split_of(name, self._test_frac, self._validation_frac) is split:
                seen.add(int(name, 16))
                return problem
        return None

    def _stream(
        self, family: str, level: int, options: Mapping[str, Any], seed: int
    ) -> Iterator[Problem]:
        import reasoning_gym

        first = random.Random(f"{family}/{level}/{seed}").randrange(2**20) * _SEED_STRIDE
        try:
            dataset = reasoning_gym.create_dataset(family, seed=first, size=_SEED_STRIDE, **options)
        except (AssertionError, TypeError, ValueError) as error:
            raise UserError(
                f"data.families.{family}.{level}: reasoning-gym refuses these options ({error}); "
                f"see its documentation of '{family}'"
            ) from error
        for index in range(_SEED_STRIDE):
            entry = dataset[index]
            metadata = entry["metadata"]
            # A family that works its problems itself can have them recorded as a teacher's.
            if "answer_cot" in metadata:
                metadata["solutions"] = [metadata["answer_cot"]]
            yield Problem(
                prompt=entry["question"].strip(),
                gold=entry["answer"],
                checker=f"reasoning_gym/{family}",
                family=family,
                level=level,
                metadata=metadata,
            )
