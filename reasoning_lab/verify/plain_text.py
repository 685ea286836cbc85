r"""Take away the LaTeX that changes how an answer looks and not what it says.

The checkers `number` and `choice` read what is left; `math` leaves LaTeX to math-verify.
"""

import re

_STYLE = re.compile(
    r"\\(?:text(?:bf|it|rm|normal)?|math(?:bf|it|rm)|mbox|bf|rm|displaystyle"
    r"|underline|boxed|fbox|bm|boldsymbol|large|Large|LARGE|huge|Huge)"
    r"(?![A-Za-z])"
)
_MATH_MODE = re.compile(r"\\[()\[\]]")
_NOTHING = re.compile(r"\\(?:[,!;:]|(?:left|right)(?![A-Za-z]))")
_SPACE = re.compile(r"\\(?:q?quad(?![A-Za-z])|(?=\s))|~")
_BRACE = re.compile(r"(?<!\\)[{}]")
_DOLLAR = re.compile(r"(?<!\\)\$")


def plain(text: str) -> str:
    r"""Return `text` without LaTeX's fonts, braces and math mode, each space a single one.

    An even number of bare `$` is math mode; an odd one leaves them as dollars, as `\$` is.
    """
    if len(_DOLLAR.findall(text)) % 2 == 0:
        text = _DOLLAR.sub("", text)
    text = _STYLE.sub(" ", text)
    text = _MATH_MODE.sub(" ", text)
    text = _SPACE.sub(" ", _NOTHING.sub("", text))
    text = _BRACE.sub("", text)
    return " ".join(text.replace("\\$", "$").replace("\\%", "%").split())
