"""Solvers of strings: counting letters, spelling backward, a cipher, sorting."""

from collections.abc import Sequence

from reasoning_lab.data.teachers.solvers.scratchpad import Scratchpad
from reasoning_lab.types import Problem

_NONE = "none"
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def letter_counting(problem: Problem, pad: Scratchpad) -> str:
    """Spell each word and pick the letter out of it; then count what was picked."""
    letter, picked = problem.metadata["target_letter"], []
    for word in problem.metadata["span"]:
        spelled = _spell(pad, word.lower())
        right, *slips = (
            " ".join([letter] * max(spelled.split().count(letter) + by, 0)) or _NONE
            for by in (0, -1, 1)
        )
        occurrences = pad.step(f"{letter} in {spelled} = {{}}", right, slips)
        picked += [] if occurrences == _NONE else occurrences.split()
    return str(pad.step(f"{' '.join(picked) or _NONE} = {{}}", len(picked)))


def spell_backward(problem: Problem, pad: Scratchpad) -> str:
    """Spell the word, then write its letters from the last to the first."""
    spelled = _spell(pad, problem.metadata["word"])
    letters = spelled.split()[::-1]
    backward = pad.step(f"{spelled} backward = {{}}", " ".join(letters), _misspelled(letters))
    return backward.replace(" ", "")


def caesar_cipher(problem: Problem, pad: Scratchpad) -> str:
    """Spell each word, then move each letter back by the key, which the problem does not tell."""
    key = problem.metadata["rotation"]
    words = []
    for word in problem.metadata["cipher_text"].split():
        spelled = _spell(pad, word)
        letters = [_moved(letter, -key) for letter in spelled.split()]
        slips = [
            " ".join([*letters[:at], _moved(letter, by), *letters[at + 1 :]])
            for at, letter in enumerate(letters)
            for by in (-1, 1)
        ]
        clear = pad.step(f"{spelled} back {key} = {{}}", " ".join(letters), slips)
        words.append(clear.replace(" ", ""))
    return " ".join(words)


def word_sorting(problem: Problem, pad: Scratchpad) -> str:
    """Take the first of the remaining words, again and again."""
    remaining = list(problem.metadata["transformed_words"])
    is_ascending = problem.metadata["direction"] == "ascending"
    first, place = (min, "first") if is_ascending else (max, "last")
    ordered = []
    while len(remaining) > 1:
        listed = ", ".join(remaining)
        word = pad.step(f"{place} of {listed} = {{}}", first(remaining), remaining)
        remaining.remove(word)
        ordered.append(word)
    return ", ".join([*ordered, *remaining])


def _spell(pad: Scratchpad, word: str) -> str:
    """Write the word letter by letter, and return its letters between spaces."""
    return pad.step(f"{word} = {{}}", " ".join(word), _misspelled(word))


def _misspelled(letters: Sequence[str]) -> list[str]:
    """The letters between spaces, with one left out, written twice, or exchanged with the next."""
    *_, last = positions = range(len(letters))
    left_out = [[*letters[:at], *letters[at + 1 :]] for at in positions if last]
    twice = [[*letters[: at + 1], *letters[at:]] for at in positions]
    exchanged = [
        [*letters[:at], letters[at + 1], letters[at], *letters[at + 2 :]] for at in positions[:-1]
    ]
    return [" ".join(slip) for slip in (*left_out, *twice, *exchanged)]


def _moved(letter: str, by: int) -> str:
    at = _ALPHABET.find(letter)
    return letter if at < 0 else _ALPHABET[(at + by) % len(_ALPHABET)]
