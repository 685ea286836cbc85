"""How many words, sentences and paragraphs a response has, and how words are written."""

import re

from reasoning_lab.verify.instructions.arguments import RELATIONS
from reasoning_lab.verify.instructions.sentences import split_sentences

_WORD = re.compile(r"\w+")
# What NLTK's word_tokenize splits at, as far as it changes the number of capital words.
_BETWEEN_TOKENS = re.compile(
    r"[\s()\[\]{}<>;@#$%&?!\"\u201c\u201d\u201e\u2018\u2019\xab\xbb`]+|[:,](?=\D)|--|\.\.\.|\u2026"
)
_CONTRACTION = re.compile(r"(?=n't$|'(?:s|m|d|ll|re|ve)$)|(?<=^can)(?=not$)", re.IGNORECASE)
_RULE = re.compile(r"\s?\*\*\*\s?")
_WORD_ENDS = frozenset(".,?!'\"")


def has_word_count(response: str, num_words: int, relation: str) -> bool:
    """So many runs of letters, digits and underscores."""
    return RELATIONS[relation](len(_WORD.findall(response)), num_words)


def has_sentence_count(response: str, num_sentences: int, relation: str) -> bool:
    """So many sentences; `sentences.py` says where one ends."""
    return RELATIONS[relation](len(split_sentences(response)), num_sentences)


def has_paragraph_count(response: str, num_paragraphs: int) -> bool:
    """So many texts between Markdown's divider `***`, which may also stand around all of them."""
    parts = [bool(part.strip()) for part in _RULE.split(response)]
    return all(parts[1:-1]) and sum(parts) == num_paragraphs


def has_nth_paragraph_beginning(
    response: str, num_paragraphs: int, nth_paragraph: int, first_word: str
) -> bool:
    """So many paragraphs with empty lines between them, and one begins with the word."""
    paragraphs = response.split("\n\n")
    count = sum(bool(paragraph.strip()) for paragraph in paragraphs)
    # As published: empty paragraphs are not counted, but they have a place in the order.
    if count != num_paragraphs or nth_paragraph > count:
        return False
    words = paragraphs[nth_paragraph - 1].split()
    if not words:
        return False
    word = words[0].lstrip("'").lstrip('"')
    end = next((place for place, char in enumerate(word) if char in _WORD_ENDS), len(word))
    return word[:end].lower() == first_word


def has_capital_words(response: str, capital_frequency: int, capital_relation: str) -> bool:
    """So many words without a small letter; `I'm` has one of them."""
    tokens = (part for word in _BETWEEN_TOKENS.split(response) for part in _CONTRACTION.split(word))
    return RELATIONS[capital_relation](sum(map(str.isupper, tokens)), capital_frequency)
