r"""Parse one formula with latex2sympy.

latex2sympy reads `2(3)` as a mixed number and skips what it does not know. So a guard checks the
text first: an unknown command, a stray sign or two numbers side by side make it unparseable.
Decimals become exact fractions. Nothing here evaluates text as Python.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import sympy
from latex2sympy2_extended import latex2sympy
from math_verify.grader import should_treat_as_complex

_COMMAND_NAMES = (
    "frac sqrt binom choose cdot times div log ln exp sin cos tan csc sec cot arcsin arccos arctan"
    " arccsc arcsec arccot sinh cosh tanh arsinh arcosh artanh arcsinh arccosh arctanh sum prod"
    " int lim infty to pi alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota"
    " kappa lambda mu nu xi rho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta"
    " Lambda Xi Pi Sigma Upsilon Phi Psi Omega overline bar vec hat tilde lfloor rfloor lceil"
    " rceil mathbb max min gcd lcm det begin end text operatorname partial ell angle triangle"
    " |"
)
_COMMANDS = frozenset(_COMMAND_NAMES.split())
_COMMAND = re.compile(r"\\([A-Za-z]+|.)")
_ALLOWED_CHARACTERS = re.compile(r"[A-Za-z0-9\\{}()\[\]^_+\-*/.,!|&: °]*")
_INDEXED = re.compile(r"(?<=\\sum)\s*_\{[a-z] ?=|(?<=\\prod)\s*_\{[a-z] ?=")
_UNREADABLE = re.compile(
    r"^\s*[-+]\s*[-+]|(?:^|[\s+\-=(,])\{[0-9.]+\}\s*[0-9{]|[0-9.]\s+[0-9]|[0-9]\s*\{|\.[0-9]*\.|(?<![0-9])\.(?![0-9])|[-+]\s*$|[-+*/]\s*[)}\]*/^]|!\s*!"
    r"|\(\s*\)|\^\{[^{}]*\}\s*\^|^\s*[*/^_]|[0-9A-Za-z)}]\s*_\s*\{\s*\}|\\infty\s*[\^!]|\\frac\{[^{}]*\}\{[^{}]*\}\s*[0-9]|[0-9)]\s*(?:\^\s*\{[^{}]*\}\s*)?_"
)
_EMPTY_BRACES = re.compile(r"(?<!\\)\{\s*\}")
_NEXT_TO_NUMBER = re.compile(
    r"(?<=[0-9.])\s*(?=[(\[]|\\(?:binom|begin|lfloor|lceil|gcd|lcm|max|min|det|choose|sum|prod)(?![A-Za-z]))"
)
_BEFORE_FRACTION = re.compile(r"(?<=[)}\]!])\s*(?=\\(?:frac|binom)\{|[0-9(])")
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_BEFORE_ARGUMENT = re.compile(
    r"(?:\\(?:frac|binom|begin|end|text|operatorname|log)|_|\]"
    r"|\\(?:arc)?(?:sin|cos|tan|cot|sec|csc|log|ln|exp)h?(?:_\{[^{}]*\})?\s*\^)\s*$"
)
_CHOOSE = re.compile(r"([0-9]+|[A-Za-z])\s*\\choose\s*([0-9]+|[A-Za-z])")
_DEGREES = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)\s*°")
_MATRIX_END = re.compile(r"(?:\\\\\s*)+(?=\\end)")

_DECIMAL = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_LITERAL = re.compile(
    rf"""(?P<sign>[-+]?)\s*(?:
    (?P<decimal>{_DECIMAL})(?:\s*\\(?:cdot|times)\s*10\s*\^\s*(?:\{{\s*(?P<power>[-+]?[0-9]+)\s*\}}|(?P<digit>[0-9])))?
    |(?:(?P<whole>[0-9]+)\s*)?\\frac\{{\s*(?P<minus>-?)\s*(?P<top>[0-9]+(?:\.[0-9]+)?)\s*\}}\{{\s*(?P<bottom>[0-9]+(?:\.[0-9]+)?)\s*\}}
    |(?:(?P<units>[0-9]+)\s+)?(?P<over>{_DECIMAL})\s*/\s*(?P<under>{_DECIMAL})
    |(?P<head>[0-9]*\.[0-9]*)(?:\\(?:overline|bar|dot)\{{|\()(?P<period>[0-9]+)[)}}]
    |(?P<start>[0-9]*\.[0-9]+)\s*(?:\.\.\.|\\ldots)
    )""",
    re.VERBOSE,
)
_MAX_POWER = 3_000
_MAX_DIGITS = 1_000


class SuppressSympyErrors:
    """Suppresses every error but MemoryError: sympy fails in many ways, by recursion above all."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> bool:
        if kind is None or issubclass(kind, MemoryError):
            return False
        return issubclass(kind, Exception)


@dataclass(frozen=True, slots=True)
class Literal:
    """A number that is written out; `places` = digits behind its decimal point, 0 = no point."""

    value: Fraction
    places: int


@lru_cache(maxsize=1024)
def parse_literal(text: str) -> Literal | None:
    """Parse a decimal, fraction, mixed number, power of ten or repeating decimal; else None."""
    match = _LITERAL.fullmatch(text)
    if match is None or len(text) > _MAX_DIGITS:
        return None
    try:
        magnitude, places = _magnitude(match)
    except (ValueError, ZeroDivisionError):
        return None
    negative = (match["sign"] == "-") != bool(match["minus"])
    return Literal(-magnitude if negative else magnitude, places)


def _magnitude(match: re.Match[str]) -> tuple[Fraction, int]:
    """Return the value without its sign, and the digits behind its decimal point."""
    if match["decimal"]:
        decimal = Fraction(match["decimal"].rstrip(".") or "x")
        places = len(match["decimal"].partition(".")[2])
        power = int(match["power"] or match["digit"] or 0)
        if abs(power) > _MAX_POWER:
            raise ValueError(power)
        return decimal * Fraction(10) ** power, max(0, places - power) if places else 0
    if match["top"]:
        if match["minus"] and match["whole"]:
            raise ValueError(match[0])
        return Fraction(match["whole"] or 0) + Fraction(match["top"]) / Fraction(match["bottom"]), 0
    if match["over"]:
        units, over, under = match["units"] or "0", match["over"], match["under"]
        return Fraction(units) + Fraction(over.rstrip(".")) / Fraction(under.rstrip(".")), 0
    if match["period"]:
        return _value_of_period(match["head"], match["period"]), 0
    return _value_of_ellipsis(match["start"]), 0


def _value_of_period(head: str, period: str) -> Fraction:
    scale = 10 ** len(head.partition(".")[2])
    return Fraction(f"0{head}0") + Fraction(int(period), scale * (10 ** len(period) - 1))


def _value_of_ellipsis(start: str) -> Fraction:
    """Return the value of `0.1666...`, whose period covers most of the digits, at least twice."""
    whole, _, digits = start.partition(".")
    covered = period_length = 0
    for length in range(1, len(digits) // 2 + 1):
        period, times = digits[-length:], 0
        while digits[: len(digits) - length * times].endswith(period):
            times += 1
        if times > 1 and length * times > covered:
            covered, period_length = length * times, length
    if not covered:
        raise ValueError(start)
    return _value_of_period(f"{whole}.{digits[: len(digits) - covered]}", digits[-period_length:])


@lru_cache(maxsize=512)
def parse_formula(text: str) -> Any | None:
    """Parse a formula to an evaluated sympy object; None when it is no formula."""
    number = parse_literal(text)
    if number is not None:
        return sympy.Rational(number.value.numerator, number.value.denominator)
    prepared = _prepare_for_latex2sympy(text)
    if prepared is None:
        return None
    with SuppressSympyErrors():
        parsed = latex2sympy(
            prepared,
            is_real=not should_treat_as_complex(prepared),
            convert_degrees=False,
            normalization_config=None,
        )
        if isinstance(parsed, sympy.Basic | sympy.MatrixBase):
            return _evaluate(parsed)
    return None


def _prepare_for_latex2sympy(text: str) -> str | None:
    """Return the text so that latex2sympy parses it as it is meant; None when it cannot."""
    indexed = _INDEXED.sub("", text) if "=" in text else text
    if not _ALLOWED_CHARACTERS.fullmatch(indexed) or not text.strip():
        return None
    matrix = "\\begin" in text
    for command in _COMMAND.findall(text):
        if command not in _COMMANDS and not (matrix and command == "\\"):
            return None
    if _UNREADABLE.search(text) or _EMPTY_BRACES.search(text):
        return None
    if "°" in text:
        if not _TRIGONOMETRY.search(text):
            return None
        text = _DEGREES.sub(r"{(\\frac{\1 \\cdot \\pi}{180})}", text)
        if "°" in text:
            return None
    text = _CHOOSE.sub(r"\\binom{\1}{\2}", text)
    text = _NEXT_TO_NUMBER.sub(r"\\cdot ", text)
    text = _BEFORE_FRACTION.sub(_product_sign, text)
    return _MATRIX_END.sub("", text)


def _product_sign(match: re.Match[str]) -> str:
    """Return a product's sign, unless the brace closes a command's argument or an index."""
    before = match.string[: match.start()]
    if before.endswith("}"):
        depth = 0
        for place in range(len(before) - 1, -1, -1):
            depth += (before[place] == "}") - (before[place] == "{")
            if depth == 0:
                if _BEFORE_ARGUMENT.search(before[:place]):
                    return match[0]
                break
    is_index_of_root = before.endswith("]") and "\\sqrt[" in before
    return match[0] if is_index_of_root else "\\cdot "


def _evaluate(parsed: Any) -> Any:
    """Make decimals fractions and `i` the imaginary unit, and evaluate where sympy can."""
    with SuppressSympyErrors():
        floats = {f: sympy.Rational(str(f)) for f in parsed.atoms(sympy.Float)}
        imaginary = {s: sympy.I for s in parsed.free_symbols if s.name == "i"}
        parsed = parsed.xreplace({**floats, **imaginary}) if floats or imaginary else parsed
        parsed = parsed.doit()
        if parsed.has(sympy.log):
            parsed = parsed.replace(
                lambda part: isinstance(part, sympy.log) and len(part.args) == 2,
                lambda part: sympy.log(part.args[0]) / sympy.log(part.args[1]),
            )
    return parsed
