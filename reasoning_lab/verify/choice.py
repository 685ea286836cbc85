r"""Read an answer to a multiple-choice question: which option does it name?

It names an option by its letter (`C`, `(c)`, `C)`, `\textbf{(C)}`, `Option C`), by its letter and
what follows (`C) 53`, `C because ...`, `I pick C`), or by its text where the problem's
`metadata["choices"]` has the options' texts in order. Letters are those of the options, up to Z;
A to J where the options are unknown. What names two options is no guess at one: it is wrong for
every gold.
"""

import re
import string
from collections.abc import Sequence
from functools import lru_cache

from reasoning_lab.verify.characters import ascii_form
from reasoning_lab.verify.number import fractions_in_line, read_number
from reasoning_lab.verify.plain_text import plain

LETTERS = string.ascii_uppercase
# Never equal to a gold.
SEVERAL = "several"

_WITHOUT_OPTIONS = LETTERS[:10]
_ANNOUNCED = re.compile(
    r"^(?:the )?(?:final )?(?:correct )?(?:answer|option|choice)(?: is)?:? (?:(?:option|choice) )?",
    re.IGNORECASE,
)
_ALONE = re.compile(r"[(\[]?([A-Za-z])[)\]]?[.:]?")
_LABEL = re.compile(
    r"\(?([A-Za-z])(?:[.:](?!\d) ?|\)(?:[.:](?=\s|$))? ?| ?= | ?=(?=\d)| - |, (?=[a-z])| (?=\())"
)
# A capital A or I before a small letter is the article or the pronoun.
_LETTER = re.compile(
    r"(?<![^\W_])(?:[AI](?! (?!(?:or|and|because|since|is|as|due|by|for)\b)[a-z])(?!'[a-z])"
    r"|[B-HJ-Z])(?![^\W_])"
)
_DENIED = re.compile(
    r"\b(?:not|no|except|never|neither|nor|wrong|incorrect|unless|but|other|cannot|instead|rather|eliminated?|rule[ds]?|false"
    r"|\w+n't)\b",
    re.IGNORECASE,
)
_IS_DENIED = re.compile(
    r"(?:(?:is|was|cannot be) )?(?:not|wrong|incorrect|false)\b|(?:is|was)n't\b", re.IGNORECASE
)
# A letter beside one of these is a part of a formula.
_OPERATORS = frozenset("^_+*/\\!<>|'")
_DIGITS = frozenset("0123456789")
_JOINING = re.compile(r",|(?<![A-Za-z])(?:or|and)(?![A-Za-z])")


def read_choice(text: str, choices: Sequence[str]) -> str | None:
    """Return the letter of the option that `text` names.

    Args:
        text: What was answered, or gold.
        choices: The options' texts in order; empty when unknown.

    Returns:
        A capital letter; `SEVERAL` for more than one option; None for none.
    """
    letters = LETTERS[: len(choices)] if choices else _WITHOUT_OPTIONS
    named = _named(_bare(text), _options(tuple(choices)))
    return named if named == SEVERAL or (named is not None and named in letters) else None


def _bare(text: str) -> str:
    """The text without LaTeX, fractions of numbers as `3/4`."""
    bare = plain(fractions_in_line(ascii_form(text)))
    quoted = re.fullmatch(r"""(["'])([^"']+)\1""", bare)
    return quoted[2] if quoted else bare


def _named(text: str, options: Sequence[str]) -> str | None:
    alone = _ALONE.fullmatch(_ANNOUNCED.sub("", text, count=1))
    if alone:
        return alone[1].upper()
    by_text = _letter_of(text, options)
    if by_text:
        return by_text
    text = _ANNOUNCED.sub("", text, count=1)
    label = _LABEL.match(text)
    if label is None or (label[1] in "aI" and set(".):").isdisjoint(label[0])):
        return _in_prose(text, options) or _letter_of_value(text, options)
    letter, rest = label[1].upper(), text[label.end() :].strip()
    rest = rest[1:-1] if rest.startswith("(") and rest.endswith(")") else rest
    if _IS_DENIED.match(rest):
        return None
    named = _letter_of(rest, options) or _letter_of_value(rest, options)
    if named == letter:
        return letter
    if named or set(_LETTER.findall(rest)) - {letter, "I"}:
        return SEVERAL
    if label[1].isupper():
        return letter
    # A small letter may be an item of a list of the answer's own.
    listed = re.search(r"(?<![^\W_])[a-z][.)] ?\S", rest)
    return letter if not options and not listed else None


def _in_prose(text: str, options: Sequence[str]) -> str | None:
    """The one letter that a sentence names and does not deny."""
    marks = list(_LETTER.finditer(text))
    letters = {mark[0] for mark in marks}
    if len(letters) > 1:
        return SEVERAL
    if not letters or _DENIED.search(text):
        return None
    for mark in marks:
        before, after = text[: mark.start()].rstrip()[-1:], text[mark.end() :].lstrip()[:1]
        if before in _OPERATORS | _DIGITS or after in _OPERATORS:
            return None
    (letter,) = letters
    parts = [part.strip() for part in _JOINING.split(text)]
    others = {_letter_of(part, options) or _letter_of_value(part, options) for part in parts}
    if others - {letter, None}:
        return SEVERAL
    return (
        letter if re.search(r"[a-z]{2}", text) or text.startswith((letter, f"({letter}")) else None
    )


def _letter_of(text: str, options: Sequence[str]) -> str | None:
    """The letter of the only option that reads so."""
    text = _compared(text)
    same = [at for at, option in enumerate(options) if option == text]
    return LETTERS[same[0]] if len(same) == 1 else None


def _letter_of_value(text: str, options: Sequence[str]) -> str | None:
    """The letter of the only option of that value: `25` where one option is `25 km/h`."""
    value = read_number(text) if options else None
    if value is None:
        return None
    values = [read_number(option) for option in options]
    same = [at for at, other in enumerate(values) if other is not None and other.matches(value)]
    return LETTERS[same[0]] if len(same) == 1 else None


@lru_cache(maxsize=256)
def _options(choices: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_option(choice, at) for at, choice in enumerate(choices[: len(LETTERS)]))


def _option(choice: str, at: int) -> str:
    """An option's text as it is compared, without the label that some data sets leave on it."""
    text = _bare(choice)
    label = re.match(r"\(?([A-Za-z])(?:[.:]|\)(?:[.:](?=\s|$))?) ?", text)
    if label and label[1] == LETTERS[at]:
        text = text[label.end() :]
    return _compared(text)


def _compared(text: str) -> str:
    """Without case, a final stop and spaces around a colon."""
    text = text.casefold()
    return re.sub(r"\s*:\s*", ":", text[:-1] if text.endswith(".") else text).strip()
