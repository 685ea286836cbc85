r"""Normalise the names of units; no unit is converted into another.

`cm`, `centimeters` and `\text{ cm}` are one unit, `square cm` and `cm^2` are one, `km/h` and
`km per hour` are one; `km` and `m` are two.
"""

import re
from itertools import pairwise

CURRENCY_SIGNS = "$€£¥₹₩₽₱¢"
SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9}
SCALES["trillion"] = 10**12
_MAX_WORDS = 8
# Behind a number these words continue the arithmetic, negate or bound it, or name a number.
_NOT_UNITS = frozenset({
    "and", "or", "to", "plus", "minus", "times", "over", "not", "half", "third", "quarter",
    "sqrt", "pi", "π", "e", "i", "k", "n", "x", "y", "z", "mod", "modulo", "if", "but", "than",
    "least", "most", "is", "isn", "wrong", "false", "factorial", "squared", "cubed", "choose",
    "log", "sin", "cos", "tan", "base", "never", "nor", "neither", "except", "either", "tenth",
    "hundredth", "thousandth", "dozen",
})  # fmt: skip
_WORD = re.compile(rf"[^\W\d_]+(?:\^[23])?|[%°{CURRENCY_SIGNS}]")
# Small letters of the same name are variables.
_SYMBOLS = {"N": "newton", "K": "kelvin"}
_SYMBOL = re.compile(r"(?<![^\W_])[NK](?![^\W_])")
_PLURAL = re.compile(r"(?<=[a-z]{2})(?:(?<=x)e|(?<=[cs]h)e|(?<=ss)e)?(?<!s)s$")
_SHORT_FORMS = {
    "$": "dollar", "us$": "dollar", "usd": "dollar", "€": "euro", "eur": "euro",
    "£": "pound", "gbp": "pound", "lb": "pound", "¢": "cent", "₹": "rupee", "rs": "rupee",
    "inr": "rupee", "¥": "yen", "%": "percent", "percentage": "percent", "pct": "percent",
    "°": "degree", "deg": "degree",
    "cm": "centimeter", "mm": "millimeter", "m": "meter", "km": "kilometer", "metre": "meter",
    "centimetre": "centimeter", "millimetre": "millimeter", "kilometre": "kilometer",
    "dm": "decimeter", "in": "inch", "ft": "foot", "feet": "foot", "mi": "mile", "yd": "yard",
    "g": "gram", "kg": "kilogram", "mg": "milligram",
    "l": "liter", "litre": "liter", "ml": "milliliter", "gal": "gallon", "oz": "ounce",
    "s": "second", "sec": "second", "min": "minute", "h": "hour", "hr": "hour", "yr": "year",
    "sq": "square", "cu": "cubic", "j": "joule", "n": "newton", "rad": "radian", "people": "person",
}  # fmt: skip
_COMPOUND = {name: ["kilometer", "per", "hour"] for name in ("kmh", "kph", "kmph")}
_COMPOUND["mph"] = ["mile", "per", "hour"]
_POWERS = {"square": "^2", "cubic": "^3"}
# Short names that need neither a `\text` around them nor a space before them.
_KNOWN_SHORT = (
    "cm|mm|km|dm|kg|mg|ml|mL|ft|in|mi|yd|lbs?|oz|hrs?|mins?|secs?|mph|kmh|kph|kmph|gal|pct|deg|rad"
    "|cc|sq|cu"
)

_LAST_WORD = re.compile(
    r"(?P<gap>\s*)(?P<token>\\text\{(?P<words>[^{}]*)\}(?:\^\{[23]\})?"
    r"|(?<![A-Za-z\\])(?P<run>[A-Za-z]+)(?:\^\{[23]\})?\.?|°\s?[CF]?|\\?%|/|[€£¥₹¢]|\\\$)\s*$"
)
_UNIT_TEXT = re.compile(r"[A-Za-z .'/\-%^23]*")
_NUMBER = re.compile(
    r"[-+]?\s*(?:[0-9][0-9,]*(?:\.[0-9]*)?|\.[0-9]+)|[-+]?\\frac\{-?[0-9]+\}\{[0-9]+\}"
)
_SHORT_UNIT = "(?:m|s|g|h|L|l|N|J|km|kg|cm|mm|ft|mi|yd|in|lb|min|hr|sec|mol)(?:\\^\\{[23]\\})?"
_BARE_UNIT = re.compile(
    rf"(?P<value>[-+]?[0-9.,]+|.*\}})\s+(?P<unit>{_SHORT_UNIT}\s*/\s*{_SHORT_UNIT}"
    rf"|(?:sq|cu|square|cubic)\.? {_SHORT_UNIT})"
)
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
_PRIMES = {"'": "minute", "''": "second", '"': "second"}
_ONE_LETTER_UNITS = frozenset("msghLNJ")
_VARIABLE_NAMES = re.compile(r"[a-df-hj-np-tv-z]{2,3}|[A-Za-z]")


def _normalise_word(word: str) -> str:
    short = _PLURAL.sub("", word)
    return _SHORT_FORMS.get(word, _SHORT_FORMS.get(short, short))


def parse_unit(text: str) -> list[str] | None:
    """Return the normalised words of a unit in order; None when the text is no unit."""
    text = _SYMBOL.sub(lambda match: _SYMBOLS[match[0]], text)
    words = _WORD.findall(text.casefold().replace("/", " per ").replace("per cent", "percent"))
    repeats_word = any(word == following for word, following in pairwise(words))
    if len(words) > _MAX_WORDS or repeats_word or not _NOT_UNITS.isdisjoint(words):
        return None
    names: list[str] = []
    power = ""
    for word in words:
        base, caret, exponent = word.partition("^")
        name = _normalise_word(base)
        if name in _POWERS and not caret:
            power = _POWERS[name]
            continue
        names += _COMPOUND.get(name, [name + caret + exponent + power])
        power = ""
    return names + ([f"unit{power}"] if power else [])


def split_unit(text: str, gold: bool) -> tuple[str, str]:
    """Split a text into its value and its unit, which is empty when there is none."""
    match = _BARE_UNIT.fullmatch(text)
    if match:
        return match["value"], match["unit"].replace("{", "").replace("}", "").replace(" /", "/")
    unit = ""
    while True:
        tail = _LAST_WORD.search(text)
        if tail is None or tail.start() == 0 or not _is_unit(tail, text, gold, has_more=bool(unit)):
            break
        token = re.sub(r"\\text|[\\{}]", "", tail["token"])
        if tail["words"] is not None and "°" not in token:
            token = f" {token} "
        unit = f"{token} {unit}".replace("$", " $ ")
        text = text[: tail.start()].rstrip()
    unit = re.sub(r"\s*/\s*", "/", unit)
    return ("", "") if unit.startswith("/") and not unit[1:].strip() else (text, unit)


def _is_unit(tail: re.Match[str], text: str, gold: bool, has_more: bool) -> bool:
    """Return whether the last word is part of a unit, and no variable or prose."""
    before = text[: tail.start()]
    if tail["words"] is not None:
        return bool(_UNIT_TEXT.fullmatch(tail["words"])) and parse_unit(tail["words"]) is not None
    run = tail["run"]
    if run is None and "°" in tail["token"]:
        return not re.search(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])", before)
    if run is None:
        return tail["token"] != "/" or has_more
    if re.fullmatch(_KNOWN_SHORT, run):
        return True
    if before.endswith("/"):
        return bool(re.search(r"\\text\{[^{}]*\}(?:\^\{[23]\})?\s*/$|\$|[A-Za-z]{2,}\s*/$", before))
    if len(run) == 1 and not gold and tail["gap"] and run in _ONE_LETTER_UNITS:
        return bool(_NUMBER.fullmatch(before.strip()))
    if len(run) < 3 or _VARIABLE_NAMES.fullmatch(run) or not (tail["gap"] or before.endswith("°")):
        return run == "per" and bool(tail["gap"])
    return parse_unit(run) is not None


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
    are_descending = any(units == [u for u in family if u in units] for family in _UNIT_FAMILIES)
    if len(units) < 2 or not are_descending:
        return None
    return " ".join(f"{amount} {unit}" for amount, unit in zip(amounts, units, strict=True))
