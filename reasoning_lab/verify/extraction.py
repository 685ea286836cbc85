r"""Extract the final answer from a completion's text: the first step of verification.

The recipe's format is `<think>...</think>` and then `\boxed{answer}`. Boxes inside a thought are
drafts and don't count, whether the thought ends or not.
"""

import re
from dataclasses import dataclass
from itertools import accumulate

_THINK_OPEN = "<think>"
_THINK_CLOSE = "</think>"
# A backslash escapes the next character, so `\{` opens no group.
_TOKEN = re.compile(
    r"\\{1,2}(?:boxed|fbox)\s*(?P<box>\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL
)
_BARE_BOX = re.compile(
    r"\\(?:boxed|fbox)(?:\s+|(?=[-+0-9\\]))"
    r"(?P<content>[-+]?(?:\\\$)?[0-9]+(?:[.,/][0-9]+)*|[A-Za-z](?![A-Za-z])"
    r"|[-+]?\\(?:[dt]?frac\s*(?:\{[^{}]*\}|[0-9])|sqrt)\s*(?:\{[^{}]*\}|[0-9]))"
)
_EMPTY = re.compile(r"(?:\s|[{}~$]|\\(?:[,!:; ]|q?quad|text|mathrm|phantom)(?![A-Za-z]))*")
# Boxes of one answer may have `and`, `or`, a comma and a name such as `x =` between them.
_JOINING = re.compile(
    r"[\s$\\()\[\]]*(?:[,;]|(?:\\text\s*\{)?\s*,?\s*(?:and|or)(?![A-Za-z])\s*\}?)"
    r"\s*(?:(?:\\text\s*\{)?\s*(?:and|or)(?![A-Za-z])\s*\}?)?[\s$\\()\[\]]*(?:[A-Za-z](?:_\{?[0-9]\}?)?\s*=\s*)?[\s$]*"
)
_MAX_JOINING_CHARS = 40


@dataclass(slots=True)
class _Box:
    """Positions of a box's command, of its content and of its closing brace."""

    command: int
    start: int
    end: int


def extract_answer(text: str) -> str | None:
    r"""Return the content of the last `\boxed{...}` or `\fbox{...}`, in linear time.

    Only text behind the thought counts, and a thought without an end leaves no text. A box that is
    never closed hides the boxes before it, an empty box does not. Boxes with only `and`, `or` or a
    comma between them are one answer. Any other box before the last does not count.

    Returns:
        The stripped answer; None when every box is empty, or the last is never closed.
    """
    final = _remove_thoughts(text)
    boxes = _find_boxes(final)
    if not boxes:
        return None
    contents: list[str] = []
    next_command = len(final)
    for box in reversed(boxes):
        if contents and not _are_joined(final[box.end : next_command]):
            break
        content = _unwrap_box(final[box.start : box.end].strip())
        contents.append(_with_sign(content, final[max(0, box.command - 2) : box.command]))
        next_command = box.command
    return ", ".join(dict.fromkeys(reversed(contents)))


def _remove_thoughts(text: str) -> str:
    """Return the text without thoughts; a thought without an end reaches to the end of the text.

    A first `</think>` without an opening ends a thought that the prompt opened. A later one, and
    one with no text behind it, is ignored.
    """
    opening, end = text.find(_THINK_OPEN), text.find(_THINK_CLOSE)
    if end >= 0 and (opening < 0 or end < opening):
        rest = text[end + len(_THINK_CLOSE) :]
        if not rest.strip():
            return text[:end]
        text = rest
    parts = []
    while (start := text.find(_THINK_OPEN)) >= 0:
        parts.append(text[:start])
        end = text.find(_THINK_CLOSE, start)
        text = text[end + len(_THINK_CLOSE) :] if end >= 0 else ""
    return "".join([*parts, text])


def _find_boxes(text: str) -> list[_Box]:
    """Return the outermost boxes with content, in order; none where the last is never closed."""
    boxes: list[_Box] = []
    open_braces: list[_Box | None] = []
    for token in _TOKEN.finditer(text):
        if token["box"]:
            open_braces.append(_Box(token.start(), token.end(), -1))
        elif token["open"]:
            open_braces.append(None)
        elif token["close"] and open_braces:
            box = open_braces.pop()
            if box is not None:
                box.end = token.start()
                if _EMPTY.fullmatch(text, box.start, box.end) is None:
                    while boxes and boxes[-1].command > box.command:
                        boxes.pop()
                    boxes.append(box)
    last = boxes[-1:]
    for match in _BARE_BOX.finditer(text):
        if not any(box.start <= match.start() < box.end for box in last):
            boxes.append(_Box(match.start(), match.start("content"), match.end()))
    boxes.sort(key=lambda box: box.command)
    unclosed = max((box.command for box in open_braces if box is not None), default=-1)
    return boxes if boxes and unclosed < boxes[-1].command else []


def _with_sign(content: str, before: str) -> str:
    """Return the content with the minus that stands right before its box."""
    if not before.endswith("-") or not (len(before) == 1 or before[-2] in " \n=($:"):
        return content
    is_number = re.fullmatch(r"[0-9.,]+|\\[dt]?frac\{[^{}]*\}\{[^{}]*\}", content)
    return f"-{content}" if is_number else f"-({content})"


def _are_joined(between: str) -> bool:
    between = between.lstrip("}")
    return len(between) <= _MAX_JOINING_CHARS and _JOINING.fullmatch(between) is not None


def _unwrap_box(content: str) -> str:
    """Return the content of the inner box if a box contains only another box."""
    while (match := re.match(r"\\(?:boxed|fbox)\s*\{", content)) and content.endswith("}"):
        depth = 0
        for token in _TOKEN.finditer(content):
            depth += bool(token["box"] or token["open"]) - bool(token["close"])
            if depth == 0:
                break
        if token.end() != len(content):
            break
        content = content[match.end() : -1].strip()
    return content


def nesting_depth(text: str) -> int:
    """Return how many brackets of any kind are open at once, at most; kinds need not match."""
    return max(accumulate((c in "([{") - (c in ")]}") for c in text), default=0)
