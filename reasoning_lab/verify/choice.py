r"""Parse an answer to a multiple-choice question to the letter of an option.

An answer names an option by its letter (`C`, `(c)`, `C)`, `\textbf{(C)}`, `Option C`) or by its
letter in a text (`C) 53`, `C because ...`, `I pick C`). It may also give the option's text, where
the problem's `metadata["choices"]` lists the options' texts. The letters are those of the options,
up to Z, or A to J where the options are unknown. An answer that names two options is wrong for
every gold.
"""

import re
import string
from collections.abc import Sequence
from functools import lru_cache

from reasoning_lab.verify.characters import normalise_characters, strip_latex
from reasoning_lab.verify.number import inline_fractions, parse_number

LETTERS = string.ascii_uppercase
# The result for a text that names two or more options; it equals no gold.
SEVERAL_OPTIONS = "several"

_DEFAULT_LETTERS = LETTERS[:10]
_ANNOUNCEMENT = re.compile(
    r"^(?:the )?(?:final )?(?:correct )?(?:answer|option|choice)(?: is)?:? (?:(?:option|choice) )?",
    re.IGNORECASE,
)
_LETTER_ALONE = re.compile(r"[(\[]?([A-Za-z])[)\]]?[.:]?")
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


def parse_choice(text: str, choices: Sequence[str]) -> str | None:
    """Return the capital letter of the option that `text` names, out of `choices` where known.

    Two or more options are `SEVERAL_OPTIONS`, and none is None.
    """
    letters = LETTERS[: len(choices)] if choices else _DEFAULT_LETTERS
    letter = _parse_letter(_strip(text), _parse_options(tuple(choices)))
    return letter if letter in (SEVERAL_OPTIONS, *letters) else None


def _strip(text: str) -> str:
    """Return the text without LaTeX and quotes, fractions of numbers as `3/4`."""
    text = strip_latex(inline_fractions(normalise_characters(text)))
    quoted = re.fullmatch(r"""(["'])([^"']+)\1""", text)
    return quoted[2] if quoted else text


def _parse_letter(text: str, options: Sequence[str]) -> str | None:
    alone = _LETTER_ALONE.fullmatch(_ANNOUNCEMENT.sub("", text, count=1))
    if alone:
        return alone[1].upper()
    by_text = _letter_by_text(text, options)
    if by_text:
        return by_text
    text = _ANNOUNCEMENT.sub("", text, count=1)
    label = _LABEL.match(text)
    if label is None or (label[1] in "aI" and set(".):").isdisjoint(label[0])):
        return _letter_in_sentence(text, options) or _letter_by_value(text, options)
    letter, rest = label[1].upper(), text[label.end() :].strip()
    rest = rest[1:-1] if rest.startswith("(") and rest.endswith(")") else rest
    if _IS_DENIED.match(rest):
        return None
    letter_of_rest = _letter_by_text(rest, options) or _letter_by_value(rest, options)
    if letter_of_rest == letter:
        return letter
    if letter_of_rest or set(_LETTER.findall(rest)) - {letter, "I"}:
        return SEVERAL_OPTIONS
    if label[1].isupper():
        return letter
    # A small letter may be the label of an item in the answer's own list.
    starts_list = re.search(r"(?<![^\W_])[a-z][.)] ?\S", rest)
    return letter if not options and not starts_list else None


def _letter_in_sentence(text: str, options: Sequence[str]) -> str | None:
    """Return the one letter that a sentence names and does not deny."""
    matches = list(_LETTER.finditer(text))
    letters = {match[0] for match in matches}
    if len(letters) > 1:
        return SEVERAL_OPTIONS
    if not letters or _DENIED.search(text):
        return None
    for match in matches:
        before, after = text[: match.start()].rstrip()[-1:], text[match.end() :].lstrip()[:1]
        if before in _OPERATORS | _DIGITS or after in _OPERATORS:
            return None
    (letter,) = letters
    parts = [part.strip() for part in _JOINING.split(text)]
    others = {_letter_by_text(part, options) or _letter_by_value(part, options) for part in parts}
    if others - {letter, None}:
        return SEVERAL_OPTIONS
    is_sentence = re.search(r"[a-z]{2}", text) or text.startswith((letter, f"({letter}"))
    return letter if is_sentence else None


def _letter_by_text(text: str, options: Sequence[str]) -> str | None:
    text = _normalise_option(text)
    return LETTERS[options.index(text)] if options.count(text) == 1 else None


def _letter_by_value(text: str, options: Sequence[str]) -> str | None:
    """Return the letter of the only option with this value: `25` names the option `25 km/h`."""
    value = parse_number(text) if options else None
    if value is None:
        return None
    values = [parse_number(option) for option in options]
    matches = [at for at, other in enumerate(values) if other is not None and other.matches(value)]
    return LETTERS[matches[0]] if len(matches) == 1 else None


@lru_cache(maxsize=256)
def _parse_options(choices: tuple[str, ...]) -> tuple[str, ...]:
    """Return the options' texts for comparison, without labels that a data set left in them."""
    texts = []
    for letter, choice in zip(LETTERS, choices, strict=False):
        label = rf"\(?{letter}(?:[.:]|\)(?:[.:](?=\s|$))?) ?"
        texts.append(_normalise_option(re.sub(rf"\A{label}", "", _strip(choice))))
    return tuple(texts)


def _normalise_option(text: str) -> str:
    """Return the text without case, a final stop and spaces around a colon."""
    text = text.casefold()
    return re.sub(r"\s*:\s*", ":", text[:-1] if text.endswith(".") else text).strip()
