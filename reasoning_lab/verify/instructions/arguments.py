"""Read the arguments of an instruction, as datasets write them, by their names in IFEval."""

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reasoning_lab.verify.instructions.json_schema import check_schema
from reasoning_lab.verify.instructions.language import LANGUAGES

# The first two are IFEval's.
RELATIONS: Mapping[str, Callable[[int, int], bool]] = {
    "less than": operator.lt,
    "at least": operator.ge,
    "at most": operator.le,
    "exactly": operator.eq,
}
# A search takes the product of both lengths at worst.
_MAX_TEXT_CHARS = 300
_MAX_PROMPT_CHARS = 100_000
_MAX_TEXTS = 1_000
_MAX_NUMBER = 10**9
_SHOWN_CHARS = 60


def _whole_number(value: Any) -> int:
    """A whole number from 0; a table may have stored it as a float."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or value != value or not 0 <= value <= _MAX_NUMBER or value != int(value):
        raise ValueError("give a whole number from 0")
    return int(value)


def _position(value: Any) -> int:
    number = _whole_number(value)
    if number < 1:
        raise ValueError("give a whole number from 1")
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > _MAX_TEXT_CHARS:
        raise ValueError(f"give a text of at most {_MAX_TEXT_CHARS:,} characters")
    return value.strip()


def _long_text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > _MAX_PROMPT_CHARS:
        raise ValueError(f"give a text of at most {_MAX_PROMPT_CHARS:,} characters")
    return value.strip()


def _texts(value: Any) -> tuple[str, ...]:
    is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    if not is_list or not 1 <= len(value) <= _MAX_TEXTS:
        raise ValueError(f"give a list of 1 to {_MAX_TEXTS:,} texts")
    return tuple(_text(item) for item in value)


def _character(value: Any) -> str:
    if not isinstance(value, str) or len(value.strip().lower()) != 1:
        raise ValueError("give one character")
    return value.strip().lower()


def _word(value: Any) -> str:
    return _text(value).lower()


def _relation(value: Any) -> str:
    if not isinstance(value, str) or value not in RELATIONS:
        raise ValueError(f"give one of {', '.join(RELATIONS)}")
    return value


def _language(value: Any) -> str:
    if not isinstance(value, str) or value not in LANGUAGES:
        raise ValueError(f"give one of {', '.join(LANGUAGES)}")
    return value


def _schema(value: Any) -> Mapping[str, Any]:
    """A JSON schema, or its JSON text, which a table does not fill with nulls."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("give a JSON object or its text") from None
    if not isinstance(value, Mapping):
        raise ValueError("give a JSON object or its text")
    check_schema(value)
    return value


# By name: what makes the argument of a row or a config usable, or raises ValueError.
_READERS: Mapping[str, Callable[[Any], Any]] = {
    "capital_frequency": _whole_number,
    "capital_relation": _relation,
    "end_phrase": _text,
    "first_word": _word,
    "forbidden_words": _texts,
    "frequency": _whole_number,
    "keyword": _text,
    "keywords": _texts,
    "language": _language,
    "let_frequency": _whole_number,
    "let_relation": _relation,
    "letter": _character,
    "nth_paragraph": _position,
    "num_bullets": _whole_number,
    "num_highlights": _whole_number,
    "num_paragraphs": _whole_number,
    "num_placeholders": _whole_number,
    "num_sections": _whole_number,
    "num_sentences": _whole_number,
    "num_words": _whole_number,
    "postscript_marker": _text,
    "prompt_to_repeat": _long_text,
    "relation": _relation,
    "schema": _schema,
    # IFEval's spelling.
    "section_spliter": _text,
}


def read_argument(name: str, value: Any) -> Any:
    """The argument in the type that its function takes.

    Raises:
        ValueError: The value is no such argument; the message says what it is and must be.
    """
    try:
        return _READERS[name](value)
    except ValueError as error:
        shown = repr(value)[:_SHOWN_CHARS]
        raise ValueError(f"{name} is {shown}; {error}") from None
