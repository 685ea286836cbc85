"""The form of an answer to each shipped family, as a regular expression.

An answer that does not match is unparseable, and reasoning-gym's scorer never sees it. The families
in `scorers` have their patterns there. All patterns take linear time and have bounded repeats.
"""

import re

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,12}|[0-9]{1,60})"
_DECIMAL = rf"(?:{_DIGITS}(?:\.[0-9]{{0,60}})?|\.[0-9]{{1,60}})"
_NUMBER = rf"[-+]?\s?\$?{_DECIMAL}(?:[eE][-+]?[0-9]{{1,3}})?"
_LATEX_FRACTION = r"\\[dt]?frac\s*\{\s*[0-9]{1,60}\s*\}\s*\{\s*[0-9]{1,60}\s*\}"
_FRACTION = rf"[-+]?(?:{_LATEX_FRACTION}|[0-9]{{1,60}}\s*/\s*[-+]?[0-9]{{1,60}})"
_NUMBER_OR_FRACTION = rf"\$?(?:{_FRACTION}|{_NUMBER})\$?"
_REAL_OR_IMAGINARY = (
    r"(?:[0-9]{1,60}(?:\.[0-9]{0,60})?(?:[eE][-+]?[0-9]{1,3})?\s*\*?\s*[ijIJ]?|[ijIJ])"
)
_COMPLEX = (
    rf"\(?\(?\s*[-+]?\s*{_REAL_OR_IMAGINARY}(?:\s*[-+]\s*[-+]?\s*{_REAL_OR_IMAGINARY})?\s*\)?\)?"
)
_WORD = r"[A-Za-z]{1,20}\.?"
# A unit may follow the number of a word problem, but no other number.
_UNIT = (
    rf"(?:\\[,;! ]|\s)*(?:\\?%|\\(?:text|mathrm)\{{[A-Za-z .]{{0,60}}\}}"
    rf"|{_WORD}(?: {_WORD}){{0,5}})"
)
_AMOUNT = rf"\(?(?:[A-Za-z]\s*=\s*)?[-+]?(?:\\?\$)?{_DECIMAL}(?:{_UNIT})?\.?\)?"

_PATTERNS = {
    "basic_arithmetic": _NUMBER_OR_FRACTION,
    "calendar_arithmetic": rf"[-+]?[0-9]{{1,12}}|{_WORD}",
    "chain_sum": _NUMBER_OR_FRACTION,
    "complex_arithmetic": _COMPLEX,
    "count_primes": _NUMBER_OR_FRACTION,
    "decimal_chain_sum": _NUMBER_OR_FRACTION,
    "dice": _NUMBER_OR_FRACTION,
    "fraction_simplification": _NUMBER_OR_FRACTION,
    "gcd": _NUMBER_OR_FRACTION,
    "gsm_symbolic": _AMOUNT,
    "lcm": _NUMBER_OR_FRACTION,
    "leg_counting": _NUMBER_OR_FRACTION,
    "polynomial_equations": rf"{_NUMBER}(?:\s*,\s*{_NUMBER}){{0,30}}",
    "prime_factorization": r"[-+]?[0-9]{1,60}(?:\s*(?:×|\*|\\times|\\cdot)\s*[0-9]{1,60}){0,200}",
    "products": _NUMBER_OR_FRACTION,
    "simple_equations": _NUMBER_OR_FRACTION,
}

ANSWER_PATTERNS = {family: re.compile(pattern) for family, pattern in _PATTERNS.items()}
