r"""Normalise the many ways in which LaTeX and plain text write the same formula.

No text with a meaning is dropped: a command that no rule here knows stays, and the parser refuses
it. Degrees become `°`, words stay in `\text{...}`.
"""

import re
from functools import lru_cache

from reasoning_lab.verify.characters import normalise_characters
from reasoning_lab.verify.units import parse_unit

_TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|md|up)?|math(?:rm|bf|it|sf|tt|normal|cal|scr)|mbox|hbox|bm"
    r"|boldsymbol|underline|operatorname\*?|boxed|fbox)\s*\{([^{}]*)\}"
)
_ORDINAL = re.compile(
    r"(?<=[0-9])\s*(?:\^\s*)?\{?\s*(?:\\(?:text|mathrm|textsuperscript)\s*\{\s*(?:st|nd|rd|th)\s*\}"
    r"|(?:st|nd|rd|th)(?![A-Za-z]))\s*\}?"
)
# Fonts and boxes whose argument has braces too.
_WRAPPER = re.compile(
    r"\\(?:text(?:bf|it|rm|normal)?|math(?:rm|bf|it)|mbox|bm|boldsymbol|underline|boxed|fbox)\s*\{"
)
_OVER = re.compile(r"\{([^{}]*)\\over(?![A-Za-z])([^{}]*)\}")
_INVISIBLE = re.compile(
    r"\\[hv]space\*?\s*\{[^{}]*\}|\\[hv]?phantom\s*\{[^{}]*\}|\\checkmark(?![A-Za-z])"
    r"|[\u2705\u2713\u2714]"
)
_NUMBER_SET = re.compile(r"\\mathbb\s+([A-Z])(?![A-Za-z])")
_UNIT_POWER = re.compile(r"\\(?:text|mathrm)\s*\{([A-Za-z /.~]+)\^\s*\{?([23])\}?\s*\}")
_UNIT_INVERSE = re.compile(
    r"(?:\\cdot\s*)?\\(?:text|mathrm)\s*\{[~\s]*([A-Za-z]+)\}\s*\^\s*\{?-([123])\}?"
)
_UNIT_INVERSE_INSIDE = re.compile(
    r"\\(?:text|mathrm)\s*\{[~\s]*([A-Za-z]+)\s*(?:\\cdot|\\[,;: ]|~|\s)\s*([A-Za-z]+)"
    r"\s*\^\s*\{?-([123])\}?\s*\}"
)
_UNIT_PRODUCT = re.compile(
    r"(\\(?:text|mathrm)\s*\{[~\s]*[A-Za-z]+\s*\})\s*\\cdot\s*(?=\\(?:text|mathrm)\s*\{)"
)
_OLD_FONT = re.compile(r"\{\s*\\(?:rm|bf|it|sf|tt)\s+([^{}\\]*)\}")
_TWO_DOTS = re.compile(r"\\dot\s*\{?([0-9])\}?([0-9]*)\\dot\s*\{?([0-9])\}?")
_LOGARITHM_OVER = re.compile(r"(\\(?:ln|log(?:_\{[^{}]*\})?)) ?([0-9]+|[a-z])(?= ?/)")
_CASES = re.compile(r"\\begin\s*\{(cases|aligned|gathered)\}(.*)\\end\s*\{\1\}", re.DOTALL)
_ABSOLUTE = re.compile(r"(?<![A-Za-z\\])abs\s*\(([^()|]*)\)")
_ODD_ROOT = re.compile(
    r"\\sqrt\s*\[\s*([0-9]*[13579])\s*\]\s*\{\s*-\s*([0-9]+|\\frac\{[0-9]+\}\{[0-9]+\})\s*\}"
)
_QUANTITY_IN_TEXT = re.compile(r"([-+]?[0-9][0-9.,/]*)\s+([A-Za-z][A-Za-z .]*)")
_NO_WORDS = re.compile(r"[-\d.,/:()%$ ]+|[,;]?\s*(?:and|or|und)")
_CLOCK_IN_TEXT = re.compile(r"[0-9]{1,2}(?::[0-9]{2})?\s*[ap]\.?\s?m\.?", re.IGNORECASE)
_ANNOUNCED = re.compile(r"(?:the )?(?:final |correct )?answer\b", re.IGNORECASE)
_COLOR = re.compile(r"\\(?:text)?color\s*\{[a-z]+\}")
_ARRAY = re.compile(r"\\begin\{array\}\s*\{[^{}]*\}")
_UNIT_FRACTION = re.compile(
    r"\\frac\s*\{(\\text\{[^{}]*\}|[A-Za-z])\}\s*\{(\\text\{[^{}]*\}|[A-Za-z])\}"
)
_JOINING = re.compile(r"\s*(?:,\s*(?:and|or)\b|,|\b(?:and|or)\b)\s*")
_FONT_SWITCH = re.compile(
    r"\\(?:bf|rm|it|displaystyle|textstyle|limits|nolimits|tiny|small|normalsize|large|Large|LARGE"
    r"|huge|Huge)(?![A-Za-z])"
)
_SIZE = re.compile(r"\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])\s*(\.(?![0-9]))?")
_MATH_MODE = re.compile(r"(?<!\\)(?:\$|\\[()\[\]])")
_THOUSANDS_SEPARATOR = (
    r"(?:\\[,!:; ]|\\thinspace(?![A-Za-z])|~|\{,\}|\{\\,\}|\\!\s?,\\!\s?|,\\!\s?"
    r"| (?=[0-9]{3}(?:[ .]|$)))"
)
_THOUSANDS = re.compile(
    rf"(?<![0-9.,\\])(?<![0-9]\s)[1-9][0-9]{{0,2}}(?:{_THOUSANDS_SEPARATOR}[0-9]{{3}})+(?![0-9])"
)
_SPACE = re.compile(
    r"(?<!\\)\\(?:[,!:;> ]|(?:q?quad|(?:thin|med|thick|en)space|hfill)(?![A-Za-z]))|~|\s+"
)
_DEGREE = re.compile(
    r"\s*\^\s*(?:\{\s*\\(?:circ|degree)\s*\}|\\(?:circ|degree)(?![A-Za-z]))|\\degree(?![A-Za-z])"
    r"|\\textdegree(?![A-Za-z])"
)
_COMMANDS = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom",
    "leq": "le", "leqslant": "le", "leqq": "le", "geq": "ge", "geqslant": "ge", "geqq": "ge",
    "ne": "neq", "varnothing": "emptyset", "ast": "cdot", "bullet": "cdot", "dots": "ldots",
    "cdots": "ldots", "dotsc": "ldots", "dotsb": "ldots", "dotso": "ldots", "owns": "ni",
    "rightarrow": "to", "longrightarrow": "to", "smallsetminus": "setminus",
    "backslash": "setminus",
    "tg": "tan", "ctg": "cot", "cotg": "cot", "cotan": "cot", "cosec": "csc", "arctg": "arctan",
    "arcctg": "arccot", "arccotg": "arccot", "sh": "sinh", "ch": "cosh", "th": "tanh",
    "cth": "coth", "asin": "arcsin", "acos": "arccos", "atan": "arctan", "sen": "sin",
    "arsh": "arsinh", "arch": "arcosh", "arth": "artanh", "lg": "log_{10}",
    "widetilde": "tilde", "overrightarrow": "vec", "infin": "infty", "simeq": "approx",
    "approxeq": "approx", "bigcup": "cup", "bigcap": "cap",
}  # fmt: skip
_SYMBOLS = {
    "lt": "<", "gt": ">", "colon": ":", "mid": "|", "vert": "|", "lvert": "|", "rvert": "|",
    "lparen": "(", "rparen": ")", "lbrack": "[", "rbrack": "]", "lbrace": "\\{", "rbrace": "\\}",
    "land": " and ", "lor": " or ", "wedge": " and ", "vee": " or ", "langle": "(", "rangle": ")",
}  # fmt: skip
_LOOSE_BRACE = re.compile(r"(\\[A-Za-z]+|[_^]) \{")
_COMMAND = re.compile(r"\\([A-Za-z]+)\s*")
_FUNCTION_NAMES = (
    "arcsin arccos arctan arccot arcsec arccsc arsinh arcosh artanh arcsinh arccosh arctanh asin"
    " acos atan sinh cosh tanh coth sin cos tan cot sec csc log lg ln exp sqrt min max gcd lcm det"
    " tg ctg cotg arctg arcctg sh ch th cth cosec arccotg lim arsh arch arth"
)
_FUNCTIONS = tuple(_FUNCTION_NAMES.split())
_CONSTANTS = "pi alpha beta gamma delta epsilon theta lambda sigma omega phi infty rho tau mu psi"
_COMMAND_OF_NAME = {
    **{name: f"\\{_COMMANDS.get(name, name)} " for name in (*_FUNCTIONS, *_CONSTANTS.split())},
    **dict.fromkeys(("infinity", "inf", "oo"), "\\infty "),
    "cbrt": "\\sqrt[3]",
}
# These are words unless a digit, an operator or a bracket follows.
_ALSO_WORDS = frozenset({
    "sec", "min", "max", "tan", "sin", "log", "th", "ch", "sh", "exp", "inf", "det", "mu",
})  # fmt: skip
_LETTERS = re.compile(r"\\text\{[^{}]*\}|\\[A-Za-z]+|[A-Za-z]+")
_SCIENTIFIC = re.compile(
    r"(?<![A-Za-z0-9.])([0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE]([-+]?[0-9]+)(?![A-Za-z0-9.{^_(\\])"
)
_SCRIPT = re.compile(r"([_^])\s*(-?[0-9]+|[A-Za-z]|\\(?:infty|pi|theta|alpha|beta)(?![A-Za-z]))")
_ROOT = re.compile(r"\\sqrt\s*(\[[^\[\]]*\])?\s*([0-9]+(?:\.[0-9]+)?|\\pi(?![A-Za-z])|[A-Za-z])")
_CALL_OR_BRACKET = re.compile(r"(\\sqrt\s*(?:\[[0-9]+\])?|\^)\s*\(|[()]")
_BRACED_MARK = re.compile(r"\{\s*([,:])\s*\}")
_DOUBLED = re.compile(r"\\\\(?=[A-Za-z{}])")


@lru_cache(maxsize=512)
def normalise_latex(text: str) -> str:
    r"""Return `text` as LaTeX without math mode, fonts and sizes, in one spelling.

    Thousands lose their separators, `sqrt(2)` becomes `\sqrt{2}`, `\lg` becomes `\log_{10}`,
    `1e-07` becomes `1\cdot 10^{-07}`.
    """
    text = normalise_characters(text)
    if "matrix" not in text and "array" not in text and "cases" not in text:
        text = _DOUBLED.sub(r"\\", text)
    text = _drop_wrappers(_MATH_MODE.sub("", text))
    text = _INVISIBLE.sub(" ", text)
    text = _OVER.sub(r"\\frac{\1}{\2}", text)
    text = _CASES.sub(_lines_as_list, text)
    text = _TWO_DOTS.sub(r"\\overline{\1\2\3}", _OLD_FONT.sub(r"\\text{\1}", text))
    text = _COLOR.sub("", _FONT_SWITCH.sub(" ", text))
    if "\\begin{array}" in text:
        text = _ARRAY.sub(r"\\begin{pmatrix}", text).replace("\\end{array}", "\\end{pmatrix}")
    text = _ORDINAL.sub("", text)
    text = _SIZE.sub("", text)
    text = _DEGREE.sub("°", text)
    text = _UNIT_POWER.sub(r"\\text{\1}^{\2}", text)
    text = _UNIT_INVERSE_INSIDE.sub(r"\\text{\1} \\text{\2}^{-\3}", text)
    text = _UNIT_PRODUCT.sub(r"\1 ", _UNIT_INVERSE.sub(_write_per, text))
    text = _THOUSANDS.sub(lambda m: re.sub(_THOUSANDS_SEPARATOR, "", m[0]), text)
    for _ in range(3):
        text = _TEXT.sub(lambda m: _unwrap_text(m[1], m.string[: m.start()], m[0]), text)
    if "\\text{" in text:
        text = _UNIT_FRACTION.sub(r"\1/\2", text)
    text = _BRACED_MARK.sub(r"\1", text)
    text = _NUMBER_SET.sub(r"\\mathbb{\1}", text)
    text = _ABSOLUTE.sub(r"|\1|", text)
    text = _COMMAND.sub(_rename_command, text)
    text = _SPACE.sub(" ", text)
    text = _LETTERS.sub(lambda m: _name_as_command(m, text), text)
    text = _SCIENTIFIC.sub(r"\1\\cdot 10^{\2}", text)
    text = text.replace("**", "^").replace("*", "\\cdot ") if "*" in text else text
    text = _brace_calls(text)
    text = _SCRIPT.sub(r"\1{\2}", _ROOT.sub(r"\\sqrt\1{\2}", text))
    text = _brace_fractions(text)
    text = _LOGARITHM_OVER.sub(r"\1(\2)", text)
    text = _ODD_ROOT.sub(r"(-\\sqrt[\1]{\2})", text)
    return _LOOSE_BRACE.sub(r"\1{", " ".join(text.split()))


def _drop_wrappers(text: str) -> str:
    """Drop the fonts and boxes around arguments with braces, such as a fraction."""
    at = 0
    while (match := _WRAPPER.search(text, at)) is not None:
        inner, rest = _split_argument(text[match.end() - 1 :])
        at = match.end()
        if inner.endswith("}") and re.search(r"\\(?:[dt]?frac|sqrt|binom|boxed|text)", inner):
            text = f"{text[: match.start()]} {inner[1:-1]} {rest}"
            at = match.start()
    return text


def _lines_as_list(match: re.Match[str]) -> str:
    """Return the lines of a system of equations as a list; unchanged where it has columns."""
    lines = [line.strip(" ,;&") for line in re.split(r"\\\\", match[2])]
    lines = [re.sub(r"&\s*=|=\s*&", "=", line) for line in lines if line]
    return match[0] if any("&" in line for line in lines) else ", ".join(lines)


def _write_per(match: re.Match[str]) -> str:
    """Write `s^{-1}` as `per s`."""
    power = "" if match[2] == "1" else f"^{{{match[2]}}}"
    return f" \\text{{per {match[1]}}}{power}"


def _unwrap_text(content: str, before: str, command: str) -> str:
    """Return the argument of a font or text: letters and functions bare, words as `\\text`."""
    content = " ".join(_SPACE.sub(" ", content).split())
    if command.startswith(("\\boxed", "\\fbox")):
        return f" {content} "
    last = before.rstrip(" \\,~;:!")[-1:]
    behind_number = bool(last) and last in "0123456789})°$"
    if content in _FUNCTIONS and not (behind_number and content in ("min", "sec")):
        return f"\\{content} "
    if not content:
        return " "
    is_formula = any(c in content for c in "\\^_=<>+°") or _NO_WORDS.fullmatch(content)
    if is_formula or _CLOCK_IN_TEXT.fullmatch(content) or _ANNOUNCED.match(content):
        return f" {content} "
    if len(content) == 1 and content.isalpha():
        bold = command.startswith(("\\mathbf", "\\bm", "\\boldsymbol"))
        if content in "eidT" or bold or not behind_number:
            return f" {content}" if re.search(r"\\[A-Za-z]+$", before) else content
    amount = _QUANTITY_IN_TEXT.fullmatch(content)
    if amount and parse_unit(amount[2]):
        return f" {amount[1]} \\text{{{amount[2]}}} "
    if re.fullmatch(r"\([A-Za-z]\)", content):
        return content
    if _JOINING.search(content):
        words = _JOINING.split(content)
        separators = ["", *_JOINING.findall(content)]
        return "".join(
            f"{separator} " + (f"\\text{{{word}}}" if word.strip() else "")
            for separator, word in zip(separators, words, strict=True)
        )
    return f"\\text{{{content}}}"


def _rename_command(match: re.Match[str]) -> str:
    name = match[1]
    if name == "text":
        return match[0]
    return _SYMBOLS.get(name) or f"\\{_COMMANDS.get(name, name)} "


def _name_as_command(match: re.Match[str], text: str) -> str:
    """Return a run of letters as a command if it names a function or a constant."""
    run = match[0]
    if run in _ALSO_WORDS:
        after = text[match.end() :].lstrip()[:1]
        if not after or after not in "(^_0123456789\\{":
            return run
    return _COMMAND_OF_NAME.get(run, run)


def _brace_calls(text: str) -> str:
    r"""Write `\sqrt(x)` as `\sqrt{x}` and `^(x)` as `^{x}`, whatever the brackets contain."""
    closings: list[str] = []

    def rewrite(mark: re.Match[str]) -> str:
        if mark[0] == ")":
            return closings.pop() if closings else ")"
        closings.append("}" if mark[1] else ")")
        return mark[1].strip() + "{" if mark[1] else "("

    return _CALL_OR_BRACKET.sub(rewrite, text)


def _brace_fractions(text: str) -> str:
    r"""Write `\frac12`, `\frac1{2}` and `\frac\pi2` with braces around both arguments."""
    result, *parts = text.split("\\frac")
    for part in parts:
        top, rest = _split_argument(part.lstrip())
        bottom, rest = _split_argument(rest.lstrip())
        result += f"\\frac{top}{bottom}{rest}"
    return result


def _split_argument(text: str) -> tuple[str, str]:
    """Return the first argument of a command in braces, and the rest of the text."""
    atom = re.match(r"[0-9A-Za-z]|\\[A-Za-z]+\s?", text)
    if atom:
        return f"{{{atom[0].strip()}}}", text[atom.end() :]
    if not text.startswith("{"):
        return "", text
    depth = 0
    for mark in re.finditer(r"\\.|[{}]", text):
        depth += {"{": 1, "}": -1}.get(mark[0], 0)
        if depth == 0:
            return text[: mark.end()], text[mark.end() :]
    return text, ""
