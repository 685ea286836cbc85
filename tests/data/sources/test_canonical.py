"""Canonical forms by hand, and over thousands of draws: no form is in two splits."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from omegaconf import OmegaConf

from reasoning_lab.config.folder import CONF
from reasoning_lab.data.sources.canonical import canonical_form, form_id
from reasoning_lab.data.sources.config import ReasoningGymConfig
from reasoning_lab.data.sources.reasoning_gym import generated_problems
from reasoning_lab.types import Message, Problem, Split

SUM = "State the final answer to the following arithmetic problem: {} ="
COMPLEX = "{} the complex numbers: ({}) {} ({})"
GCD = (
    "Find the Greatest Common Divisor (GCD) of these numbers: {}. Give only the GCD as your answer."
)
LCM = "Find the Least Common Multiple (LCM) of these numbers: {}"
LEGS = (
    "Your task is to count how many legs there are in total when given a list of animals.\n\n"
    "Now, how many legs are there in total if you have {}?"
)
FRACTION = (
    "Simplify the fraction {} to its lowest terms. Give only the simplified fraction as your final "
    "answer."
)
PRODUCT = "Solve the following multiplication: {}. Give only the result as your final answer."
SOLVE, FIND = "Solve for {}: {}", "Find the value of {} in the equation: {}"
DETERMINE = "Determine the value of {} that satisfies: {}"
ROOTS = "Solve for real {}: {}\nIn solving equations, please follow these instructions:\n1. …"
EXPAND = "{} {}\nWhen performing calculations, please follow these guidelines:\n1. …"
INTEGRAL = "{}: ∫ {} dx\nWhen performing calculations, please follow these guidelines:\n1. …"
BITWISE = (
    "Please solve this problem. Assume there is arbitrary bit depth and that there are signed "
    "integers. Reply only with the final hexidecimal value.\n{}"
)
SORT = (
    "Your task is to sort words in ascending or descending order using ASCII/Unicode ordering.\n\n"
    "Now, sort these words in {} order (using ASCII/Unicode ordering) and return them as a "
    "comma-separated list: {}"
)
LETTERS = 'How many times does the letter "{}" appear in the text: "{}"?'
COURSES = (
    "There are a total of 4 courses you have to take, labeled from 0 to 3.\n\nYou are given the "
    "following list of prerequisites:\n{}\n\nReturn True if you can finish all courses."
)
PATH = "Find a path from the start node to the goal node.\n\nSolve the following task:\n|{} ="
DICE = "I have these dice: {}. What are the odds of rolling {} or higher? (Assume …)"


def problem(prompt: str, checker: str = "math", **metadata: Any) -> Problem:
    return Problem(prompt, "1", checker, "f", 1, metadata)


@pytest.mark.parametrize(
    ("one", "twin"),
    [
        (SUM.format("3 + 4"), SUM.format("4 + 3")),
        (SUM.format("3 + 4"), SUM.format("4  +\n3")),
        (SUM.format("9 - 4 + 5"), SUM.format("9 + 5 - 4")),
        (SUM.format("1.5 + 2.25"), SUM.format("2.25 + 1.50")),
        (SUM.format("3 + 4"), "Calculate 4 + 3."),
        ("Calculate ( 4 * 6 + -9 ).", "Calculate -9 + 6 * 4."),
        ("Calculate 17 * ( -24 + 10 * 69 ).", "Calculate ( 69 * 10 - 24 ) * 17."),
        (PRODUCT.format("61 * 48"), PRODUCT.format("48 * 61")),
        (
            COMPLEX.format("Add", "1.0 + 2.0i", "+", "3.00"),
            COMPLEX.format("Add", "3.00", "+", "1.0 + 2.0i"),
        ),
        (
            COMPLEX.format("Multiply", "1.0", "×", "2.0i"),
            COMPLEX.format("Multiply", "2.0i", "×", "1.0"),
        ),
        (GCD.format("12, 18"), GCD.format("18, 12")),
        (LCM.format("2, 10, 9"), LCM.format("10, 9, 2")),
        (LEGS.format("2 ants, 3 sea slugs"), LEGS.format("3 sea slugs, 2 ants")),
        (FRACTION.format("4/8"), FRACTION.format(r"$\frac{4}{8}$")),
        (SOLVE.format("x", "3*x + 5 = 8"), FIND.format("n", "5 + 3*n = 8")),
        (SOLVE.format("x", "3*x + 5 = 8"), DETERMINE.format("q", "3*q + 5 = 8")),
        (ROOTS.format("h", "24 - 69*h**2 = 0"), ROOTS.format("u", "-69*u**2 + 24 = 0")),
        (
            EXPAND.format("Simplify this expression:", "(y + 1)*(2*y - 3)"),
            EXPAND.format("Calculate the following:", "(2*z - 3)*(1 + z)"),
        ),
        (
            INTEGRAL.format("Find the indefinite integral", "4*x**2 + 2"),
            INTEGRAL.format("Calculate the antiderivative", "2 + 4*X**2"),
        ),
        (BITWISE.format("((0x1 + 0x2) * 0x3)"), BITWISE.format("(0x3 * (0x2 + 0x1))")),
        (DICE.format("1d20, 1d6", 19), DICE.format("1d6, 1d20", 19)),
        (SORT.format("ascending", "b, a, c"), SORT.format("ascending", "c, a, b")),
        (LETTERS.format("e", "the use"), LETTERS.format("e", "use the")),
        (COURSES.format("[(0, 1), (3, 2)]"), COURSES.format("[(3, 2), (0, 1)]")),
        (PATH.format("3 8|4 0|3 4/3 0"), PATH.format("3 4|3 8|4 0/3 0")),
    ],
)
def test_twins_share_a_form(one: str, twin: str) -> None:
    assert form_id(problem(one)) == form_id(problem(twin, "number"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (SUM.format("3 + 4"), SUM.format("3 + 5")),
        (SUM.format("9 - 4"), SUM.format("4 - 9")),
        (SUM.format("1 + 23"), SUM.format("12 + 3")),
        ("Calculate 8 / 2.", "Calculate 2 / 8."),
        ("Calculate 2 * ( 3 + 4 ).", "Calculate 2 * 3 + 4."),
        ("Calculate 8 / 2 / 2.", "Calculate 8 / ( 2 / 2 )."),
        (
            COMPLEX.format("Subtract", "1.0", "-", "2.0i"),
            COMPLEX.format("Subtract", "2.0i", "-", "1.0"),
        ),
        (
            COMPLEX.format("Divide", "4.0", "÷", "2.0i"),
            COMPLEX.format("Divide", "2.0i", "÷", "4.0"),
        ),
        (COMPLEX.format("Add", "1.0", "+", "2.0i"), COMPLEX.format("Multiply", "1.0", "×", "2.0i")),
        (GCD.format("12, 18"), LCM.format("12, 18")),
        (LEGS.format("2 ants, 3 dogs"), LEGS.format("3 ants, 2 dogs")),
        # The name of an animal stands for a number.
        (LEGS.format("2 ants"), LEGS.format("2 dogs")),
        (FRACTION.format("4/8"), FRACTION.format("8/4")),
        (SOLVE.format("x", "3*x - 5 = 8"), SOLVE.format("x", "5 - 3*x = 8")),
        (SOLVE.format("x", "3*x + 5 = 8"), SOLVE.format("x", "5*x + 3 = 8")),
        (ROOTS.format("x", "x**2 - 3 = 0"), ROOTS.format("x", "x**3 - 2 = 0")),
        (BITWISE.format("(0x1 << 0x2)"), BITWISE.format("(0x2 << 0x1)")),
        (DICE.format("1d20, 1d6", 19), DICE.format("1d20, 1d6", 18)),
        (SORT.format("ascending", "b, a"), SORT.format("descending", "b, a")),
        (LETTERS.format("e", "the use"), LETTERS.format("s", "the use")),
        (COURSES.format("[(0, 1)]"), COURSES.format("[(1, 0)]")),
        (PATH.format("3 8|8 0/3 0"), PATH.format("3 8|8 0/3 8")),
        ("What is the capital?", "What is the capitol?"),
    ],
)
def test_other_problems_have_other_forms(one: str, other: str) -> None:
    assert form_id(problem(one)) != form_id(problem(other))


def test_a_prompt_that_no_rule_knows_is_its_own_form() -> None:
    unknown = problem("A train leaves at 3 + 4 =")
    assert canonical_form(unknown) == unknown.prompt
    assert form_id(unknown) == unknown.id
    messages = (Message("user", "Hi."), Message("assistant", "Hello."))
    conversation = Problem(SUM.format("3 + 4"), "7", "math", "f", earlier_messages=messages)
    assert form_id(conversation) == conversation.id
    assert (
        form_id(problem("Calculate " + "(" * 3000 + "."))
        == problem("Calculate " + "(" * 3000 + ".").id
    )


def test_word_problems_are_twins_by_their_template_and_numbers() -> None:
    def word_problem(name: str, thing: str, number: int) -> Problem:
        prompt = f"{name} has {number} {thing}s and buys 4. How many {thing}s has {name}?"
        variables = {"name": name, "things": [thing], "number": number, "share": "1/2"}
        return problem(prompt, "reasoning_gym/gsm_symbolic", variables=variables)

    assert form_id(word_problem("Ann", "pear", 3)) == form_id(word_problem("Bob", "apple", 3))
    assert form_id(word_problem("Ann", "pear", 3)) != form_id(word_problem("Ann", "pear", 5))
    unnoted = problem("Ann has 3.", "reasoning_gym/gsm_symbolic")
    assert form_id(unnoted) == unnoted.id


def test_calendars_are_twins_by_what_is_asked_of_which_dates() -> None:
    def form(prompt: str, index: int, days: int) -> str:
        notes = {"task": "weekday_offset", "start_date": "2023-01-02", "offset_days": days}
        return form_id(
            problem(prompt, "reasoning_gym/calendar_arithmetic", source_index=index, **notes)
        )

    assert form("Count forward", 1, 5) == form("If today is", 2, 5)
    assert form("Count forward", 1, 5) != form("Count forward", 1, 6)


def shipped_families() -> list[tuple[str, str]]:
    """Option and family of every generated source that is shipped, benchmarks' own included."""
    pairs = []
    for path in sorted([*(CONF / "data").glob("*.yaml"), *(CONF / "benchmark").glob("*.yaml")]):
        options: Any = OmegaConf.to_container(OmegaConf.load(path))
        families = (options.get("data") or {}).get("families") or options.get("families") or {}
        pairs += [(f"{path.parent.name}/{path.name}", family) for family in families]
    return pairs


TINY, FAMILIES = "data/tiny.yaml", shipped_families()


def by_level(option: str, family: str) -> dict[int, dict[str, Any]]:
    options: Any = OmegaConf.to_container(OmegaConf.load(CONF / option))
    levels: dict[int, dict[str, Any]] = ({**options, **(options.get("data") or {})})["families"][
        family
    ]
    return levels


def sets_of_forms(option: str, family: str, count: int) -> Iterator[list[set[str]]]:
    """Of each level: the forms of each split, of which each is drawn under another seed."""
    for level, options in by_level(option, family).items():
        source = ReasoningGymConfig({family: {level: options}}, 0.3, 0.3)
        generated = islice(generated_problems(family, level, options, 5), count)
        # Of a small family, as many as each split surely has.
        wanted = max(1, len(set(map(canonical_form, generated))) // 6)
        splits = [
            [canonical_form(one) for one in source.problems(split, [level], wanted, seed)]
            for seed, split in enumerate(Split)
        ]
        assert [len(set(forms)) for forms in splits] == [wanted] * 3
        yield [set(forms) for forms in splits]


@pytest.mark.parametrize("family", [name for option, name in FAMILIES if option == TINY])
def test_no_form_is_in_two_splits(family: str) -> None:
    for train, validation, test in sets_of_forms(TINY, family, 60):
        assert not train & validation
        assert not (train | validation) & test


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("option", "family"), FAMILIES)
@pytest.mark.parametrize(
    "draws",
    [
        pytest.param(100, marks=pytest.mark.long),
        pytest.param(3000, marks=pytest.mark.soak),
    ],
)
def test_no_form_is_in_two_splits_over_many_draws(option: str, family: str, draws: int) -> None:
    for train, validation, test in sets_of_forms(option, family, draws):
        assert not train & validation
        assert not (train | validation) & test
