r"""Read a final number as GSM8K (https://arxiv.org/abs/2110.14168) and its like write them.

`18`, `1,234`, `-$12.50`, `3/4`, `1\frac{1}{2}`, `5\text{ cm}`, `18 dollars`, `1.2 million`: a
decimal, fraction or mixed number, a currency before it or a unit behind it. No arithmetic, power
or exponent, so no answer is costly. Numbers are exact: 0.333 is not 1/3.

A percent sign is a unit like any other. GSM8K asks "what percentage" and writes 40, so 40% equals
40; it does not equal 0.4. A scale word is a part of the number: 12 million does not equal 12.

Units are compared by their words, singular and the commonest short forms alike; nothing is
converted, so 1 m is not 100 cm.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from reasoning_lab.verify.plain_text import plain

_SIGNS = "$€£¥₹₩₽₱¢"
_INTEGER = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.[0-9]*)?|\.[0-9]+)"
_NUMBER = re.compile(
    rf"""
    (?P<sign>[-+]?)\ ?
    (?:(?P<currency>(?:US|AU|CA)?\$|[{_SIGNS}]|Rs\.?|USD|EUR|GBP|INR)\ ?(?P<inner_sign>[-+]?)\ ?)?
    (?:
        (?:(?P<whole>{_INTEGER})\ (?P<part>{_INTEGER})|(?P<top>{_DECIMAL}))
        \ ?/\ ?(?P<bottom>{_DECIMAL})
        |(?P<decimal>{_DECIMAL})
    )
    \ ?(?P<unit>(?:/?[^\W\d_]|[%°{_SIGNS}])(?:[^\W\d_]|[\ .'%°{_SIGNS}]|[-/](?=[^\W\d_])|\^[23])*)?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_ATOM = r"\s*(?:\{\s*(-?[0-9.,]+)\s*\}|([0-9]))"
_FRACTION = re.compile(rf"\\[cdt]?frac(?![A-Za-z]){_ATOM}{_ATOM}")
_DEGREE = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))")
_ASCII = str.maketrans({"−": "-", "–": "-", "²": "^2", "³": "^3"})
_WORD = re.compile(rf"[^\W\d_]+(?:\^[23])?|[%°{_SIGNS}]")
_PLURAL = re.compile(r"(?<=[a-z]{2})(?:(?<=x)e|(?<=[cs]h)e|(?<=ss)e)?(?<!s)s$")
_MAX_UNIT_WORDS = 8
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9}
_SCALES["trillion"] = 10**12
# Behind a number these go on with the arithmetic or name a second number.
_NO_UNIT = frozenset({
    "and", "or", "to", "plus", "minus", "times", "over", "not", "half", "third", "quarter",
    "sqrt", "pi", "π", "e", "i", "k", "n", "x", "y", "z",
})  # fmt: skip
_SHORT_FORMS = {
    "$": "dollar", "us$": "dollar", "usd": "dollar", "€": "euro", "eur": "euro",
    "£": "pound", "gbp": "pound", "lb": "pound", "¢": "cent", "₹": "rupee", "rs": "rupee",
    "inr": "rupee", "¥": "yen", "%": "percent", "percentage": "percent", "°": "degree",
    "cm": "centimeter", "mm": "millimeter", "m": "meter", "km": "kilometer", "metre": "meter",
    "in": "inch", "ft": "foot", "feet": "foot", "mi": "mile", "g": "gram", "kg": "kilogram",
    "l": "liter", "litre": "liter", "ml": "milliliter", "oz": "ounce", "s": "second",
    "sec": "second", "min": "minute", "h": "hour", "hr": "hour",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with its unit.

    Attributes:
        value: The exact number, a scale word multiplied in.
        unit: Normalized words, e.g. `dollar per hour`; empty = none was named.
    """

    value: Fraction
    unit: str

    def matches(self, other: "Quantity") -> bool:
        """Whether the numbers are equal, and the units too where both name one."""
        same_unit = self.unit == other.unit or not self.unit or not other.unit
        return same_unit and self.value == other.value


def read_number(text: str) -> Quantity | None:
    """Read the whole of `text` as one quantity; None when it is no such thing."""
    text = _FRACTION.sub(r" \1\2/\3\4 ", text.translate(_ASCII))
    text = plain(_DEGREE.sub("°", text))
    match = _NUMBER.fullmatch(text.removesuffix("."))
    if match is None or (match["sign"] and match["inner_sign"]):
        return None
    unit = (match["unit"] or "").casefold().replace("/", " per ")
    words = [_singular(word) for word in _WORD.findall(unit)]
    if len(words) > _MAX_UNIT_WORDS or not _NO_UNIT.isdisjoint(words):
        return None
    try:
        value = _value(match)
    except (ValueError, ZeroDivisionError):
        # A division by zero, or more digits than Python converts.
        return None
    while words and words[0] in _SCALES:
        value *= _SCALES[words.pop(0)]
    currency = _singular((match["currency"] or "").casefold().strip("."))
    if currency and currency not in words:
        words.insert(0, currency)
    return Quantity(value, " ".join(words))


def _value(match: re.Match[str]) -> Fraction:
    if match["decimal"]:
        size = _fraction(match["decimal"])
    else:
        size = _fraction(match["part"] or match["top"]) / _fraction(match["bottom"])
        size += _fraction(match["whole"] or "0")
    return -size if "-" in (match["sign"], match["inner_sign"]) else size


def _fraction(decimal: str) -> Fraction:
    return Fraction(decimal.replace(",", "").removesuffix("."))


def _singular(word: str) -> str:
    short = _PLURAL.sub("", word)
    return _SHORT_FORMS.get(short, short)
