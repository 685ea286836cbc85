r"""Phrases around formulas: `2 hours 30 minutes`, `k\pi, k \in \mathbb{Z}`, and `[0,1[`."""

import re

from reasoning_lab.verify.units import unit_words

_FAMILIES = (
    ("year", "month", "week", "day", "hour", "minute", "second"),
    ("degree", "minute", "second"),
    ("yard", "foot", "inch"),
    ("mile", "yard", "foot"),
    ("pound", "ounce"),
    ("pound", "penny"),
    ("dollar", "cent"),
    ("kilometer", "meter", "centimeter", "millimeter"),
    ("kilogram", "gram"),
    ("liter", "milliliter"),
)
_AMOUNT = re.compile(
    r"\s*(?P<size>[0-9]+(?:\.[0-9]+)?)\s*"
    r"(?P<unit>\\text\{[^{}]*\}|[A-Za-z]+\.?|°|\^\s*\{\s*\\prime\s*(?:\\prime\s*)?\}|''?|\")"
    r"\s*(?:,?\s*(?:\\text\{)?\s*and\s*\}?|,)?"
)
_INTEGER = re.compile(
    r",?\s*\(?\s*(?:\\text\{,?\s*(?:for|where|with)\s*(?:all|any|some|every)?\s*\}|for|where)?\s*"
    r"(?P<name>[a-z])\s*(?:\\in\s*\\mathbb\s?\{Z\}|\\text\{\s*is an(?:y)? integer\s*\})\s*\)?$"
    r"|,?\s*\\text\{,?\s*(?:for|where)\s*(?:all |any |some |every |an )?integers?(?: \}|\})?\s*"
    r"(?P<other>[a-z])\}?$"
)
_PRIMES = {"'": "minute", "''": "second", '"': "second"}
_OUTWARD = re.compile(r"\s*([\[\]])([^\[\](),;]+[,;][^\[\](),;]+)([\[\]])\s*")


def compound(text: str) -> str | None:
    """Amounts of one kind, from the larger unit down, in one spelling; None for other texts."""
    text = re.sub(r"^\\text\{([^{}]*)\}$", r"\1", text)
    if not text[:1].isdigit():
        return None
    sizes: list[str] = []
    units: list[str] = []
    at = 0
    while at < len(text):
        match = _AMOUNT.match(text, at)
        if match is None or len(units) > 3:
            return None
        mark = match["unit"]
        if "prime" in mark:
            mark = "'" * mark.count("prime")
        words = unit_words(re.sub(r"\\text|[{}]", "", mark))
        name = _PRIMES.get(mark) or (words[0] if words and len(words) == 1 else None)
        if name is None:
            return None
        sizes.append(match["size"])
        units.append(name)
        at = match.end()
    if units == ["minute", "second"] and "'" in text:
        units = ["foot", "inch"]
    if len(units) < 2 or not any(_descends(units, family) for family in _FAMILIES):
        return None
    return " ".join(f"{size} {unit}" for size, unit in zip(sizes, units, strict=True))


def without_integers(text: str) -> str:
    """Without `k \\in \\mathbb{Z}` behind a formula in `k`; as it is where `k` is what is asked."""
    match = _INTEGER.search(text)
    if match is None:
        return text
    rest, name = text[: match.start()].rstrip(" ,"), match["name"] or match["other"]
    names_variable = re.match(
        rf"{name}\s*=|[^=]*(?:[<>]|\\(?:le|ge|neq|in|equiv)(?![A-Za-z]))", rest
    )
    used = re.search(rf"(?<![A-Za-z\\]){name}(?![A-Za-z])", rest)
    return rest if used and not names_variable else text


def _descends(units: list[str], family: tuple[str, ...]) -> bool:
    if not set(units) <= set(family):
        return False
    places = [family.index(unit) for unit in units]
    return places == sorted(set(places))


def usual_brackets(text: str) -> str:
    """Write `]0,1[` as `(0,1)` and `[0,1[` as `[0,1)`, also in unions and behind a membership."""
    if "]" not in text and "[" not in text:
        return text
    head, member, tail = text.rpartition("\\in ")
    parts = re.split(r"(\\cup)", tail)
    if not all(_OUTWARD.fullmatch(p) or re.fullmatch(r"[^\[\]]*", p) for p in parts):
        return text
    return head + member + "".join(map(_inward, parts))


def _inward(part: str) -> str:
    match = _OUTWARD.fullmatch(part)
    if match is None:
        return part
    return f"{'[' if match[1] == '[' else '('}{match[2]}{']' if match[3] == ']' else ')'}"
