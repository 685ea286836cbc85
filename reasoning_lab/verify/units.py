r"""Names of units, compared by their words: nothing is converted.

`cm`, `centimeters` and `\text{ cm}` are one unit, `square cm` and `cm^2` are one, `km/h` and
`km per hour` are one; `km` and `m` are two.
"""

import re
from itertools import pairwise

SIGNS = "$€£¥₹₩₽₱¢"
SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9}
SCALES["trillion"] = 10**12
MAX_WORDS = 8
# Behind a number these go on with the arithmetic, deny it, bound it or name a second number.
NO_UNIT = frozenset({
    "and", "or", "to", "plus", "minus", "times", "over", "not", "half", "third", "quarter",
    "sqrt", "pi", "π", "e", "i", "k", "n", "x", "y", "z", "mod", "modulo", "if", "but", "than",
    "least", "most", "is", "isn", "wrong", "false", "factorial", "squared", "cubed", "choose",
    "log", "sin", "cos", "tan", "base", "never", "nor", "neither", "except", "either", "tenth",
    "hundredth", "thousandth", "dozen",
})  # fmt: skip
_WORD = re.compile(rf"[^\W\d_]+(?:\^[23])?|[%°{SIGNS}]")
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
_COMPOUND = {
    "mph": ["mile", "per", "hour"],
    "kmh": ["kilometer", "per", "hour"],
    "kph": ["kilometer", "per", "hour"],
    "kmph": ["kilometer", "per", "hour"],
}
_POWERS = {"square": "^2", "cubic": "^3"}
# Short names that are read without a `\text` around them, even close to the number.
KNOWN_SHORT = (
    "cm|mm|km|dm|kg|mg|ml|mL|ft|in|mi|yd|lbs?|oz|hrs?|mins?|secs?|mph|kmh|kph|kmph|gal|pct|deg|rad"
    "|cc|sq|cu"
)


def singular(word: str) -> str:
    """The word as it is compared: the singular of its long form."""
    short = _PLURAL.sub("", word)
    return _SHORT_FORMS.get(word, _SHORT_FORMS.get(short, short))


def unit_words(text: str) -> list[str] | None:
    """The words of a unit in order; None when it is none, or too long for one."""
    text = _SYMBOL.sub(lambda match: _SYMBOLS[match[0]], text)
    words = _WORD.findall(text.casefold().replace("/", " per ").replace("per cent", "percent"))
    repeated = any(one == other for one, other in pairwise(words))
    if len(words) > MAX_WORDS or repeated or not NO_UNIT.isdisjoint(words):
        return None
    names: list[str] = []
    power = ""
    for word in words:
        base, caret, exponent = word.partition("^")
        name = singular(base)
        if name in _POWERS and not caret:
            power = _POWERS[name]
            continue
        names += _COMPOUND.get(name, [name + caret + exponent + power])
        power = ""
    return names + ([f"unit{power}"] if power else [])
