r"""Take the final answer out of a completion's text: the first half of verification.

The recipe's format is `<think>...</think>` and then `\boxed{answer}`. Boxes inside a thought
that ends are drafts and don't count.
"""

import re
from itertools import accumulate

_END_OF_THOUGHT = "</think>"
_BOX = re.compile(r"\\boxed\s*\{")
# A backslash takes the next character with it, so `\{` opens nothing.
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def extract_answer(text: str) -> str | None:
    r"""Return what the last `\boxed{...}` holds, stripped; linear in the text's length.

    Only what follows the last `</think>` counts where that mark is there, else the whole text: a
    thought without an end may be a model's way to answer. The last box decides alone: an earlier
    one was overruled by the author.

    Returns:
        The answer; None when there is no box, or the last is empty or never closed.
    """
    final = text.rpartition(_END_OF_THOUGHT)[2]
    start = max((box.end() for box in _BOX.finditer(final)), default=-1)
    if start < 0:
        return None
    depth = 1
    for mark in _BRACE.finditer(final, start):
        if mark[0] == "{":
            depth += 1
        elif mark[0] == "}":
            depth -= 1
            if depth == 0:
                return final[start : mark.start()].strip() or None
    return None


def nesting_depth(text: str) -> int:
    """How many brackets of any kind are open at once, at most; their kinds need not match."""
    return max(accumulate((c in "([{") - (c in ")]}") for c in text), default=0)
