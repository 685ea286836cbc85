"""Problems from reasoning-gym families, split by canonical form.

A problem's split is a function of its form alone (`canonical.py`). No seed, level or count can draw
a held-out prompt for training, nor a twin of one.
"""

import json
import random
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from reasoning_lab.config.problems import in_words
from reasoning_lab.data.sources.canonical import form_id
from reasoning_lab.data.sources.config import ReasoningGymConfig
from reasoning_lab.data.sources.draw_counts import note_draw
from reasoning_lab.data.sources.gym_golds import corrected_gold
from reasoning_lab.data.sources.problem_source import split_of
from reasoning_lab.data.teachers.solvers import SOLVER_KEY
from reasoning_lab.types import DEFAULT_DOMAIN, Problem, Split, UserError

# Spacing between derived seeds: reasoning-gym uses seed + index for problem number index.
_SEED_STRIDE = 10**7
_BLOCK_PROBLEMS = 2**15
# A family without a new form in so many draws has run out of them.
_MAX_DRAWS = 2000
# Ids of prompts and of their forms, by generator and in its order. The stages of a run draw from
# the same generators, and most of what these make is left out by each.
_KNOWN: dict[str, tuple["array[int]", "array[int]"]] = {}


def draw_problems(
    config: ReasoningGymConfig, split: Split, levels: Sequence[int] | None, count: int, seed: int
) -> Iterator[Problem]:
    """Yield `count` problems of `split` with distinct forms; the families take turns.

    If a small family runs out of forms, the others yield its share. Problems are shuffled
    within blocks, so a million need no more memory than their ids.

    The `draws` that are counted are distinct prompts of the split; those of a form that was drawn
    already are dropped as a `twin`.

    Raises:
        UserError: There are fewer, which are yielded first; or no family has a level.
    """
    streams = _family_streams(config, levels, seed)
    seen_prompts: set[int] = set()
    seen_forms: set[int] = set()

    def next_unseen(stream: _FamilyStream) -> Problem | None:
        """The next problem of `split` and of an unseen form; None after `_MAX_DRAWS` others."""
        for _ in range(_MAX_DRAWS):
            name, form = stream.advance()
            if name in seen_prompts:
                continue
            if split_of(f"{form:016x}", config.test_frac, config.validation_frac) is not split:
                continue
            seen_prompts.add(name)
            if form not in seen_forms:
                seen_forms.add(form)
                return _with_solver(stream.problem(), config)
        return None

    arguments = (split, None if levels is None else tuple(levels), seed)
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
        twins = len(seen_prompts) - len(seen_forms)
        note_draw(config, arguments, "draws", len(seen_prompts), {"twin": twins})
        rng.shuffle(block)
        yield from block[: count - yielded]
        yielded += len(block)
        if len(block) < block_size:
            raise UserError(
                f"data: only {yielded} distinct {split} prompts at {in_words(levels)}, "
                f"{count} asked for; ask for fewer, or widen the families"
            )


class _FamilyStream:
    """Problems of one family and level in the generator's order; prompts may repeat.

    Args:
        family, level, options, seed, domain: As in `generated_problems`.
    """

    def __init__(
        self, family: str, level: int, options: Mapping[str, Any], seed: int, domain: str
    ) -> None:
        self._generator = _Generator(family, level, options, seed, domain)
        key = json.dumps([family, level, seed, domain, dict(options)], sort_keys=True, default=repr)
        self._names, self._forms = _KNOWN.setdefault(key, (array("Q"), array("Q")))
        self._place = -1
        self._problem: Problem | None = None

    def advance(self) -> tuple[int, int]:
        """Go on by a problem: its id and that of its form."""
        self._place += 1
        self._problem = None
        if self._place == len(self._names):
            problem = self.problem()
            name, form = int(problem.id, 16), int(form_id(problem), 16)
            self._names.append(name)
            self._forms.append(form)
        return self._names[self._place], self._forms[self._place]

    def problem(self) -> Problem:
        """The problem at which the stream is."""
        if self._problem is None:
            self._problem = self._generator.problem(self._place)
        return self._problem


class _Generator:
    """A family's dataset of reasoning-gym at one level, whose problems are known by number."""

    def __init__(
        self, family: str, level: int, options: Mapping[str, Any], seed: int, domain: str
    ) -> None:
        import reasoning_gym

        self._family, self._level, self._domain = family, level, domain
        first_seed = random.Random(f"{family}/{level}/{seed}").randrange(2**20) * _SEED_STRIDE
        try:
            self._dataset = reasoning_gym.create_dataset(
                family, seed=first_seed, size=_SEED_STRIDE, **options
            )
        except (AssertionError, TypeError, ValueError) as error:
            raise UserError(
                f"data.families.{family}.{level}: reasoning-gym refuses these options ({error}); "
                f"see its documentation of '{family}'"
            ) from error

    def problem(self, number: int) -> Problem:
        """Problem `number`, from 0, always the same."""
        entry = self._dataset[number]
        metadata = entry["metadata"]
        # Some families write worked solutions, which a recorded teacher can use.
        if "answer_cot" in metadata:
            metadata["solutions"] = [metadata["answer_cot"]]
        return Problem(
            prompt=entry["question"].strip(),
            gold=corrected_gold(self._family, entry, self._dataset.config),
            checker=f"reasoning_gym/{self._family}",
            family=self._family,
            level=self._level,
            metadata=metadata,
            domain=self._domain,
        )


def _family_streams(
    config: ReasoningGymConfig, levels: Sequence[int] | None, seed: int
) -> list[_FamilyStream]:
    """One stream of problems for each family and level that is asked for."""
    streams = [
        _FamilyStream(family, level, options, seed, config.domain)
        for family, by_level in config.families.items()
        for level, options in by_level.items()
        if levels is None or level in levels
    ]
    if not streams:
        raise UserError(
            f"data: no family is at {in_words(levels)}; add such a level, or choose others"
        )
    return streams


def _with_solver(problem: Problem, config: ReasoningGymConfig) -> Problem:
    """The problem with the import path of its solver, if the config names one."""
    path = config.solvers.get(problem.family)
    if path is None:
        return problem
    return replace(problem, metadata={**problem.metadata, SOLVER_KEY: path})


def generated_problems(
    family: str,
    level: int,
    options: Mapping[str, Any],
    seed: int,
    domain: str = DEFAULT_DOMAIN,
) -> Iterator[Problem]:
    """Generate problems of one family and level without regard to splits; prompts may repeat.

    Raises:
        UserError: The family is unknown, or reasoning-gym refuses an option.
    """
    return map(_Generator(family, level, options, seed, domain).problem, range(_SEED_STRIDE))
