r"""Parse one formula with latex2sympy, and say exactly whether two are equal.

latex2sympy reads `2(3)` as a mixed number and skips what it does not know, so the text is guarded
first: a command outside the list below, a stray sign or two numbers side by side is no formula.
Decimals are exact fractions. Nothing here evaluates text as Python.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import math_verify
import sympy
from latex2sympy2_extended import latex2sympy
from math_verify.grader import should_treat_as_complex
from sympy.core.evalf import PrecisionExhausted
from sympy.core.function import AppliedUndef

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
_PLAIN = re.compile(r"[A-Za-z0-9\\{}()\[\]^_+\-*/.,!|&: °]*")
_INDEXED = re.compile(r"(?<=\\sum)\s*_\{[a-z] ?=|(?<=\\prod)\s*_\{[a-z] ?=")
_TWO_NUMBERS = re.compile(
    r"^\s*[-+]\s*[-+]|(?:^|[\s+\-=(,])\{[0-9.]+\}\s*[0-9{]|[0-9.]\s+[0-9]|[0-9]\s*\{|\.[0-9]*\.|(?<![0-9])\.(?![0-9])|[-+]\s*$|[-+*/]\s*[)}\]*/^]|!\s*!"
    r"|\(\s*\)|\^\{[^{}]*\}\s*\^|^\s*[*/^_]|[0-9A-Za-z)}]\s*_\s*\{\s*\}|\\infty\s*[\^!]|\\frac\{[^{}]*\}\{[^{}]*\}\s*[0-9]|[0-9)]\s*(?:\^\s*\{[^{}]*\}\s*)?_"
)
_EMPTY_BRACES = re.compile(r"(?<!\\)\{\s*\}")
_NEXT_TO_NUMBER = re.compile(
    r"(?<=[0-9.])\s*(?=[(\[]|\\(?:binom|begin|lfloor|lceil|gcd|lcm|max|min|det|choose|sum|prod)(?![A-Za-z]))"
)
_BEFORE_FRACTION = re.compile(r"(?<=[)}\]!])\s*(?=\\(?:frac|binom)\{|[0-9(])")
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_POWER_OF_FUNCTION = re.compile(
    r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc|log|ln|exp)h?(?:_\{[^{}]*\})?\s*\^\s*$"
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
_ROUNDED_PLACES = 6
_POINTS = (
    (
        sympy.Rational(17, 13),
        sympy.Rational(-19, 29),
        sympy.Rational(41, 17),
        sympy.Rational(-7, 5),
    ),
    (
        sympy.Rational(-23, 19),
        sympy.Rational(31, 37),
        sympy.Rational(-5, 11),
        sympy.Rational(43, 31),
    ),
    (
        sympy.Rational(29, 53),
        sympy.Rational(37, 23),
        sympy.Rational(59, 47),
        sympy.Rational(11, 61),
    ),
    (
        sympy.Rational(71, 19),
        sympy.Rational(83, 29),
        sympy.Rational(67, 13),
        sympy.Rational(97, 31),
    ),
)
# Beyond the constants that answers hold, where a piece such as |x - 2024| is another one.
_FAR_POINTS = tuple(
    tuple(sign * sympy.Rational(size, 7) for size in (100_003, 200_003, 300_007, 400_009))
    for sign in (1, -1)
)
_PIECEWISE = (sympy.Abs, sympy.Max, sympy.Min, sympy.floor, sympy.ceiling, sympy.Piecewise)
_FACTORIALS = (sympy.factorial, sympy.binomial, sympy.gamma)
_DIGITS = 30
_SURELY_APART = sympy.Float("1e-20")
_NEARLY_ZERO = sympy.Float("1e-25")


@dataclass(frozen=True, slots=True)
class Literal:
    """A number that the text spells out; `places` = decimals behind its point, 0 = none."""

    value: Fraction
    places: int


@lru_cache(maxsize=1024)
def literal(text: str) -> Literal | None:
    """Read a decimal, fraction, mixed number, power of ten or repeating decimal; else None."""
    match = _LITERAL.fullmatch(text)
    if match is None or len(text) > _MAX_DIGITS:
        return None
    try:
        size, places = _size(match)
    except (ValueError, ZeroDivisionError):
        return None
    negative = (match["sign"] == "-") != bool(match["minus"])
    return Literal(-size if negative else size, places)


def _size(match: re.Match[str]) -> tuple[Fraction, int]:
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
        return _repeating(match["head"], match["period"]), 0
    return _continued(match["start"]), 0


def _repeating(head: str, period: str) -> Fraction:
    scale = 10 ** len(head.partition(".")[2])
    return Fraction(f"0{head}0") + Fraction(int(period), scale * (10 ** len(period) - 1))


def _continued(start: str) -> Fraction:
    """`0.1666...`: the shortest period that fills most of the end, and stands there twice."""
    whole, _, digits = start.partition(".")
    best = (0, 0)
    for length in range(1, len(digits) // 2 + 1):
        period, times = digits[-length:], 0
        while digits[: len(digits) - length * times].endswith(period):
            times += 1
        if times > 1 and length * times > best[0]:
            best = (length * times, length)
    filled, length = best
    if not filled:
        raise ValueError(start)
    return _repeating(f"{whole}.{digits[: len(digits) - filled]}", digits[-length:])


@lru_cache(maxsize=512)
def parse(text: str) -> Any | None:
    """The formula as an evaluated sympy object; None when it is none."""
    number = literal(text)
    if number is not None:
        return sympy.Rational(number.value.numerator, number.value.denominator)
    guarded = _guarded(text)
    if guarded is None:
        return None
    try:
        parsed = latex2sympy(
            guarded,
            is_real=not should_treat_as_complex(guarded),
            convert_degrees=False,
            normalization_config=None,
        )
    except MemoryError:
        raise
    except Exception:
        return None
    if not isinstance(parsed, sympy.Basic | sympy.MatrixBase):
        return None
    return _evaluated(parsed)


def _guarded(text: str) -> str | None:
    """The text as latex2sympy reads it as it is meant; None when it would not."""
    indexed = _INDEXED.sub("", text) if "=" in text else text
    if not _PLAIN.fullmatch(indexed) or not text.strip():
        return None
    matrix = "\\begin" in text
    for command in _COMMAND.findall(text):
        if command not in _COMMANDS and not (matrix and command == "\\"):
            return None
    if _TWO_NUMBERS.search(text) or _EMPTY_BRACES.search(text):
        return None
    if "°" in text:
        if not _TRIGONOMETRY.search(text):
            return None
        text = _DEGREES.sub(r"{(\\frac{\1 \\cdot \\pi}{180})}", text)
        if "°" in text:
            return None
    text = _CHOOSE.sub(r"\\binom{\1}{\2}", text)
    text = _NEXT_TO_NUMBER.sub(r"\\cdot ", text)
    text = _BEFORE_FRACTION.sub(_times, text)
    return _MATRIX_END.sub("", text)


def _times(match: re.Match[str]) -> str:
    """A product's sign, unless the brace closes a command's argument or an index."""
    before = match.string[: match.start()]
    if before.endswith("}"):
        depth = 0
        for place in range(len(before) - 1, -1, -1):
            depth += (before[place] == "}") - (before[place] == "{")
            if depth == 0:
                head = before[:place]
                if re.search(
                    r"(?:\\(?:frac|binom|begin|end|text|operatorname|log)|_|\])\s*$", head
                ):
                    return match[0]
                if _POWER_OF_FUNCTION.search(head):
                    return match[0]
                break
    if before.endswith("]") and "\\sqrt[" in before:
        return match[0]
    return "\\cdot "


def _evaluated(parsed: Any) -> Any:
    """With decimals as fractions, `i` as the imaginary unit, and evaluated where that works."""
    try:
        floats = {f: sympy.Rational(str(f)) for f in parsed.atoms(sympy.Float)}
        imaginary = {s: sympy.I for s in parsed.free_symbols if s.name == "i"}
        parsed = parsed.xreplace({**floats, **imaginary}) if floats or imaginary else parsed
        parsed = parsed.doit()
        if parsed.has(sympy.log):
            parsed = parsed.replace(
                lambda part: isinstance(part, sympy.log) and len(part.args) == 2,
                lambda part: sympy.log(part.args[0]) / sympy.log(part.args[1]),
            )
    except MemoryError:
        raise
    except Exception:
        return parsed
    return parsed


def same_formula(gold: str, answer: str) -> bool:
    """Whether two formulas are equal; a gold of six decimals and more stands for a rounded one."""
    if _squeezed(gold) == _squeezed(answer):
        return True
    left, right = literal(gold), literal(answer)
    if left and right:
        return left.value == right.value or _rounds(left, right.value)
    one, other = parse(gold), parse(answer)
    if one is None or other is None:
        return False
    if left and _may_be_rounded(left):
        return _is_rounded(left, other)
    return equal(one, other)


def _squeezed(text: str) -> str:
    return re.sub(r"\s+(?![A-Za-z0-9])|(?<![A-Za-z0-9])\s+", "", text)


def _rounds(gold: Literal, value: Fraction) -> bool:
    half = Fraction(1, 2 * 10**gold.places)
    return _may_be_rounded(gold) and abs(gold.value - value) <= half


def _may_be_rounded(gold: Literal) -> bool:
    """Whether it has six decimals or more, and as many digits behind its leading zeros."""
    digits = abs(gold.value) * 10**gold.places
    return gold.places >= _ROUNDED_PLACES and digits >= 10 ** (_ROUNDED_PLACES - 1)


def _is_rounded(gold: Literal, answer: Any) -> bool:
    try:
        value = answer.evalf(gold.places + _DIGITS)
        return bool(value.is_Float or value.is_Integer) and _rounds(gold, Fraction(str(value)))
    except MemoryError:
        raise
    except Exception:
        return False


def equal(one: Any, other: Any) -> bool:
    """Whether two evaluated sympy objects are equal."""
    if isinstance(one, sympy.MatrixBase) or isinstance(other, sympy.MatrixBase):
        if not (isinstance(one, sympy.MatrixBase) and isinstance(other, sympy.MatrixBase)):
            return False
        return one.shape == other.shape and all(map(equal, one.flat(), other.flat()))
    if one == other:
        return not one.has(sympy.nan, sympy.zoo)
    if not (isinstance(one, sympy.Expr) and isinstance(other, sympy.Expr)):
        return _by_engine(one, other)
    if one.is_Rational and other.is_Rational:
        return False
    if one.has(sympy.oo, -sympy.oo, sympy.nan, sympy.zoo) or other.has(
        sympy.oo, -sympy.oo, sympy.nan, sympy.zoo
    ):
        return False
    if one.atoms(AppliedUndef) or other.atoms(AppliedUndef):
        return _by_engine(one, other)
    if one.has(*_FACTORIALS) and other.has(*_FACTORIALS) and sympy.combsimp(one / other) == 1:
        return True
    symbols = sorted(one.free_symbols | other.free_symbols, key=str)
    decided = _same_constant(one, other) if not symbols else _same_at_points(one, other, symbols)
    return _by_engine(one, other) if decided is None else decided


def _same_at_points(one: Any, other: Any, symbols: list[Any]) -> bool | None:
    """Compare at fixed points of both signs; None where too few of them have real values."""
    real = 0
    for point in (*_POINTS, *(_FAR_POINTS if _has_pieces(one - other) else ())):
        values = {s: point[at % 4] + at // 4 for at, s in enumerate(symbols)}
        try:
            left, right = one.subs(values).doit(), other.subs(values).doit()
            if not (_is_real(left) and _is_real(right)) and not one.has(sympy.I):
                continue
            same = _same_constant(left, right)
        except MemoryError:
            raise
        except Exception:
            return None
        if same is None:
            continue
        if not same:
            return False
        real += 1
    return True if real > 1 else None


def _has_pieces(difference: Any) -> bool:
    """Whether it may be another formula far from zero, as `|x - 5|` is."""
    powers = difference.atoms(sympy.Pow)
    if any(power.exp.free_symbols for power in powers):
        return False
    roots = any(power.exp.is_Rational and power.exp.q % 2 == 0 for power in powers)
    return bool(roots or difference.has(*_PIECEWISE))


def _is_real(value: Any) -> bool:
    number = value.evalf(_DIGITS)
    return bool(number.is_Number and number.is_finite)


def _same_constant(one: Any, other: Any) -> bool | None:
    """Whether two constants are equal, to hundreds of digits where no algebra decides it."""
    try:
        difference = one - other
        if difference.is_Rational:
            return bool(difference == 0)
        left, right = complex_digits(one), complex_digits(other)
        if left is None or right is None:
            return None
        scale = max(abs(left), abs(right))
        # What is nearly zero may be a zero that was not simplified.
        if scale > _NEARLY_ZERO and abs(left - right) > scale * _SURELY_APART:
            return False
        parts = difference.as_real_imag() if difference.has(sympy.I) else (difference,)
        return all(map(_vanishes, parts))
    except MemoryError:
        raise
    except Exception:
        return None


def complex_digits(value: Any) -> Any | None:
    """The constant to some thirty digits; None when it has no such value."""
    number = value.evalf(_DIGITS)
    parts = number.as_real_imag()
    return number if all(part.is_Number and part.is_finite for part in parts) else None


def _vanishes(value: Any) -> bool:
    if value.is_Rational:
        return bool(value == 0)
    try:
        return bool(value.evalf(5, maxn=2_000, strict=True) == 0)
    except PrecisionExhausted:
        return True


def _by_engine(one: Any, other: Any) -> bool:
    return bool(math_verify.verify([one], [other], timeout_seconds=None))
