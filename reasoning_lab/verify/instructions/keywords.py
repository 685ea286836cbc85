"""Words and characters that a response must or must not have, and how it begins and ends."""

import re
from collections.abc import Iterator, Sequence

from reasoning_lab.verify.instructions.arguments import RELATIONS


def has_keywords(response: str, keywords: Sequence[str]) -> bool:
    """Every keyword occurs, in any case, also inside a word."""
    return all(any(_matches(response, keyword)) for keyword in keywords)


def has_keyword_count(response: str, keyword: str, frequency: int, relation: str) -> bool:
    """The keyword occurs so often, in any case, also inside a word."""
    return RELATIONS[relation](sum(1 for _ in _matches(response, keyword)), frequency)


def has_no_forbidden_words(response: str, forbidden_words: Sequence[str]) -> bool:
    """None of the words occurs as a word, in any case."""
    patterns = (rf"\b{re.escape(word)}\b" for word in forbidden_words)
    return not any(re.search(pattern, response, re.IGNORECASE) for pattern in patterns)


def has_letter_count(response: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    """The character occurs so often, in any case."""
    return RELATIONS[let_relation](response.lower().count(letter), let_frequency)


def has_no_comma(response: str) -> bool:
    """There is no comma of the Latin script."""
    return "," not in response


def ends_with(response: str, end_phrase: str) -> bool:
    """The phrase ends it, in any case, but for quotation marks."""
    return response.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def is_quoted(response: str) -> bool:
    """It stands in straight double quotation marks."""
    text = response.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def repeats_prompt(response: str, prompt_to_repeat: str) -> bool:
    """It begins with the request, in any case."""
    return response.strip().lower().startswith(prompt_to_repeat.strip().lower())


def has_two_responses(response: str) -> bool:
    """Two different texts, separated by six asterisks, which may also stand around both."""
    parts = [part.strip() for part in response.split("******")]
    if not all(parts[1:-1]):
        return False
    texts = [part for part in parts if part]
    return len(texts) == 2 and texts[0] != texts[1]


def _matches(response: str, text: str) -> Iterator[re.Match[str]]:
    """Where a text occurs, in any case; it is no regular expression here."""
    return re.finditer(re.escape(text), response, re.IGNORECASE)
