r"""Rewrite notations before parsing: `2 hours 30 minutes`, `k\pi, k \in \mathbb{Z}`, `[0,1[`."""

import re

from reasoning_lab.verify.units import parse_unit

_UNIT_FAMILIES = (
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
    r"\s*(?P<amount>[0-9]+(?:\.[0-9]+)?)\s*"
    r"(?P<unit>\\text\{[^{}]*\}|[A-Za-z]+\.?|°|\^\s*\{\s*\\prime\s*(?:\\prime\s*)?\}|''?|\")"
    r"\s*(?:,?\s*(?:\\text\{)?\s*and\s*\}?|,)?"
)
_INTEGER_CONDITION = re.compile(
    r",?\s*\(?\s*(?:\\text\{,?\s*(?:for|where|with)\s*(?:all|any|some|every)?\s*\}|for|where)?\s*"
    r"(?P<name>[a-z])\s*(?:\\in\s*\\mathbb\s?\{Z\}|\\text\{\s*is an(?:y)? integer\s*\})\s*\)?$"
    r"|,?\s*\\text\{,?\s*(?:for|where)\s*(?:all |any |some |every |an )?integers?(?: \}|\})?\s*"
    r"(?P<index>[a-z])\}?$"
)
_PRIMES = {"'": "minute", "''": "second", '"': "second"}
_REVERSED_BRACKETS = re.compile(r"\s*([\[\]])([^\[\](),;]+[,;][^\[\](),;]+)([\[\]])\s*")


def normalise_compound_quantity(text: str) -> str | None:
    """Return amounts in two or more units of one kind in one spelling; None for other texts.

    The units go from the larger to the smaller.
    """
    text = re.sub(r"^\\text\{([^{}]*)\}$", r"\1", text)
    if not text[:1].isdigit():
        return None
    amounts: list[str] = []
    units: list[str] = []
    at = 0
    while at < len(text):
        match = _AMOUNT.match(text, at)
        if match is None or len(units) > 3:
            return None
        symbol = match["unit"]
        if "prime" in symbol:
            symbol = "'" * symbol.count("prime")
        words = parse_unit(re.sub(r"\\text|[{}]", "", symbol))
        name = _PRIMES.get(symbol) or (words[0] if words and len(words) == 1 else None)
        if name is None:
            return None
        amounts.append(match["amount"])
        units.append(name)
        at = match.end()
    if units == ["minute", "second"] and "'" in text:
        units = ["foot", "inch"]
    if len(units) < 2 or not any(_is_descending(units, family) for family in _UNIT_FAMILIES):
        return None
    return " ".join(f"{amount} {unit}" for amount, unit in zip(amounts, units, strict=True))


def drop_integer_condition(text: str) -> str:
    """Drop `k \\in \\mathbb{Z}` behind a formula in `k` that does not state values of `k`."""
    match = _INTEGER_CONDITION.search(text)
    if match is None:
        return text
    formula, name = text[: match.start()].rstrip(" ,"), match["name"] or match["index"]
    states_values = re.match(
        rf"{name}\s*=|[^=]*(?:[<>]|\\(?:le|ge|neq|in|equiv)(?![A-Za-z]))", formula
    )
    is_used = re.search(rf"(?<![A-Za-z\\]){name}(?![A-Za-z])", formula)
    return formula if is_used and not states_values else text


def _is_descending(units: list[str], family: tuple[str, ...]) -> bool:
    if not set(units) <= set(family):
        return False
    positions = [family.index(unit) for unit in units]
    return positions == sorted(set(positions))


def normalise_reversed_brackets(text: str) -> str:
    """Write `]0,1[` as `(0,1)` and `[0,1[` as `[0,1)`, also in unions and behind `\\in`."""
    if "]" not in text and "[" not in text:
        return text
    head, membership, sets = text.rpartition("\\in ")
    parts = re.split(r"(\\cup)", sets)
    if not all(_REVERSED_BRACKETS.fullmatch(p) or re.fullmatch(r"[^\[\]]*", p) for p in parts):
        return text
    return head + membership + "".join(map(_normalise_brackets, parts))


def _normalise_brackets(part: str) -> str:
    match = _REVERSED_BRACKETS.fullmatch(part)
    if match is None:
        return part
    return f"{'[' if match[1] == '[' else '('}{match[2]}{']' if match[3] == ']' else ')'}"
