"""A problem's text as words that survive case, spacing, Unicode and LaTeX spelling.

Decontamination and near-duplicate search compare problems by these words. Numbers, runs of
letters and the signs of arithmetic are words; other punctuation, braces, dollars, spacing and
font commands and Asymptote drawings are nothing. Simplified: a script without spaces gives one
word a run of letters, so there only equal texts are found.
"""

import re
import unicodedata

_COMMAND = re.compile(r"\\([a-z]+\*?|.)", re.DOTALL)
_BARE_FRACTION = re.compile(r"\\[dtc]?frac\s?(\d)\s?(\d)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_WORD = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+|[-+*/=<>^%|]")

_SPELLINGS = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac"), "frac"),
    **dict.fromkeys(("dbinom", "tbinom"), "binom"),
    **dict.fromkeys(("leq", "leqslant"), "le"),
    **dict.fromkeys(("geq", "geqslant"), "ge"),
    **dict.fromkeys(("times", "cdot"), "*"),
    **dict.fromkeys(("vert", "lvert", "rvert", "mid", "|"), "|"),
    **dict.fromkeys(("rightarrow", "longrightarrow"), "to"),
    "div": "/",
    "lt": "<",
    "gt": ">",
    "neq": "ne",
    "%": "%",
}
# Spacing, size and font: how a text looks, not what it says. Names are casefolded.
_SIZES = (
    "left",
    "right",
    "middle",
    *(f"{size}{side}" for size in ("big", "bigg") for side in "lr"),
)
_FONTS = ("bb", "bf", "cal", "it", "rm", "sc", "sf", "normal")
_LOOKS = frozenset(
    {
        *_SIZES,
        *("big", "bigg", "displaystyle", "textstyle", "limits", "phantom", "hspace"),
        *("quad", "qquad", "ldots", "cdots", "dots", "mbox", "hbox", "text"),
        *("operatorname", "operatorname*"),
        *(f"{mode}{font}" for mode in ("math", "text") for font in _FONTS),
    }
)
_SYMBOLS = str.maketrans(
    {
        **dict.fromkeys("\u2212\u2013\u2010\u2011", "-"),
        **dict.fromkeys("×·⋅", " * "),
        **{"÷": "/", "≤": " le ", "≥": " ge ", "≠": " ne ", "√": " sqrt ", "∞": " infty "},
        **{
            "°": "^ circ ",
            "λ": " lambda ",
            "∠": " angle ",
            "△": " triangle ",
            "→": " to ",
            "±": " pm ",
        },
        **{digit: f"^{value}" for value, digit in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
        **{
            letter: f" {unicodedata.name(letter).rsplit(' ', 1)[-1].lower()} "
            for letter in "αβγδεζηθικμνξπρστυφχψω"
        },
    }
)


def words(text: str) -> list[str]:
    """The normalized words of `text`; linear in its length."""
    # Superscripts are symbols before NFKC makes them digits, capital letters only after casefold.
    folded = unicodedata.normalize("NFKC", text.translate(_SYMBOLS)).casefold()
    text = unicodedata.normalize("NFKC", folded).translate(_SYMBOLS)
    text = _BARE_FRACTION.sub(r" frac \1 \2 ", _without_drawings(text))
    text = _COMMAND.sub(_spelt, text.replace("<=", " le ").replace(">=", " ge "))
    return _WORD.findall(_THOUSANDS.sub("", text.replace("{,}", ",")))


def _spelt(command: re.Match[str]) -> str:
    name = command[1]
    if name == "!":  # A negative space, as in 1,\!000.
        return ""
    if name in _LOOKS or not (name[0].isalpha() or name in _SPELLINGS):
        return " "
    return f" {_SPELLINGS.get(name, name)} "


def _without_drawings(text: str) -> str:
    """`text` without what stands between [asy] and [/asy]."""
    before, *drawn = text.split("[asy]")
    parts = [before]
    for part in drawn:
        inside, end, after = part.partition("[/asy]")
        parts.append(after if end else inside)
    return " ".join(parts)
