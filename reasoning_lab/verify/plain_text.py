r"""Remove the LaTeX that changes only how an answer looks.

The checkers `number` and `choice` parse the rest. `math` needs LaTeX and normalises it instead.
"""

import re

_STYLE = re.compile(
    r"\\(?:text(?:bf|it|rm|normal)?|math(?:bf|it|rm)|mbox|bf|rm|displaystyle"
    r"|underline|boxed|fbox|bm|boldsymbol|large|Large|LARGE|huge|Huge)"
    r"(?![A-Za-z])"
)
_MATH_MODE = re.compile(r"\\[()\[\]]")
_WITHOUT_WIDTH = re.compile(r"\\(?:[,!;:]|(?:left|right)(?![A-Za-z]))")
_SPACE = re.compile(r"\\(?:q?quad(?![A-Za-z])|(?=\s))|~")
_BRACE = re.compile(r"(?<!\\)[{}]")
_DOLLAR = re.compile(r"(?<!\\)\$")


def strip_latex(text: str) -> str:
    r"""Return `text` without LaTeX's fonts, braces and math mode, and with single spaces.

    An even number of bare `$` is math mode. With an odd number they are dollars, like `\$`.
    """
    if len(_DOLLAR.findall(text)) % 2 == 0:
        text = _DOLLAR.sub("", text)
    text = _STYLE.sub(" ", text)
    text = _MATH_MODE.sub(" ", text)
    text = _SPACE.sub(" ", _WITHOUT_WIDTH.sub("", text))
    text = _BRACE.sub("", text)
    return " ".join(text.replace("\\$", "$").replace("\\%", "%").split())
