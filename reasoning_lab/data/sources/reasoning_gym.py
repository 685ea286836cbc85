"""Problems from reasoning-gym families, split by prompt.

A prompt's split is a function of the prompt alone. No seed, level or count can draw a held-out
prompt for training.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from reasoning_lab.data.sources.problem_source import check_fractions, split_of
from reasoning_lab.data.sources.unreadable import UnreadablePolicy
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.types import Problem, Split, UserError
from reasoning_lab.verify.gym.families import require_reviewed_family

# Spacing between derived seeds: reasoning-gym uses seed + index for problem number index.
_SEED_STRIDE = 10**7
_BLOCK_PROBLEMS = 2**15
# A family without a new prompt in so many draws has run out of prompts.
_MAX_DRAWS = 2000


class ReasoningGymSource:
    """Draws problems of several families and difficulty levels.

    Its arguments are the fields of `ReasoningGymConfig`, which describes them.

    Raises:
        UserError: The lab cannot verify a family. `problems` raises it for an unknown family or an
            option that reasoning-gym refuses.
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

    def provenance(self) -> Mapping[str, str]:
        return {
            "name": f"reasoning-gym: {', '.join(self._families)}",
            "revision": version("reasoning-gym"),
            "licence": "Apache-2.0",
        }

    def fixed_split(self, problem_id: str) -> Split | None:
        return None

    def unreadable(self, problem: Problem) -> UnreadablePolicy | None:
        """Refuse an unreadable gold, because a generator should not produce one."""
        if problem.checker.removeprefix("reasoning_gym/") not in self._families:
            return None
        return UnreadablePolicy("refuse", 0.0, "data")

    def record_rows(self, ledger: Ledger) -> None:
        """Count nothing: problems are generated, not read from rows."""

    def available(self, split: Split, levels: Sequence[int]) -> int | None:
        return None

    def problems(
        self, split: Split, levels: Sequence[int], count: int, seed: int
    ) -> Iterator[Problem]:
        """Yield `count` problems of `split` with distinct prompts; the families take turns.

        If a small family runs out of prompts, the others yield its share. Problems are shuffled
        within blocks, so a million need no more memory than their ids.
        """
        streams = [
            generated_problems(family, level, options, seed)
            for family, by_level in self._families.items()
            for level, options in by_level.items()
            if level in levels
        ]
        if not streams:
            raise UserError(
                f"data: no family has a level in {list(levels)}; add such a level, or choose others"
            )
        seen: set[int] = set()
        rng = random.Random(seed)
        yielded = 0
        while yielded < count:
            block: list[Problem] = []
            block_size = min(_BLOCK_PROBLEMS, count - yielded)
            while len(block) < block_size and streams:
                for stream in list(streams):
                    problem = self._next_unseen(stream, split, seen)
                    if problem is None:
                        streams.remove(stream)
                    else:
                        block.append(problem)
            if len(block) < block_size:
                raise UserError(
                    f"data: only {yielded + len(block)} distinct {split} prompts at levels "
                    f"{list(levels)}, {count} asked for; ask for fewer, or widen the families"
                )
            rng.shuffle(block)
            yield from block[: count - yielded]
            yielded += len(block)

    def _next_unseen(
        self, stream: Iterator[Problem], split: Split, seen: set[int]
    ) -> Problem | None:
        """The next unseen problem of `split`; None after `_MAX_DRAWS` draws without one."""
        for _ in range(_MAX_DRAWS):
            problem = next(stream)
            name = problem.id
            if int(name, 16) in seen:
                continue
            if split_of(name, self._test_frac, self._validation_frac) is split:
                seen.add(int(name, 16))
                return problem
        return None


def generated_problems(
    family: str, level: int, options: Mapping[str, Any], seed: int
) -> Iterator[Problem]:
    """Generate problems of one family and level without regard to splits; prompts may repeat.

    Args:
        family: The family's name in reasoning-gym.
        level: The level that the problems state.
        options: The family's reasoning-gym options.
        seed: Fixes the problems.

    Raises:
        UserError: The family is unknown, or reasoning-gym refuses an option.
    """
    import reasoning_gym

    first_seed = random.Random(f"{family}/{level}/{seed}").randrange(2**20) * _SEED_STRIDE
    try:
        dataset = reasoning_gym.create_dataset(
            family, seed=first_seed, size=_SEED_STRIDE, **options
        )
    except (AssertionError, TypeError, ValueError) as error:
        raise UserError(
            f"data.families.{family}.{level}: reasoning-gym refuses these options ({error}); "
            f"see its documentation of '{family}'"
        ) from error
    for index in range(_SEED_STRIDE):
        entry = dataset[index]
        metadata = entry["metadata"]
        # Some families write worked solutions, which a recorded teacher can use.
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
