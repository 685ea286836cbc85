"""Generated problems: split by prompt, seeded, distinct, and checkable."""

import dataclasses
import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from reasoning_lab.config.folder import CONF
from reasoning_lab.data.sources.canonical import form_id
from reasoning_lab.data.sources.config import ReasoningGymConfig
from reasoning_lab.data.sources.problem_source import split_of
from reasoning_lab.data.sources.reasoning_gym import generated_problems
from reasoning_lab.types import Problem, Split, UserError, Verdict
from reasoning_lab.verify.checkers import check

TINY: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(CONF / "data" / "tiny.yaml"))  # type: ignore[assignment]
FAMILIES: dict[str, dict[int, Any]] = TINY["families"]
LEVELS = sorted({level for levels in FAMILIES.values() for level in levels})
MATH: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(CONF / "data" / "gym_math.yaml"))  # type: ignore[assignment]


def source_of(*families: str) -> ReasoningGymConfig:
    chosen = {name: FAMILIES[name] for name in families or FAMILIES}
    return ReasoningGymConfig(chosen, TINY["test_frac"], TINY["validation_frac"])


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


def test_problems_are_distinct_seeded_and_of_the_requested_levels() -> None:
    source = source_of()
    problems = list(source.problems(Split.TRAIN, [2], 140, 3))
    assert len({problem.id for problem in problems}) == len(problems) == 140
    assert {problem.level for problem in problems} == {2}
    assert Counter(problem.family for problem in problems) == dict.fromkeys(FAMILIES, 20)
    assert problems == list(source_of().problems(Split.TRAIN, [2], 140, 3))
    assert problems != list(source.problems(Split.TRAIN, [2], 140, 4))


def test_a_draw_is_the_same_whatever_was_drawn_before() -> None:
    """The first problems of new forms in the generator's order."""
    options, seed = FAMILIES["gcd"][2], 77
    source = source_of("gcd")
    draws = [list(source.problems(Split.TRAIN, [2], count, seed)) for count in (9, 30, 30)]
    expected: dict[str, Problem] = {}
    for problem in generated_problems("gcd", 2, options, seed):
        form = form_id(problem)
        if split_of(form, source.test_frac, source.validation_frac) is Split.TRAIN:
            expected.setdefault(form, problem)
        if len(expected) == 30:
            break
    first, *others = (sorted(draw, key=lambda one: one.prompt) for draw in draws)
    assert first == sorted(list(expected.values())[:9], key=lambda one: one.prompt)
    assert others == [sorted(expected.values(), key=lambda one: one.prompt)] * 2


@pytest.mark.parametrize(
    "name", ["tiny", "logic", "strings", "graphs", "gym_math", "gym_arithmetic", "gym_words"]
)
def test_every_family_makes_a_problem_again_without_those_before_it(name: str) -> None:
    config: Any = OmegaConf.to_container(OmegaConf.load(CONF / "data" / f"{name}.yaml"))
    source = ReasoningGymConfig(config["families"], 0.3, 0.3)
    first, again = (list(source.problems(Split.TEST, None, 60, 41)) for _ in range(2))
    assert again == first


def test_all_problems_have_the_domain_of_their_source() -> None:
    assert {one.domain for one in source_of("gcd").problems(Split.TRAIN, None, 9, 0)} == {
        "mathematics"
    }
    logic = dataclasses.replace(source_of("gcd"), domain="logic")
    assert {one.domain for one in logic.problems(Split.TRAIN, None, 9, 0)} == {"logic"}
    with pytest.raises(UserError, match=r"data\.domain: 'a/b' is no name of a domain; give up to"):
        dataclasses.replace(logic, domain="a/b").build()


def test_too_small_a_family_says_how_many_it_has() -> None:
    families = {"count_primes": {1: {"max_n": 3}}}
    with pytest.raises(UserError, match=r"only \d+ distinct train prompts .*500 asked for"):
        list(ReasoningGymConfig(families, 0.1, 0.1).problems(Split.TRAIN, [1], 500, 0))


def test_options_that_reasoning_gym_refuses_name_their_key() -> None:
    families = {"gcd": {2: {"min_value": 9, "max_value": 1}}}
    with pytest.raises(UserError, match=r"data\.families\.gcd\.2: reasoning-gym refuses"):
        list(ReasoningGymConfig(families, 0.1, 0.1).problems(Split.TRAIN, [2], 5, 0))
    with pytest.raises(UserError, match=r"data\.families\.gdc\.2: reasoning-gym refuses"):
        list(ReasoningGymConfig({"gdc": {2: {}}}, 0.1, 0.1).problems(Split.TRAIN, [2], 5, 0))
    with pytest.raises(UserError, match=r"no family is at levels \[7\]"):
        list(source_of("gcd").problems(Split.TRAIN, [7], 5, 0))


@pytest.mark.parametrize("fractions", [(0.6, 0.5), (-0.1, 0.2)])
def test_fractions_must_not_overlap(fractions: tuple[float, float]) -> None:
    with pytest.raises(UserError, match="sum to 1 at most"):
        ReasoningGymConfig(FAMILIES, *fractions).build()


@pytest.mark.parametrize("family", MATH["families"])
def test_generated_mathematics_has_three_levels_that_can_be_checked(family: str) -> None:
    by_level = MATH["families"][family]
    assert sorted(by_level) == [1, 2, 3]
    source = ReasoningGymConfig({family: by_level}, 0.05, 0.05)
    for level in by_level:
        problems = list(source.problems(Split.TRAIN, [level], 6, 0))
        assert {problem.level for problem in problems} == {level}
        for problem in problems:
            stored = Problem(**json.loads(json.dumps(dataclasses.asdict(problem))))
            assert check(stored, problem.gold) is Verdict.CORRECT
            assert check(stored, "-987654321") is not Verdict.CORRECT


def test_mathematics_is_at_least_twelve_families() -> None:
    assert len(MATH["families"]) >= 12
