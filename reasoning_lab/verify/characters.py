r"""Normalise an answer's Unicode and Markdown to ASCII and LaTeX, before any checker parses it.

`x²` becomes `x^{2}`, `½` becomes `\frac{1}{2}`, a full-width digit an ordinary one, `**18**`
becomes `18`. Invisible characters are dropped. A character without an ASCII or LaTeX form stays,
and a checker refuses it.

The checkers `number` and `choice` then parse text without LaTeX. `math` needs LaTeX and normalises
it instead.
"""

# ruff: noqa: RUF001 - this module is about characters that look like others.

import re
import unicodedata

_INVISIBLE = re.compile("[\u00ad\u034f\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]")
_OVERLINED = re.compile("(?:[0-9][\u0304\u0305\u0307])+")
_OVERLINE = re.compile("[\u0304\u0305\u0307]")
_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱˣ", "0123456789+-()nix", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋ₙₖᵢₓ", "0123456789+-nkix", strict=True))
_SUPERSCRIPT = re.compile(f"[{''.join(_SUPERSCRIPTS)}]+")
_SUBSCRIPT = re.compile(f"[{''.join(_SUBSCRIPTS)}]+")
_FRACTION_CHARACTER = re.compile("[¼½¾⅐-⅞↉]")
_ROOT = re.compile(r"([√∛∜])\s*([0-9]+(?:\.[0-9]+)?|[A-Za-z]|(?=[({\\]))")
_ROOTS = {"√": "\\sqrt", "∛": "\\sqrt[3]", "∜": "\\sqrt[4]"}
_SIGNS = {
    **dict.fromkeys("−–—‐‑‒﹣－", "-"),
    **dict.fromkeys("∗⋆＊", "*"),
    **dict.fromkeys("·⋅∙•", "\\cdot "),
    **dict.fromkeys("‘’′ʹ", "'"),
    **dict.fromkeys("“”″", '"'),
    **dict.fromkeys("∅⌀", "\\emptyset "),
    "×": "\\times ", "÷": "\\div ", "∕": "/", "⁄": "/", "±": "\\pm ", "∓": "\\mp ",
    "≤": "\\le ", "≥": "\\ge ", "⩽": "\\le ", "⩾": "\\ge ", "≠": "\\neq ", "≈": "\\approx ",
    "≃": "\\approx ", "≅": "\\cong ", "∼": "\\sim ", "≡": "\\equiv ", "∞": "\\infty ",
    "∪": "\\cup ", "∩": "\\cap ", "∖": "\\setminus ", "∈": "\\in ", "∉": "\\notin ",
    "ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}", "ℕ": "\\mathbb{N}", "ℚ": "\\mathbb{Q}",
    "ℂ": "\\mathbb{C}", "→": "\\to ", "∠": "\\angle ", "△": "\\triangle ", "∑": "\\sum ",
    "∫": "\\int ", "∏": "\\prod ", "°": "^\\circ ", "º": "^\\circ ", "…": "...", "⋯": "...",
    "⟨": "\\langle ", "⟩": "\\rangle ", "⌊": "\\lfloor ", "⌋": "\\rfloor ", "⌈": "\\lceil ",
    "⌉": "\\rceil ", "∣": "|", "∶": ":", "π": "\\pi ", "𝜋": "\\pi ", "θ": "\\theta ",
    "α": "\\alpha ", "β": "\\beta ", "γ": "\\gamma ", "δ": "\\delta ", "λ": "\\lambda ",
    "µ": "\\mu ", "μ": "\\mu ", "φ": "\\phi ", "ϕ": "\\phi ", "ω": "\\omega ", "σ": "\\sigma ",
    "τ": "\\tau ", "ρ": "\\rho ", "ε": "\\epsilon ", "Δ": "\\Delta ", "Ω": "\\Omega ",
    "Σ": "\\Sigma ", "Φ": "\\Phi ", "。": ".", "、": ",", "【": "[", "】": "]",
}  # fmt: skip
_SIGN = re.compile(f"[{re.escape(''.join(_SIGNS))}]")
# Emphasis has a space or nothing on its outside, so `2**3**2` has none.
_BOLD = re.compile(r"(?<![^\s(\[{$,])(\*\*|__)(?=[^\s*_])([^*_]+)(?<=\S)\1(?![^\s)\]},.;:!?$])")
_WHOLE_EMPHASIS = re.compile(r"\s*([*_`])([^*_`]+)\1\s*")

_STYLE = re.compile(
    r"\\(?:text(?:bf|it|rm|normal)?|math(?:bf|it|rm)|mbox|bf|rm|displaystyle"
    r"|underline|boxed|fbox|bm|boldsymbol|large|Large|LARGE|huge|Huge)"
    r"(?![A-Za-z])|\\[()\[\]]"
)
_WITHOUT_WIDTH = re.compile(r"\\(?:[,!;:]|(?:left|right)(?![A-Za-z]))")
_SPACE = re.compile(r"\\(?:q?quad(?![A-Za-z])|(?=\s))|~")
_BRACE = re.compile(r"(?<!\\)[{}]")
_DOLLAR = re.compile(r"(?<!\\)\$")


def normalise_characters(text: str) -> str:
    """Return `text` with its Unicode in ASCII or LaTeX and without Markdown's emphasis."""
    if not text.isascii():
        text = _to_ascii(text)
    if "**" in text or "__" in text:
        text = _BOLD.sub(r"\2", text)
    if text[:1] in ("*", "_", "`"):
        whole = _WHOLE_EMPHASIS.fullmatch(text)
        text = whole[2] if whole else text
    return text


def _to_ascii(text: str) -> str:
    text = _INVISIBLE.sub("", text)
    text = _OVERLINED.sub(lambda m: f"\\overline{{{_OVERLINE.sub('', m[0])}}}", text)
    text = _SUPERSCRIPT.sub(lambda m: f"^{{{''.join(_SUPERSCRIPTS[c] for c in m[0])}}}", text)
    text = _SUBSCRIPT.sub(lambda m: f"_{{{''.join(_SUBSCRIPTS[c] for c in m[0])}}}", text)
    text = _FRACTION_CHARACTER.sub(_latex_fraction, text)
    text = _ROOT.sub(lambda m: _ROOTS[m[1]] + (f"{{{m[2]}}}" if m[2] else ""), text)
    text = _SIGN.sub(lambda m: _SIGNS[m[0]], text)
    text = unicodedata.normalize("NFKC", text)
    return _SIGN.sub(lambda m: _SIGNS[m[0]], text)


def _latex_fraction(match: re.Match[str]) -> str:
    top, _, bottom = unicodedata.normalize("NFKC", match[0]).partition("⁄")
    return f"\\frac{{{top}}}{{{bottom}}}"


def strip_latex(text: str) -> str:
    r"""Return `text` without LaTeX's fonts, braces and math mode, and with single spaces.

    An even number of bare `$` is math mode. With an odd number they are dollars, like `\$`.
    """
    if len(_DOLLAR.findall(text)) % 2 == 0:
        text = _DOLLAR.sub("", text)
    text = _SPACE.sub(" ", _WITHOUT_WIDTH.sub("", _STYLE.sub(" ", text)))
    text = _BRACE.sub("", text)
    return " ".join(text.replace("\\$", "$").replace("\\%", "%").split())
