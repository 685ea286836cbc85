"""Problems from reasoning-gym families, split by prompt.

A prompt's split is a function of the prompt alone. No seed, level or count can draw a held-out
prompt for training.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reasoning_lab.config.problems import in_words
from reasoning_lab.data.sources.config import ReasoningGymConfig
from reasoning_lab.data.sources.problem_source import split_of
from reasoning_lab.types import Problem, Split, UserError

# Spacing between derived seeds: reasoning-gym uses seed + index for problem number index.
_SEED_STRIDE = 10**7
_BLOCK_PROBLEMS = 2**15
# A family without a new prompt in so many draws has run out of prompts.
_MAX_DRAWS = 2000


def draw_problems(
    config: ReasoningGymConfig, split: Split, levels: Sequence[int] | None, count: int, seed: int
) -> Iterator[Problem]:
    """Yield `count` problems of `split` with distinct prompts; the families take turns.

    If a small family runs out of prompts, the others yield its share. Problems are shuffled
    within blocks, so a million need no more memory than their ids.

    Raises:
        UserError: There are fewer, or no family has a level.
    """
    streams = [
        generated_problems(family, level, options, seed)
        for family, by_level in config.families.items()
        for level, options in by_level.items()
        if levels is None or level in levels
    ]
    if not streams:
        raise UserError(
            f"data: no family is at {in_words(levels)}; add such a level, or choose others"
        )
    seen: set[int] = set()

    def next_unseen(stream: Iterator[Problem]) -> Problem | None:
        """The next unseen problem of `split`; None after `_MAX_DRAWS` draws without one."""
        for _ in range(_MAX_DRAWS):
            problem = next(stream)
            name = problem.id
            if int(name, 16) in seen:
                continue
            if split_of(name, config.test_frac, config.validation_frac) is split:
                seen.add(int(name, 16))
                return problem
        return None

    rng = random.Random(seed)
    yielded = 0
    while yielded < count:
        block: list[Problem] = []
        block_size = min(_BLOCK_PROBLEMS, count - yielded)
        while len(block) < block_size and streams:
            for stream in list(streams):
                problem = next_unseen(stream)
                if problem is None:
                    streams.remove(stream)
                else:
                    block.append(problem)
        if len(block) < block_size:
            raise UserError(
                f"data: only {yielded + len(block)} distinct {split} prompts at "
                f"{in_words(levels)}, {count} asked for; ask for fewer, or widen the families"
            )
        rng.shuffle(block)
        yield from block[: count - yielded]
        yielded += len(block)


def generated_problems(
    family: str, level: int, options: Mapping[str, Any], seed: int
) -> Iterator[Problem]:
    """Generate problems of one family and level without regard to splits; prompts may repeat.

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
