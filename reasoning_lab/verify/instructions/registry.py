"""The ids of the instructions, the function of each, and how a list of them is read."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from reasoning_lab.types import Problem
from reasoning_lab.verify.instructions import counts, formats, keywords, language
from reasoning_lab.verify.instructions.arguments import read_argument

# The ids of IFEval, and `json:schema`, which is the lab's own.
INSTRUCTIONS: Mapping[str, Callable[..., bool]] = {
    "change_case:capital_word_frequency": counts.has_capital_words,
    "change_case:english_capital": language.is_english_in_capitals,
    "change_case:english_lowercase": language.is_english_in_small_letters,
    "combination:repeat_prompt": keywords.repeats_prompt,
    "combination:two_responses": keywords.has_two_responses,
    "detectable_content:number_placeholders": formats.has_placeholders,
    "detectable_content:postscript": formats.has_postscript,
    "detectable_format:constrained_response": formats.is_constrained_response,
    "detectable_format:json_format": formats.is_json,
    "detectable_format:multiple_sections": formats.has_sections,
    "detectable_format:number_bullet_lists": formats.has_bullets,
    "detectable_format:number_highlighted_sections": formats.has_highlights,
    "detectable_format:title": formats.has_title,
    "json:schema": formats.is_json_of_schema,
    "keywords:existence": keywords.has_keywords,
    "keywords:forbidden_words": keywords.has_no_forbidden_words,
    "keywords:frequency": keywords.has_keyword_count,
    "keywords:letter_frequency": keywords.has_letter_count,
    "language:response_language": language.is_in_language,
    "length_constraints:nth_paragraph_first_word": counts.has_nth_paragraph_beginning,
    "length_constraints:number_paragraphs": counts.has_paragraph_count,
    "length_constraints:number_sentences": counts.has_sentence_count,
    "length_constraints:number_words": counts.has_word_count,
    "punctuation:no_comma": keywords.has_no_comma,
    "startend:end_checker": keywords.ends_with,
    "startend:quotation": keywords.is_quoted,
}
# The name of the checker, and of the metadata where another checker judges the answer.
CHECKER = "instructions"
_MAX_INSTRUCTIONS = 100
_SHOWN_CHARS = 60


class InstructionError(ValueError):
    """An instruction that cannot be checked; the message names its place, id or argument."""


@dataclass(frozen=True)
class Instruction:
    """One instruction on the form of a response.

    Attributes:
        id: A key of `INSTRUCTIONS`.
        arguments: What its function takes beside the response.
    """

    id: str
    arguments: Mapping[str, Any]

    def is_followed(self, response: str) -> bool:
        """Whether a response follows it; an empty one follows none."""
        return bool(response.strip()) and INSTRUCTIONS[self.id](response, **self.arguments)

    def is_loosely_followed(self, response: str) -> bool:
        """IFEval's loose criterion: without asterisks, the first line or the last, it follows."""
        return any(map(self.is_followed, _loose_variants(response)))


def followed(instructions: Sequence[Instruction], response: str, criterion: str) -> list[bool]:
    """Whether a response follows each instruction, in order.

    Args:
        instructions: Of one problem.
        response: All of what the model answers, without its thought.
        criterion: `strict` or `loose`, as in IFEval.
    """
    if criterion == "loose":
        return [instruction.is_loosely_followed(response) for instruction in instructions]
    return [instruction.is_followed(response) for instruction in instructions]


def instructions_of(problem: Problem) -> tuple[Instruction, ...]:
    """The instructions of a problem: its gold, or beside another checker's gold its metadata.

    Raises:
        InstructionError: They cannot be read.
    """
    if problem.checker == CHECKER:
        return parse_instructions(problem.gold)
    listed = problem.metadata.get(CHECKER)
    if listed is None:
        return ()
    return parse_instructions(listed) if isinstance(listed, str) else read_instructions(listed)


def read_instructions(value: Any) -> tuple[Instruction, ...]:
    """Read a list of instructions, each a mapping of its `id` and its arguments.

    An argument of null counts as none, as a table has a column for every argument of any row.

    Raises:
        InstructionError: It is no such list, an id is unknown, or an argument is missing, unknown
            or impossible.
    """
    is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    if not is_list or not 1 <= len(value) <= _MAX_INSTRUCTIONS:
        raise InstructionError(
            f"{_shown(value)} is no list of 1 to {_MAX_INSTRUCTIONS} instructions"
        )
    return tuple(_read(item, place) for place, item in enumerate(value, start=1))


@lru_cache(maxsize=1024)
def parse_instructions(text: str) -> tuple[Instruction, ...]:
    """Read the JSON of a list of instructions, as the gold of the checker `instructions`.

    Raises:
        InstructionError: It is no JSON, or as in `read_instructions`.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise InstructionError(f"{_shown(text)} is no JSON of a list of instructions") from None
    return read_instructions(value)


def _read(item: Any, place: int) -> Instruction:
    if not isinstance(item, Mapping) or not isinstance(item.get("id"), str):
        raise InstructionError(f"instruction {place} is {_shown(item)}; give it an id")
    name = item["id"]
    if name not in INSTRUCTIONS:
        raise InstructionError(f"instruction {place} has the unknown id {_shown(name)}")
    parameters = list(inspect.signature(INSTRUCTIONS[name]).parameters.values())[1:]
    required = [one.name for one in parameters if one.default is inspect.Parameter.empty]
    known = [one.name for one in parameters]
    given = {key: value for key, value in item.items() if key != "id" and value is not None}
    for key in given:
        if key not in known:
            listed = ", ".join(known) or "none"
            raise InstructionError(f"'{name}' has no argument {_shown(key)}; it takes {listed}")
    for key in required:
        if key not in given:
            raise InstructionError(f"'{name}' lacks its argument '{key}'")
    try:
        return Instruction(name, {key: read_argument(key, value) for key, value in given.items()})
    except ValueError as error:
        raise InstructionError(f"'{name}': {error}") from None


def _loose_variants(response: str) -> list[str]:
    """The eight texts of IFEval's loose criterion, the response first."""
    lines = response.split("\n")
    texts = [response]
    texts += ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    return list(dict.fromkeys([*texts, *(text.replace("*", "") for text in texts)]))


def _shown(value: Any) -> str:
    return repr(value)[:_SHOWN_CHARS]
