"""Normalize a problem's text to words that ignore case, spacing, Unicode and LaTeX spelling.

Decontamination and near-duplicate search compare problems by these words. Numbers, runs of letters
and the signs of arithmetic are words. Other punctuation, braces, dollars, spacing and font
commands and Asymptote drawings are left out. Simplified: in a script without spaces a run of
letters is one word, so only equal texts match there.
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
# Commands for spacing, size and font do not change what a text says. Names are casefolded.
_FONTS = ("bb", "bf", "cal", "it", "rm", "sc", "sf", "normal")
_LAYOUT_COMMANDS = frozenset(
    {
        *("left", "right", "middle", "big", "bigl", "bigr", "bigg", "biggl", "biggr"),
        *("displaystyle", "textstyle", "limits", "phantom", "hspace", "quad", "qquad"),
        *("ldots", "cdots", "dots", "mbox", "hbox", "text", "operatorname", "operatorname*"),
        *(f"{mode}{font}" for mode in ("math", "text") for font in _FONTS),
    }
)
_SYMBOLS = str.maketrans(
    {
        **dict.fromkeys("\u2212\u2013\u2010\u2011", "-"),
        **dict.fromkeys("×·⋅", " * "),
        **{"÷": "/", "≤": " le ", "≥": " ge ", "≠": " ne ", "√": " sqrt ", "∞": " infty "},
        **{"°": "^ circ ", "λ": " lambda ", "∠": " angle ", "△": " triangle "},
        **{"→": " to ", "±": " pm "},
        **{digit: f"^{value}" for value, digit in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
        **{
            letter: f" {unicodedata.name(letter).rsplit(' ', 1)[-1].lower()} "
            for letter in "αβγδεζηθικμνξπρστυφχψω"
        },
    }
)


def normalized_words(text: str) -> list[str]:
    """The normalized words of `text`; linear in its length."""
    # Superscripts must be replaced before NFKC, and capital Greek letters after casefold.
    folded = unicodedata.normalize("NFKC", text.translate(_SYMBOLS)).casefold()
    text = unicodedata.normalize("NFKC", folded).translate(_SYMBOLS)
    text = _BARE_FRACTION.sub(r" frac \1 \2 ", _strip_drawings(text))
    text = _COMMAND.sub(_normalized_command, text.replace("<=", " le ").replace(">=", " ge "))
    return _WORD.findall(_THOUSANDS.sub("", text.replace("{,}", ",")))


def _normalized_command(command: re.Match[str]) -> str:
    name = command[1]
    if name == "!":  # A negative space, as in 1,\!000.
        return ""
    if name in _LAYOUT_COMMANDS or not (name[0].isalpha() or name in _SPELLINGS):
        return " "
    return f" {_SPELLINGS.get(name, name)} "


def _strip_drawings(text: str) -> str:
    """`text` without the parts between [asy] and [/asy]."""
    before, *drawings = text.split("[asy]")
    parts = [before]
    for part in drawings:
        inside, end, after = part.partition("[/asy]")
        parts.append(after if end else inside)
    return " ".join(parts)
