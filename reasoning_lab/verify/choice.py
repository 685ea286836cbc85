r"""Read an answer to a multiple-choice question: which of A to E does it name?

It names an option by its letter (`C`, `(c)`, `C)`, `\textbf{(C)}`, `Option C`), by its letter and
what follows (`C) 53`), or by its exact text where the problem's `metadata["choices"]` has the
options' texts in order. What names two options is no guess at one: it is wrong for every gold.
"""

import re
from collections.abc import Sequence

from reasoning_lab.verify.plain_text import plain

LETTERS = "ABCDE"
# Never equal to a gold.
SEVERAL = "several"

_ANNOUNCED = re.compile(
    r"^(?:the )?(?:correct )?(?:answer|option|choice)(?: is)?:? ", re.IGNORECASE
)
_ALONE = re.compile(r"\(?([A-Ea-e])\)?[.:]?")
_LABEL = re.compile(r"\(?([A-Ea-e])(?:[.:]|\)[.:]?) ?")
# A capital A before a small letter is the article.
_LETTER = re.compile(r"(?<![^\W_])(?:A(?! (?!or |and )[a-z])|[B-E])(?![^\W_])")


def read_choice(text: str, choices: Sequence[str]) -> str | None:
    """Return the letter of the option that `text` names.

    Args:
        text: What was answered, or gold.
        choices: The options' texts in order; empty when unknown.

    Returns:
        A capital letter; `SEVERAL` for more than one option; None for none.
    """
    letters = LETTERS[: len(choices)] if choices else LETTERS
    named = _named(_plain(text), [_option(choice, at) for at, choice in enumerate(choices)])
    return named if named in (*letters, SEVERAL) else None


def _named(text: str, options: Sequence[str]) -> str | None:
    alone = _ALONE.fullmatch(_ANNOUNCED.sub("", text, count=1))
    if alone:
        return alone[1].upper()
    by_text = _letter_of(text, options)
    if by_text:
        return by_text
    text = _ANNOUNCED.sub("", text, count=1)
    label = _LABEL.match(text)
    if label is None:
        return SEVERAL if len(set(_LETTER.findall(text))) > 1 else None
    letter = label[1].upper()
    rest = text[label.end() :]
    said = _letter_of(rest, options)
    if said == letter:
        return letter
    if said or set(_LETTER.findall(rest)) - {letter}:
        return SEVERAL
    # A small letter with a text behind it may be an item of a list of the answer's own.
    return letter if label[1].isupper() else None


def _letter_of(text: str, options: Sequence[str]) -> str | None:
    """The letter of the only option that reads so."""
    same = [at for at, option in enumerate(options) if option == text.casefold()]
    return LETTERS[same[0]] if len(same) == 1 else None


def _option(choice: str, at: int) -> str:
    """An option's text as it is compared, without the label that some data sets leave on it."""
    text = _plain(choice)
    label = _LABEL.match(text)
    if label and label[1] == LETTERS[at]:
        text = text[label.end() :]
    return text.casefold()


def _plain(text: str) -> str:
    return plain(text.replace("**", ""))
