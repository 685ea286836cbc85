r"""Marks of a format that a response must have: lists, sections, placeholders, titles, JSON.

IFEval counts most of them with regular expressions, some of which take quadratic time. These
functions count the same in linear time.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from reasoning_lab.verify.instructions.arguments import RELATIONS
from reasoning_lab.verify.instructions.json_schema import matches_schema

_CONSTRAINED_RESPONSES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_FENCES = ("```json", "```Json", "```JSON", "```")
_PLACEHOLDER = re.compile(r"\[[^\]]*\]")
_HIGHLIGHT = re.compile(r"\*([^\n*]*)\*")
_BOLD = re.compile(r"\*\*([^\n*]*)\*\*")
_POSTSCRIPTS = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}


def has_placeholders(response: str, num_placeholders: int, relation: str = "at least") -> bool:
    """So many texts in square brackets, each on one line."""
    # Without a bracket that never closes, each search ends at the next closing one.
    lines = ("".join(line.rpartition("]")[:2]) for line in response.split("\n"))
    count = sum(len(_PLACEHOLDER.findall(line)) for line in lines)
    return RELATIONS[relation](count, num_placeholders)


def has_postscript(response: str, postscript_marker: str) -> bool:
    """There is a postscript behind the marker, in any case."""
    pattern = _POSTSCRIPTS.get(postscript_marker, re.escape(postscript_marker.lower()))
    return re.search(pattern, response.lower()) is not None


def has_bullets(response: str, num_bullets: int, relation: str = "exactly") -> bool:
    """So many lines begin with `-` or with one `*`."""
    lines = [line.lstrip() for line in response.split("\n")]
    dashes = sum(line.startswith("-") for line in lines)
    stars, previous_is_bare = 0, False
    for number, line in enumerate(lines):
        # The published pattern lets a lone star take the next line with it.
        is_star = line.startswith("*") and line[1:2] != "*" and not previous_is_bare
        is_bare = is_star and line == "*"
        stars += is_star and not (is_bare and number == len(lines) - 1)
        previous_is_bare = is_bare
    return RELATIONS[relation](stars + dashes, num_bullets)


def has_highlights(response: str, num_highlights: int, relation: str = "at least") -> bool:
    """So many texts in `*` or `**` on one line."""
    texts = [*_HIGHLIGHT.findall(response), *_BOLD.findall(response)]
    return RELATIONS[relation](sum(bool(text.strip()) for text in texts), num_highlights)


def has_sections(
    response: str, section_spliter: str, num_sections: int, relation: str = "at least"
) -> bool:
    """So many sections begin with the word and a number, such as `Section 1`."""
    pattern = rf"{re.escape(section_spliter)}\s?\d"
    return RELATIONS[relation](len(re.findall(pattern, response)), num_sections)


def is_constrained_response(response: str) -> bool:
    """It holds one of the three answers that the prompt offers."""
    return any(option in response for option in _CONSTRAINED_RESPONSES)


def has_title(response: str) -> bool:
    """A line has a title in double angular brackets, `<<title>>`."""
    for line in response.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if 0 <= start < end - 2 and line[start:end].lstrip("<").rstrip(">").strip():
            return True
    return False


def is_json(response: str) -> bool:
    """All of it is JSON, but for a code fence around it."""
    return _parsed(response) is not None


def is_json_of_schema(response: str, schema: Mapping[str, Any]) -> bool:
    """All of it is JSON that the schema allows, but for a code fence around it."""
    parsed = _parsed(response)
    return parsed is not None and matches_schema(parsed[0], schema)


def _parsed(response: str) -> tuple[Any] | None:
    """The value, alone in a tuple as it may be null; None = it is not JSON."""
    text = response.strip()
    for fence in _FENCES:
        text = text.removeprefix(fence)
    text = text.removesuffix("```").strip()
    try:
        return (json.loads(text),)
    except (ValueError, RecursionError):
        return None
