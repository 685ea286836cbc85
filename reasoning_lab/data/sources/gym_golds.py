"""Golds of reasoning-gym that are wrong, and what they should be.

Three families have such golds in reasoning-gym 0.1.25:

- `caesar_cipher`: a letter outside A to Z, as in "AËRIAL", is enciphered as one that means another.
- `family_relationships`: of a nephew, a niece or a child-in-law it names the other person's side.
- `syllogism`: it takes "some B are C" to say something of A where all A are B.
"""

import itertools
import re
import string
from collections.abc import Callable, Mapping
from typing import Any

# What a draw of these families is depends on it, so that it is a part of their fingerprint.
CORRECTIONS_VERSION = 1

_OWN_SIDE = {
    "niece": ("nephew", "niece"),
    "nephew": ("nephew", "niece"),
    "mother-in-law": ("son-in-law", "daughter-in-law"),
    "father-in-law": ("son-in-law", "daughter-in-law"),
}
_ALPHABET = string.ascii_uppercase
_STATEMENT = re.compile(r"(All|No|Some) (\w+) are (not )?(\w+)")


def corrected_gold(family: str, entry: Mapping[str, Any], options: Any) -> str:
    """The right answer to an entry of a dataset with these `options`; mostly the entry's own."""
    correct = _CORRECTIONS.get(family)
    gold: str = entry["answer"]
    return gold if correct is None else correct(gold, entry["metadata"], options)


def has_corrected_golds(family: str) -> bool:
    """Whether reasoning-gym's golds of the family need correction."""
    return family in _CORRECTIONS


def _caesar_cipher(gold: str, metadata: Mapping[str, Any], options: Any) -> str:
    """What the cipher text means, whatever was enciphered."""
    if gold.isascii():
        return gold
    moved = {letter: _ALPHABET[at - metadata["rotation"]] for at, letter in enumerate(_ALPHABET)}
    return "".join(moved.get(letter, letter) for letter in metadata["cipher_text"])


def _family_relationship(gold: str, metadata: Mapping[str, Any], options: Any) -> str:
    """The question is what the first person is to the second."""
    if gold not in _OWN_SIDE:
        return gold
    male, female = _OWN_SIDE[gold]
    return male if metadata["person1"] in options.male_names else female


def _syllogism(gold: str, metadata: Mapping[str, Any], options: Any) -> str:
    """Whether the conclusion holds wherever the premises do and every kind has members.

    What matters of a world is which combinations of kinds exist, so all worlds can be tried.
    """
    texts = [metadata[key] for key in ("premise1", "premise2", "conclusion")]
    statements = [match.groups() for match in map(_STATEMENT.fullmatch, texts) if match]
    kinds = sorted({kind for _, one, _, other in statements for kind in (one, other)})
    beings = [
        frozenset(kind for kind, belongs in zip(kinds, membership, strict=True) if belongs)
        for membership in itertools.product((False, True), repeat=len(kinds))
    ]
    worlds = (
        [being for being, exists in zip(beings, existence, strict=True) if exists]
        for existence in itertools.product((False, True), repeat=len(beings))
    )
    *premises, conclusion = statements
    follows = all(
        _holds(conclusion, world)
        for world in worlds
        if all(any(kind in being for being in world) for kind in kinds)
        and all(_holds(premise, world) for premise in premises)
    )
    return "Yes" if follows else "No"


def _holds(statement: tuple[str, ...], world: list[frozenset[str]]) -> bool:
    quantifier, one, negation, other = statement
    are_other = [other in being for being in world if one in being]
    if quantifier == "Some":
        return any(is_other is not bool(negation) for is_other in are_other)
    return all(is_other is (quantifier == "All") for is_other in are_other)


_CORRECTIONS: Mapping[str, Callable[[str, Mapping[str, Any], Any], str]] = {
    "caesar_cipher": _caesar_cipher,
    "family_relationships": _family_relationship,
    "syllogism": _syllogism,
}
