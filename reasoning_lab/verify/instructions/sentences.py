"""Split a text into sentences, without a trained model.

IFEval counts sentences with NLTK's Punkt (Kiss and Strunk 2006), whose abbreviations and sentence
starters are learned from newspapers. Here both are rules: `.`, `?` or `!` ends a sentence before a
space, unless the point belongs to an abbreviation, an initial or a number that goes on.
"""

import re

# The mark, what closes with it, and the space behind it. No repeat overlaps with another.
_END = re.compile(r"[.?!]['\")\]}*_\u201d\u2019\xbb]*(?=\s)")
_TOKEN_BEFORE = re.compile(r"\S+\Z")
# A token of more characters is no abbreviation.
_MAX_TOKEN_CHARS = 40
_OPENINGS = "\"'([{*_\u201c\u2018\xab-"
# Before a capital letter, these end no sentence either: a name follows a title.
_TITLES = (
    "adm", "capt", "cmdr", "col", "cpl", "dr", "fig", "gen", "gov", "hon", "lt", "messrs", "mr",
    "mrs", "ms", "mt", "no", "pres", "prof", "rep", "rev", "sen", "sgt", "st", "vs",
)  # fmt: skip
_ABBREVIATIONS = (
    "al", "approx", "apr", "ave", "aug", "bros", "ca", "cf", "co", "corp", "dec", "dept", "dist",
    "est", "etc", "feb", "inc", "jan", "jr", "ltd", "mar", "max", "min", "nov", "oct", "op", "p",
    "pp", "ph.d", "sept", "sr", "vol",
)  # fmt: skip
# The first character of the next word, behind what opens with it.
_NEXT = re.compile(r"\s*[\"'(\[{*_\u201c\u2018\xab`]*(\S?)")
_DOTTED = re.compile(r"(?:[a-z]\.)+[a-z]")


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, without the spaces around them; each has a letter or a digit."""
    sentences, start = [], 0
    for match in _END.finditer(text):
        if _ends_sentence(text, match.start(), match.end()):
            sentences.append(text[start : match.end()].strip())
            start = match.end()
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if any(map(str.isalnum, sentence))]


def _ends_sentence(text: str, mark: int, end: int) -> bool:
    """Whether the mark at this place ends a sentence; what closes with it ends at `end`."""
    if text[mark] != ".":
        return True
    before = _TOKEN_BEFORE.search(text[max(0, mark - _MAX_TOKEN_CHARS) : mark])
    token = before[0].lstrip(_OPENINGS).lower() if before else ""
    following = _NEXT.match(text, end)
    next_char = following[1] if following else ""
    if token.endswith("."):
        return next_char.isupper() or not next_char
    is_initial = len(token) == 1 and token.isalpha() and token != "i"
    if token in _TITLES or is_initial:
        return False
    if token in _ABBREVIATIONS or _DOTTED.fullmatch(token):
        return not next_char.islower() and not next_char.isdecimal()
    return not (token.isdecimal() and next_char.islower())
