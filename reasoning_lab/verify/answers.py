r"""Take the final answer out of a completion's text: the first half of verification.

The recipe's format is `<think>...</think>` and then `\boxed{answer}`. Boxes inside a thought are
drafts and don't count, whether the thought ends or not.
"""

import re
from dataclasses import dataclass
from itertools import accumulate

_THOUGHT = "<think>"
_END_OF_THOUGHT = "</think>"
# A backslash takes the next character with it, so `\{` opens nothing.
_MARK = re.compile(r"\\{1,2}(?:boxed|fbox)\s*(?P<box>\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)
_BARE_BOX = re.compile(
    r"\\(?:boxed|fbox)(?:\s+|(?=[-+0-9\\]))"
    r"(?P<content>[-+]?(?:\\\$)?[0-9]+(?:[.,/][0-9]+)*|[A-Za-z](?![A-Za-z])"
    r"|[-+]?\\(?:[dt]?frac\s*(?:\{[^{}]*\}|[0-9])|sqrt)\s*(?:\{[^{}]*\}|[0-9]))"
)
_NOTHING = re.compile(r"(?:\s|[{}~$]|\\(?:[,!:; ]|q?quad|text|mathrm|phantom)(?![A-Za-z]))*")
# What may stand between boxes of one answer: `and`, `or`, a comma, and a name such as `x =`.
_JOINED = re.compile(
    r"[\s$\\()\[\]]*(?:[,;]|(?:\\text\s*\{)?\s*,?\s*(?:and|or)(?![A-Za-z])\s*\}?)"
    r"\s*(?:(?:\\text\s*\{)?\s*(?:and|or)(?![A-Za-z])\s*\}?)?[\s$\\()\[\]]*(?:[A-Za-z](?:_\{?[0-9]\}?)?\s*=\s*)?[\s$]*"
)
_MAX_BETWEEN = 40


@dataclass(slots=True)
class _Box:
    """Where a box's command, its content and its closing brace stand."""

    command: int
    start: int
    end: int


def extract_answer(text: str) -> str | None:
    r"""Return what the last `\boxed{...}` or `\fbox{...}` holds, stripped; linear in the length.

    Only what follows the thought counts: a thought without an end leaves nothing. A box that is
    never closed hides those before it, an empty one does not. Boxes with only `and`, `or` or a
    comma between them are one answer; any other box before the last was overruled by the author.

    Returns:
        The answer; None when there is no box with anything in it, or the last is never closed.
    """
    final = _after_thought(text)
    boxes = _boxes(final)
    if not boxes:
        return None
    contents: list[str] = []
    for place in range(len(boxes) - 1, -1, -1):
        box = boxes[place]
        if contents and not _is_joined(final[box.end : boxes[place + 1].command]):
            break
        content = final[box.start : box.end].strip()
        contents.append(_signed(_unboxed(content), final[max(0, box.command - 2) : box.command]))
    distinct = list(dict.fromkeys(reversed(contents)))
    return ", ".join(distinct)


def _after_thought(text: str) -> str:
    """What follows the thought: without whole thoughts, and cut at one that never ends.

    A first end without an opening ends a thought that the prompt opened. A later one, and one
    with nothing behind it, is a stray mark.
    """
    opening, end = text.find(_THOUGHT), text.find(_END_OF_THOUGHT)
    if end >= 0 and (opening < 0 or end < opening):
        rest = text[end + len(_END_OF_THOUGHT) :]
        if not rest.strip():
            return text[:end]
        text = rest
    parts = []
    while (start := text.find(_THOUGHT)) >= 0:
        parts.append(text[:start])
        end = text.find(_END_OF_THOUGHT, start)
        text = text[end + len(_END_OF_THOUGHT) :] if end >= 0 else ""
    return "".join([*parts, text])


def _boxes(text: str) -> list[_Box]:
    """The outermost boxes that hold anything, in order; none where the last is never closed."""
    boxes: list[_Box] = []
    opened: list[_Box | None] = []
    for mark in _MARK.finditer(text):
        if mark["box"]:
            opened.append(_Box(mark.start(), mark.end(), -1))
        elif mark["open"]:
            opened.append(None)
        elif mark["close"] and opened:
            box = opened.pop()
            if box is not None:
                box.end = mark.start()
                if _NOTHING.fullmatch(text, box.start, box.end) is None:
                    while boxes and boxes[-1].command > box.command:
                        boxes.pop()
                    boxes.append(box)
    bare = [_Box(m.start(), m.start("content"), m.end()) for m in _BARE_BOX.finditer(text)]
    if bare:
        boxes += [
            b for b in bare if not any(box.start <= b.command < box.end for box in boxes[-1:])
        ]
        boxes.sort(key=lambda box: box.command)
    unclosed = max((box.command for box in opened if box is not None), default=-1)
    return boxes if boxes and unclosed < boxes[-1].command else []


def _signed(content: str, before: str) -> str:
    """The content with the minus that stands right before its box."""
    if not before.endswith("-") or not (len(before) == 1 or before[-2] in " \n=($:"):
        return content
    return (
        f"-{content}"
        if re.fullmatch(r"[0-9.,]+|\\[dt]?frac\{[^{}]*\}\{[^{}]*\}", content)
        else f"-({content})"
    )


def _is_joined(between: str) -> bool:
    between = between.lstrip("}")
    return len(between) <= _MAX_BETWEEN and _JOINED.fullmatch(between) is not None


def _unboxed(content: str) -> str:
    """The content of a box that holds nothing but another box."""
    while (match := re.match(r"\\(?:boxed|fbox)\s*\{", content)) and content.endswith("}"):
        depth = 0
        for mark in _MARK.finditer(content):
            depth += bool(mark["box"] or mark["open"]) - bool(mark["close"])
            if depth == 0:
                break
        if mark.end() != len(content):
            break
        content = content[match.end() : -1].strip()
    return content


def nesting_depth(text: str) -> int:
    """How many brackets of any kind are open at once, at most; their kinds need not match."""
    return max(accumulate((c in "([{") - (c in ")]}") for c in text), default=0)
