r"""Extract the final answer from a completion's text: the first step of verification.

Most checkers take the last box, `python` a fenced program, `instructions` the whole response.

The recipe's format is `<think>...</think>` and then the answer, e.g. `\boxed{answer}`. Boxes and
programs inside a thought are drafts and don't count, whether the thought ends or not.
"""

import re
from collections.abc import Callable, Mapping
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
_FENCE = re.compile(r"(?P<indent>[ \t]*)(?P<marks>`{3,}|~{3,})[ \t]*(?P<label>[^`\n]*?)[ \t]*")
_PROGRAM_LABELS = ("", "python", "python3", "py")


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


def extract_response(text: str) -> str | None:
    """Return all text behind the thought, stripped; None where there is none."""
    return _remove_thoughts(text).strip() or None


def extract_program(text: str) -> str | None:
    """Return the content of the last fenced block of Python, or of no language.

    Only text behind the thought counts. A block that is never closed hides the blocks before it;
    an empty block and one of another language do not.

    Returns:
        The program with its indentation; None when there is no such block.
    """
    program: str | None = None
    opening: re.Match[str] | None = None
    lines: list[str] = []
    for line in _remove_thoughts(text).splitlines():
        fence = _FENCE.fullmatch(line)
        if opening is None:
            opening, lines = fence, []
        elif (
            fence is not None and not fence["label"] and fence["marks"].startswith(opening["marks"])
        ):
            if opening["label"].lower() in _PROGRAM_LABELS and any(map(str.strip, lines)):
                program = "\n".join(line.removeprefix(opening["indent"]) for line in lines)
            opening = None
        else:
            lines.append(line)
    is_open = opening is not None and opening["label"].lower() in _PROGRAM_LABELS
    return None if is_open else program


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


def boxed(answer: str) -> str:
    """Write an answer in a box."""
    return f"\\boxed{{{answer}}}"


def fenced(program: str) -> str:
    """Write a program as a block of Markdown; a text that has blocks of its own stays as it is."""
    return program if "```" in program else f"```python\n{program}\n```"


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """What an answer looks like in a completion, and how large it may be.

    Attributes:
        extract: Returns the answer in a text, or None.
        max_chars: Most characters.
        max_nesting: Most brackets that are open at once; None = any number.
        may_be_gold: Whether an answer that repeats the gold's text is correct.
    """

    extract: Callable[[str], str | None]
    max_chars: int
    max_nesting: int | None
    may_be_gold: bool = True

    def allows(self, answer: str) -> bool:
        """Return whether an answer is small enough to be checked."""
        if len(answer) > self.max_chars:
            return False
        return self.max_nesting is None or nesting_depth(answer) <= self.max_nesting


# math-verify's time doubles with each level from here on; published answers have 4 at most.
BOXED = AnswerForm(extract_answer, max_chars=2_000, max_nesting=12)
# As long as the longest completions; all that is checked of a response takes linear time.
RESPONSE = AnswerForm(extract_response, max_chars=200_000, max_nesting=None, may_be_gold=False)
# Programs are not compared but run.
PROGRAM = AnswerForm(extract_program, max_chars=50_000, max_nesting=None)
# By checker; an answer to every other checker's problems is in a box.
_ANSWER_FORMS: Mapping[str, AnswerForm] = {"instructions": RESPONSE, "python": PROGRAM}


def answer_form(checker: str) -> AnswerForm:
    """Return the form of the answers that a checker judges."""
    return _ANSWER_FORMS.get(checker, BOXED)
