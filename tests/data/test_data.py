"""Sources, splits, and a procedural teacher whose working is right unless it slips."""

import dataclasses
import json
import random
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from reasoning_lab.config.folder import CONF
from reasoning_lab.data.corpus import (
    read_prompt_ids,
    read_rollouts,
    write_prompt_ids,
    write_rollouts,
)
from reasoning_lab.data.sources.problems import split_of
from reasoning_lab.data.sources.reasoning_gym import ReasoningGymSource
from reasoning_lab.data.teachers.methods import METHODS
from reasoning_lab.data.teachers.procedural import ProceduralTeacher, Scratchpad
from reasoning_lab.types import Completion, Problem, Rollout, Split, UserError, Verdict
from reasoning_lab.verify import extract_answer
from reasoning_lab.verify.checkers import check

TINY: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(CONF / "data" / "tiny.yaml"))  # type: ignore[assignment]
FAMILIES: dict[str, dict[int, Any]] = TINY["families"]
CELLS = [(family, level) for family, levels in FAMILIES.items() for level in levels]
LEVELS = sorted({level for _, level in CELLS})


def source_of(*families: str) -> ReasoningGymSource:
    chosen = {name: FAMILIES[name] for name in families or FAMILIES}
    return ReasoningGymSource(chosen, TINY["test_frac"], TINY["validation_frac"])


def verdict(problem: Problem, text: str) -> Verdict:
    answer = extract_answer(text)
    return Verdict.UNPARSEABLE if answer is None else check(problem, answer)


def drawn(family: str, level: int, count: int = 40, seed: int = 5) -> Iterator[Problem]:
    """Problems of a cell, without regard to splits: a small family has few of each."""
    stream = source_of(family)._stream(family, level, FAMILIES[family][level], seed)
    return (next(stream) for _ in range(count))


def test_shipped_families_are_at_least_six_with_three_levels() -> None:
    assert len(FAMILIES) >= 6
    assert all(sorted(levels) == [1, 2, 3] for levels in FAMILIES.values())
    assert set(FAMILIES) <= set(METHODS)


@pytest.mark.parametrize(("family", "level"), CELLS)
def test_teacher_without_slips_is_right(family: str, level: int) -> None:
    teacher = ProceduralTeacher(0.0, 0.0)
    for problem in drawn(family, level):
        (text,) = teacher.texts(problem, 1, 0)
        assert verdict(problem, text) is Verdict.CORRECT, (problem.prompt, text)
        assert text.startswith("<think>\n")
        assert "Wait" not in text


@pytest.mark.parametrize(("family", "level"), CELLS)
def test_noticed_slips_are_repaired(family: str, level: int) -> None:
    teacher = ProceduralTeacher(0.5, 0.0)
    waits = 0
    for problem in drawn(family, level):
        for text in teacher.texts(problem, 2, 0):
            waits += "Wait" in text
            assert verdict(problem, text) is Verdict.CORRECT, (problem.prompt, text)
    assert waits > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_unnoticed_slips_leave_wrong_answers(family: str) -> None:
    teacher = ProceduralTeacher(0.0, 0.5)
    verdicts = Counter(
        verdict(problem, text)
        for problem in drawn(family, 2)
        for text in teacher.texts(problem, 2, 0)
    )
    assert verdicts[Verdict.WRONG] > 10
    assert verdicts[Verdict.UNPARSEABLE] == verdicts[Verdict.TIMEOUT] == 0


def test_slips_come_at_their_rates() -> None:
    pad = Scratchpad(random.Random(0), 0.2, 0.1)
    steps = 4000
    wrong = sum(pad.step("{}", 50) != 50 for _ in range(steps))
    waits = sum(line.startswith("Wait") for line in pad.lines)
    # Four standard deviations of a binomial count.
    assert abs(waits - 0.2 * steps) < 4 * (steps * 0.2 * 0.8) ** 0.5
    assert abs(wrong - 0.1 * steps) < 4 * (steps * 0.1 * 0.9) ** 0.5


@given(st.integers(-500, 500), st.integers())
def test_a_slip_differs_and_keeps_the_sign(value: int, seed: int) -> None:
    pad = Scratchpad(random.Random(seed), 0.0, 1.0)
    slipped = pad.step("{}", value)
    assert slipped != value
    assert (slipped < 0) == (value < 0) or value == -1


def test_rollouts_are_seeded_and_differ() -> None:
    teacher = ProceduralTeacher(0.4, 0.0)
    problem = next(drawn("chain_sum", 3))
    first = list(teacher.texts(problem, 4, 0))
    assert first == list(teacher.texts(problem, 4, 0))
    assert list(teacher.texts(problem, 2, 0)) == first[:2]
    assert len({*first, *teacher.texts(problem, 4, 1)}) > 2


@pytest.mark.parametrize("rates", [(-0.1, 0.0), (0.6, 0.6)])
def test_impossible_slip_rates_are_refused(rates: tuple[float, float]) -> None:
    with pytest.raises(UserError, match="sum to at most 1"):
        ProceduralTeacher(*rates)


def test_family_without_a_method_is_named() -> None:
    with pytest.raises(UserError, match=r"'sudoku'.*chain_sum"):
        ProceduralTeacher(0, 0).texts(Problem("?", "1", "math", "sudoku"), 1, 0)


@settings(deadline=None, max_examples=4)
@given(st.integers(0, 2**31), st.integers(0, 2**31), st.integers(0, 2**31))
def test_no_prompt_is_in_two_splits_whatever_the_seeds(a: int, b: int, c: int) -> None:
    source = source_of("chain_sum", "gcd", "leg_counting")
    ids = [
        {problem.id for problem in source.problems(split, LEVELS, 60, seed)}
        for split, seed in ((Split.TRAIN, a), (Split.VALIDATION, b), (Split.TEST, c))
    ]
    assert not ids[0] & ids[1]
    assert not (ids[0] | ids[1]) & ids[2]


def test_problems_are_distinct_seeded_and_of_the_asked_levels() -> None:
    source = source_of()
    found = list(source.problems(Split.TRAIN, [2], 140, 3))
    assert len({problem.id for problem in found}) == len(found) == 140
    assert {problem.level for problem in found} == {2}
    assert Counter(problem.family for problem in found) == dict.fromkeys(FAMILIES, 20)
    assert found == list(source_of().problems(Split.TRAIN, [2], 140, 3))
    assert found != list(source.problems(Split.TRAIN, [2], 140, 4))


def test_split_shares_follow_the_fractions() -> None:
    rng = random.Random(0)
    ids = [f"{rng.getrandbits(64):016x}" for _ in range(4000)]
    shares = Counter(split_of(name, 0.15, 0.1) for name in ids)
    assert abs(shares[Split.TEST] / 4000 - 0.15) < 0.025
    assert abs(shares[Split.VALIDATION] / 4000 - 0.1) < 0.02
    # By hand: the first eight digits are the position in [0, 1).
    assert split_of("00000000" + "f" * 8, 0.15, 0.1) is Split.TEST
    assert split_of("40000000" + "0" * 8, 0.25, 0.1) is Split.VALIDATION
    assert split_of("ffffffff" + "0" * 8, 0.15, 0.1) is Split.TRAIN


def test_too_small_a_family_says_how_many_it_has() -> None:
    families = {"count_primes": {1: {"max_n": 3}}}
    with pytest.raises(UserError, match=r"only \d+ distinct train prompts .*500 asked for"):
        list(ReasoningGymSource(families, 0.1, 0.1).problems(Split.TRAIN, [1], 500, 0))


def test_options_that_reasoning_gym_refuses_name_their_key() -> None:
    families = {"gcd": {2: {"min_value": 9, "max_value": 1}}}
    with pytest.raises(UserError, match=r"data\.families\.gcd\.2: reasoning-gym refuses"):
        list(ReasoningGymSource(families, 0.1, 0.1).problems(Split.TRAIN, [2], 5, 0))
    with pytest.raises(UserError, match=r"data\.families\.gdc\.2: reasoning-gym refuses"):
        list(ReasoningGymSource({"gdc": {2: {}}}, 0.1, 0.1).problems(Split.TRAIN, [2], 5, 0))
    with pytest.raises(UserError, match=r"no family has a level in \[7\]"):
        list(source_of("gcd").problems(Split.TRAIN, [7], 5, 0))


@pytest.mark.parametrize("fractions", [(0.6, 0.5), (-0.1, 0.2)])
def test_fractions_must_not_overlap(fractions: tuple[float, float]) -> None:
    with pytest.raises(UserError, match="sum to 1 at most"):
        ReasoningGymSource(FAMILIES, *fractions)


MATH: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(CONF / "data" / "gym_math.yaml"))  # type: ignore[assignment]


@pytest.mark.parametrize("family", MATH["families"])
def test_generated_mathematics_has_three_levels_that_can_be_checked(family: str) -> None:
    by_level = MATH["families"][family]
    assert sorted(by_level) == [1, 2, 3]
    source = ReasoningGymSource({family: by_level}, 0.05, 0.05)
    for level in by_level:
        problems = list(source.problems(Split.TRAIN, [level], 6, 0))
        assert {problem.level for problem in problems} == {level}
        for problem in problems:
            kept = Problem(**json.loads(json.dumps(dataclasses.asdict(problem))))
            assert check(kept, problem.gold) is Verdict.CORRECT
            assert check(kept, "-987654321") is not Verdict.CORRECT


def test_mathematics_is_at_least_twelve_families() -> None:
    assert len(MATH["families"]) >= 12


def test_rollouts_survive_the_disk(tmp_path: Path) -> None:
    problem = Problem("a?", "3/4", "reasoning_gym/x", "x", 2, {"numbers": [1, 2], "deep": {"a": 1}})
    completion = Completion([5, 6], "text é \\boxed{3/4}", truncated=True)
    rollout = Rollout(problem, completion, None, Verdict.TIMEOUT, "author", 7)
    write_rollouts(tmp_path / "rollouts.parquet", [rollout, rollout])
    assert read_rollouts(tmp_path / "rollouts.parquet") == [rollout, rollout]
    write_prompt_ids(tmp_path, [problem, problem])
    assert read_prompt_ids(tmp_path) == {problem.id}
    assert read_prompt_ids(tmp_path / "elsewhere") == set()


def test_a_fraction_that_a_family_keeps_of_a_problem_is_text_on_the_disk(tmp_path: Path) -> None:
    problem = Problem("a?", "3", "reasoning_gym/x", "x", 1, {"part": Fraction(1, 3)})
    rollout = Rollout(problem, Completion([], "3"), None, Verdict.CORRECT, "author", 0)
    write_rollouts(tmp_path / "rollouts.parquet", [rollout])
    [kept] = read_rollouts(tmp_path / "rollouts.parquet")
    assert kept.problem.metadata == {"part": "1/3"}


def test_no_rollouts_survive_the_disk(tmp_path: Path) -> None:
    write_rollouts(tmp_path / "none.parquet", [])
    assert read_rollouts(tmp_path / "none.parquet") == []
