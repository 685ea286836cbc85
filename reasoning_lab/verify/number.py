r"""Parse a final number as GSM8K (https://arxiv.org/abs/2110.14168) and similar data write it.

`18`, `1,234`, `-$12.50`, `3/4`, `1\frac{1}{2}`, `5\text{ cm}`, `18 dollars`, `1.2 million`: a
decimal, fraction or mixed number, a currency before it or a unit behind it. No arithmetic, power
or exponent is parsed, so no answer is costly. Numbers are exact: 0.333 is not 1/3.

A percent sign is a unit like any other. GSM8K asks "what percentage" and writes 40, so 40% equals
40; it does not equal 0.4. A scale word is a part of the number: 12 million does not equal 12.

Units are compared by their words, singular and the commonest short forms alike; nothing is
converted, so 1 m is not 100 cm.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from reasoning_lab.verify.characters import normalise_characters, strip_latex
from reasoning_lab.verify.units import CURRENCY_SIGNS, SCALES, parse_unit

_INTEGER = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.[0-9]*)?|\.[0-9]+)"
_NUMBER = re.compile(
    rf"""
    (?P<sign>[-+]?)\ ?
    (?:(?P<currency>(?:US|AU|CA)?\$|[{CURRENCY_SIGNS}]|Rs\.?|USD|EUR|GBP|INR)
        \ ?(?P<inner_sign>[-+]?)\ ?
    )?
    (?:
        (?:(?P<whole>{_INTEGER})\ (?P<part>{_INTEGER})|(?P<top>{_DECIMAL}))
        \ ?/\ ?(?P<bottom>{_DECIMAL})
        |(?P<decimal>{_DECIMAL})
    )
    \ ?(?P<unit>
        (?:/?[^\W\d_]|[%°{CURRENCY_SIGNS}])
        (?:[^\W\d_]|[\ .'%°{CURRENCY_SIGNS}]|[-/](?=[^\W\d_])|\^[23])*
    )?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_ORDINARY = re.compile(
    r"(?P<dollar>\\?\$)?(?P<decimal>-?(?:[1-9][0-9]{0,2}(?:,[0-9]{3}){1,9}|[0-9]{1,30})(?:\.[0-9]{1,30})?)"
)
_ATOM = r"\s*(?:\{\s*(-?[0-9.,]+)\s*\}|([0-9]))"
_FRACTION = re.compile(rf"\\[cdt]?frac(?![A-Za-z]){_ATOM}{_ATOM}")
_DEGREE = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))")
_SPACED_THOUSANDS = re.compile(
    r"(?<![0-9.,/])(?<![0-9] )[0-9]{1,3}(?: [0-9]{3})+(?![0-9/,]| ?/ ?[0-9]| [0-9])"
)
_PER = re.compile(r"\s*/\s*(?=[^\W\d_])")
_APPROXIMATELY = re.compile(
    r"^\s*(?:\\(?:approx|simeq)(?![A-Za-z])|(?:\\text\s*\{\s*)?(?:about|approximately|approx\.?|around|roughly)(?![A-Za-z])\s*\}?)",
    re.IGNORECASE,
)
_SIDES = re.compile(r"=|\\(?:approx|simeq)(?![A-Za-z])")
_NOT_EQUAL = re.compile(r"[<>!:~/]\s*=|\\(?:neq?|not|leq?|geq?|sim)(?![A-Za-z])|[<>]")
_ARITHMETIC = re.compile(r"[0-9.]+|[-+*/()]")
_TIMES = re.compile(r"\\(?:times|cdot)(?![A-Za-z])")
_MAX_TOKENS = 60
_SUBSCRIPT = re.compile(r"_\s*(?:\{[^{}]*\}|\w)")
_VARIABLE = re.compile(r"(?<![A-Za-z\\])[abknpqtwxyz](?![A-Za-z])")


@dataclass(frozen=True, slots=True)
class NumberWithUnit:
    """An exact number, a scale word multiplied in, with its unit.

    Attributes:
        unit: Normalised words, e.g. `dollar per hour`; empty = no unit.
    """

    value: Fraction
    unit: str

    def matches(self, other: "NumberWithUnit") -> bool:
        """Return whether the numbers are equal, and also the units where both have one."""
        same_unit = self.unit == other.unit or not self.unit or not other.unit
        return same_unit and self.value == other.value


def parse_number_answer(text: str) -> NumberWithUnit | None:
    """Parse an answer: one number, or an equation or approximation that ends in one.

    An equation of numbers must hold, to the decimals of its last side: `3 = 7` is refused.
    """
    number = parse_number(text)
    if number is not None:
        return number
    text = normalise_characters(text)
    if _NOT_EQUAL.search(text):
        return None
    text = _APPROXIMATELY.sub("", text, count=1)
    *sides, last = _SIDES.split(text)
    answer = parse_number(last)
    if answer is None:
        return None
    for side in sides:
        without_index = _SUBSCRIPT.sub("", side)
        if _VARIABLE.search(without_index) and re.search("[0-9]", without_index):
            return None
        value = _evaluate(side)
        if value is None or value == answer.value:
            continue
        decimals = re.search(r"\.([0-9]+)", last)
        places = len(decimals[1]) if decimals else 0
        if abs(value - answer.value) * 2 > Fraction(1, 10**places):
            return None
        if places == 0 and "\\approx" not in text:
            return None
    return answer


def inline_fractions(text: str) -> str:
    r"""Return `text` with each `\frac` of two numbers as `3/4`."""
    return _FRACTION.sub(r" \1\2/\3\4 ", text)


def parse_number(text: str) -> NumberWithUnit | None:
    """Parse the whole of `text` as one number with its unit; None when it is not one."""
    ordinary = _ORDINARY.fullmatch(text)
    if ordinary:
        return NumberWithUnit(
            parse_decimal(ordinary["decimal"]), "dollar" if ordinary["dollar"] else ""
        )
    text = inline_fractions(normalise_characters(text))
    text = _PER.sub("/", strip_latex(_DEGREE.sub("°", text)))
    text = _SPACED_THOUSANDS.sub(lambda m: m[0].replace(" ", ""), text)
    match = _NUMBER.fullmatch(text.removesuffix("."))
    if match is None or (match["sign"] and match["inner_sign"]):
        return None
    words = parse_unit(match["unit"] or "")
    if words is None:
        return None
    try:
        value = _value_of_match(match)
    except (ValueError, ZeroDivisionError):
        # The number divides by zero, or has more digits than Python converts.
        return None
    while words and words[0] in SCALES:
        value *= SCALES[words.pop(0)]
    currency = parse_unit((match["currency"] or "").strip(".")) or []
    if currency and currency[0] not in words:
        words = currency + words
    return NumberWithUnit(value, " ".join(words))


def parse_decimal(decimal: str) -> Fraction:
    """Return the exact value of `-1,234.50`, several times faster than `Fraction(decimal)`."""
    whole, _, places = decimal.replace(",", "").partition(".")
    return Fraction(int(whole + places), 10 ** len(places)) if places else Fraction(int(whole))


def _evaluate(text: str) -> Fraction | None:
    """Return the value of a side: a number, or arithmetic with decimals; else None."""
    number = parse_number(text)
    if number is not None:
        return number.value
    text = _TIMES.sub("*", _FRACTION.sub(r"(\1\2/\3\4)", text))
    text = re.sub(r"\\div(?![A-Za-z])", "/", text)
    text = re.sub(r"(?<=[0-9]),(?=[0-9]{3})", "", strip_latex(text)).replace("$", "")
    tokens = _ARITHMETIC.findall(text)
    if "".join(tokens) != text.replace(" ", "") or len(tokens) > _MAX_TOKENS:
        return None
    try:
        value, rest = _sum(tokens)
    except (ValueError, ZeroDivisionError, IndexError):
        return None
    return None if rest else value


def _sum(tokens: list[str]) -> tuple[Fraction, list[str]]:
    value, tokens = _product(tokens)
    while tokens and tokens[0] in "+-":
        term, rest = _product(tokens[1:])
        value = value + term if tokens[0] == "+" else value - term
        tokens = rest
    return value, tokens


def _product(tokens: list[str]) -> tuple[Fraction, list[str]]:
    value, tokens = _factor(tokens)
    while tokens and tokens[0] in "*/":
        factor, rest = _factor(tokens[1:])
        value = value * factor if tokens[0] == "*" else value / factor
        tokens = rest
    return value, tokens


def _factor(tokens: list[str]) -> tuple[Fraction, list[str]]:
    first, *rest = tokens
    if first == "-":
        value, rest = _factor(rest)
        return -value, rest
    if first == "(":
        value, rest = _sum(rest)
        if rest[0] != ")":
            raise ValueError(first)
        return value, rest[1:]
    return Fraction(first.removesuffix(".")), rest


def _value_of_match(match: re.Match[str]) -> Fraction:
    if match["decimal"]:
        magnitude = parse_decimal(match["decimal"])
    else:
        part, whole = match["part"] or match["top"], match["whole"] or "0"
        magnitude = parse_decimal(part) / parse_decimal(match["bottom"]) + parse_decimal(whole)
    return -magnitude if "-" in (match["sign"], match["inner_sign"]) else magnitude
