"""Golds that reasoning-gym has wrong, and the right ones, by hand."""

from itertools import islice
from typing import Any

import pytest
from reasoning_gym.graphs.family_relationships import FamilyRelationshipsConfig

from reasoning_lab.data.sources.config import ReasoningGymConfig
from reasoning_lab.data.sources.gym_golds import CORRECTIONS_VERSION, corrected_gold
from reasoning_lab.data.sources.reasoning_gym import generated_problems


@pytest.mark.parametrize(
    ("first", "second", "conclusion", "gold"),
    [
        ("All cats are dogs", "All dogs are birds", "All cats are birds", "Yes"),
        # There are cats, as Aristotle takes it.
        ("All cats are dogs", "All dogs are birds", "Some cats are birds", "Yes"),
        ("All cats are dogs", "No dogs are birds", "Some cats are not birds", "Yes"),
        # Those birds may be other dogs; reasoning-gym says Yes.
        ("All cats are dogs", "Some dogs are birds", "Some cats are birds", "No"),
        ("Some cats are dogs", "No dogs are birds", "Some cats are not birds", "Yes"),
        ("Some cats are dogs", "Some dogs are birds", "Some cats are birds", "No"),
        ("No cats are dogs", "All dogs are birds", "No cats are birds", "No"),
        ("All cats are dogs", "Some dogs are birds", "Some dogs are cats", "Yes"),
        ("All cats are dogs", "Some dogs are birds", "All dogs are cats", "No"),
        ("No cats are dogs", "Some dogs are birds", "No dogs are cats", "Yes"),
        ("Some cats are not dogs", "All dogs are birds", "Some dogs are not cats", "No"),
    ],
)
def test_a_syllogism_is_valid_where_no_world_refutes_it(
    first: str, second: str, conclusion: str, gold: str
) -> None:
    metadata = {"premise1": first, "premise2": second, "conclusion": conclusion}
    entry = {"answer": "Maybe", "metadata": metadata}
    assert corrected_gold("syllogism", entry, None) == gold


@pytest.mark.parametrize(
    ("person", "gold", "expected"),
    [
        # Of John to his uncle Thomas or his aunt Mary, reasoning-gym names the other's side.
        ("John", "niece", "nephew"),
        ("Mary", "nephew", "niece"),
        ("Mary", "father-in-law", "daughter-in-law"),
        ("John", "mother-in-law", "son-in-law"),
        ("John", "uncle", "uncle"),
    ],
)
def test_a_relation_is_what_the_first_person_is(person: str, gold: str, expected: str) -> None:
    entry = {"answer": gold, "metadata": {"person1": person}}
    options = FamilyRelationshipsConfig()
    assert corrected_gold("family_relationships", entry, options) == expected


def test_a_cipher_means_what_its_letters_say() -> None:
    # Ë is enciphered as L, which is I three letters later.
    for gold, expected in (("AËRIAL", "AIRIAL"), ("AS YOU", "AS YOU")):
        metadata = {"cipher_text": "DLULDO", "rotation": 3}
        entry = {"answer": gold, "metadata": metadata}
        assert corrected_gold("caesar_cipher", entry, None) == expected


def test_what_was_corrected_is_a_part_of_the_fingerprint() -> None:
    plain, corrected = (
        ReasoningGymConfig({family: {1: {}}}).content() for family in ("gcd", "syllogism")
    )
    assert corrected == f"{plain}, golds corrected {CORRECTIONS_VERSION}"


def test_generated_problems_have_the_corrected_golds() -> None:
    options: dict[str, Any] = {"min_family_size": 9, "max_family_size": 9}
    problems = list(islice(generated_problems("family_relationships", 1, options, 0), 200))
    corrected = [p for p in problems if p.gold != p.metadata["relationship"]]
    assert 10 < len(corrected) < 100
    assert {p.gold for p in corrected} <= {"niece", "nephew", "son-in-law", "daughter-in-law"}
