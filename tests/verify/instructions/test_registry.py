"""Every instruction: responses that follow it and that do not, by hand, and lists that are none."""

import inspect
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

import reasoning_lab.verify
from reasoning_lab.verify.instructions import (
    INSTRUCTIONS,
    InstructionError,
    followed,
    parse_instructions,
    read_instructions,
)


def is_followed(name: str, response: str, criterion: str = "strict", **arguments: Any) -> bool:
    (one,) = followed(read_instructions([{"id": name, **arguments}]), response, criterion)
    return one


JSON_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer"}},
    "required": ["name"],
    "additionalProperties": False,
}
# Id, arguments, responses that follow it, responses that do not.
TABLE: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    ("keywords:existence", {"keywords": ["Cat", "a.b"]}, ["a.b CATS"], ["cats", "cat axb"]),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, ["cats"], ["The CAT."]),
    ("keywords:frequency", {"keyword": "ab", "frequency": 2, "relation": "at least"},
     ["abAB", "ab ab ab"], ["ab"]),
    ("keywords:frequency", {"keyword": "ab", "frequency": 2, "relation": "exactly"},
     ["abAB"], ["ab", "ab ab ab"]),
    ("keywords:letter_frequency", {"letter": "A", "let_frequency": 2, "let_relation": "less than"},
     ["a", "b"], ["aA"]),
    ("keywords:letter_frequency", {"letter": "!", "let_frequency": 2, "let_relation": "at most"},
     ["!!", "x"], ["!!!"]),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"},
     ["one two three", "don't go"], ["one two"]),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "exactly"},
     ["Mr. Smith left. He ran!", "Is it 3.5? Yes."], ["One.", "A b. C d. E f."]),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2},
     ["a\n***\nb", "***\na\n***\nb\n***"], ["a", "a\n\nb", "a\n***\n***\nb"]),
    ("length_constraints:nth_paragraph_first_word",
     {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Hello"},
     ["a b\n\n\"hello, you", "a\n\nHELLO"], ["a\n\nb", "hello\n\na", "a\n\nb\n\nhello", "hello"]),
    ("detectable_content:number_placeholders", {"num_placeholders": 2},
     ["[a] and [b]"], ["[a] and [b", "[a\n] [b]"]),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["a\np. s. b"], ["PS b"]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["P.P.S bye"], ["P.S. bye"]),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2},
     ["* a\n - b", "*a\n*b\n**c**"], ["* a", "- a\n- b\n- c"]),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2},
     ["*a* **b**", "*a* *b*"], ["*a* b", "*a\nb* * *"]),
    ("detectable_format:multiple_sections", {"section_spliter": "SECTION", "num_sections": 2},
     ["SECTION 1 a SECTION 2 b"], ["SECTION 1 a", "Section 1 a Section 2 b"]),
    ("detectable_format:constrained_response", {}, ["Well. My answer is no."], ["No."]),
    ("detectable_format:json_format", {},
     ['{"a": [1]}', '```json\n{"a": 1}\n```', "null"], ["{a: 1}", 'It is {"a": 1}', "[" * 10_000]),
    ("detectable_format:title", {}, ["<<A title>>\ntext"], ["<A title>", "<< >>", "<<a\nb>>"]),
    ("combination:two_responses", {}, ["a\n******\nb", "******a******b******"],
     ["a", "a******a", "a******b******c", "a************b"]),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi."}, ["say HI. A!"], ["Hi. Say hi."]),
    ("startend:end_checker", {"end_phrase": "The end."}, ['x the END."'], ["The end. x"]),
    ("startend:quotation", {}, ['"a b"'], ['"a" b', '"']),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "exactly"},
     ["NASA and I'm", "A/B, x (HI)"], ["NASA", "A B C", "Nasa Esa"]),
    ("change_case:english_capital", {}, ["THIS IS AN ENGLISH TEXT, ALL OF IT."],
     ["THIS IS An ENGLISH TEXT.", "DAS HIER IST EIN DEUTSCHER TEXT UND NICHTS SONST."]),
    ("change_case:english_lowercase", {}, ["this is an english text, all of it."],
     ["This is an english text, all of it."]),
    ("language:response_language", {"language": "fr"},
     ["Bonjour, je suis un chat noir et je dors tout le jour."], ["Hello, I am a black cat."]),
    ("punctuation:no_comma", {}, ["a; b"], ["a, b"]),
    ("json:schema", {"schema": JSON_SCHEMA},
     ['{"name": "a"}', '{"name": "a", "age": 3.0}'],
     ['{"age": 3}', '{"name": ""}', '{"name": "a", "age": 3.5}', '{"name": "a", "b": 1}', "[]"]),
    ("json:schema", {"schema": json.dumps({"type": "array", "items": {"enum": [1, None]}})},
     ["[1, null, 1.0]", "[]"], ["[true]", "[2]", '{"a": 1}']),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "good", "bad"), TABLE, ids=[row[0] for row in TABLE])
def test_responses_follow_an_instruction_or_not(
    name: str, arguments: dict[str, Any], good: list[str], bad: list[str]
) -> None:
    assert [text for text in good if not is_followed(name, text, **arguments)] == []
    assert [text for text in [*bad, "", " \n"] if is_followed(name, text, **arguments)] == []


def test_the_table_has_every_instruction() -> None:
    assert {name for name, *_ in TABLE} == set(INSTRUCTIONS)


def test_the_loose_criterion_forgives_a_first_line_a_last_line_and_asterisks() -> None:
    quoted = 'Sure, here it is:\n"One. Two."\nI hope this helps!'
    assert not is_followed("startend:quotation", quoted)
    assert is_followed("startend:quotation", quoted, "loose")
    assert not is_followed("startend:quotation", f"{quoted}\nReally.", "loose")
    assert is_followed("startend:quotation", '*"One"*', "loose")


def test_numbers_and_nulls_of_a_table_are_read() -> None:
    # Arrow gives every dict the keys of all, and makes whole numbers floats where one is null.
    row = {"id": "length_constraints:number_words", "num_words": 2.0, "relation": "less than"}
    (instruction,) = read_instructions([{**row, "keywords": None, "letter": None}])
    assert instruction.arguments == {"num_words": 2, "relation": "less than"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "no list of 1 to 100 instructions"),
        ("punctuation:no_comma", "no list"),
        (["punctuation:no_comma"], "instruction 1 is 'punctuation:no_comma'; give it an id"),
        ([{"id": "punctuation:no_comma"}, {"id": "count:words"}], "2 has the unknown id 'count:w"),
        ([{"id": "keywords:existence"}], "'keywords:existence' lacks its argument 'keywords'"),
        ([{"id": "keywords:existence", "keywords": None}], "lacks its argument"),
        ([{"id": "punctuation:no_comma", "letter": "a"}], "no argument 'letter'; it takes none"),
        ([{"id": "keywords:existence", "keywords": "cat"}], "keywords is 'cat'; give a list"),
        ([{"id": "keywords:existence", "keywords": [""]}], "give a text"),
        ([{"id": "startend:end_checker", "end_phrase": "x" * 301}], "at most 300 characters"),
        ([{"id": "language:response_language", "language": "xx"}], "language is 'xx'; give one of"),
        ([{"id": "json:schema", "schema": "{"}], "give a JSON object or its text"),
        ([{"id": "json:schema", "schema": {"pattern": "(a+)+$"}}], "'pattern' is not checked"),
        ([{"id": "json:schema", "schema": {"type": "text"}}], "'type' is 'text'"),
        ([{"id": "json:schema", "schema": {"items": {"$ref": "#"}}}], r"'\$ref' is not checked"),
    ],
)
def test_what_is_no_list_of_instructions_is_refused(value: Any, message: str) -> None:
    with pytest.raises(InstructionError, match=message):
        read_instructions(value)


@pytest.mark.parametrize("number", [-1, 1.5, True, "3", float("nan"), float("inf"), 1e300])
def test_only_whole_numbers_count(number: Any) -> None:
    arguments = {"num_bullets": number}
    with pytest.raises(InstructionError, match="give a whole number from 0"):
        read_instructions([{"id": "detectable_format:number_bullet_lists", **arguments}])


def test_the_json_of_a_list_is_read() -> None:
    (instruction,) = parse_instructions('[{"id": "punctuation:no_comma"}]')
    assert instruction.id == "punctuation:no_comma"
    for text in ("", "{}", "[" * 100_000):
        with pytest.raises(InstructionError):
            parse_instructions(text)


# What makes the published patterns slow: many beginnings of a match that has no end.
HOSTILE = ["[", "<<", "*", "** ", "\n", " ", ". ", "p.", '"', "(((", "{", "a", "'s ", "***"]


@pytest.mark.parametrize("name", sorted(INSTRUCTIONS))
def test_no_response_takes_long(name: str) -> None:
    arguments = next(given for other, given, *_ in TABLE if other == name)
    instructions = read_instructions([{"id": name, **arguments}])
    for text in HOSTILE:
        start = time.process_time()
        followed(instructions, text * (100_000 // len(text)), "strict")
        assert time.process_time() - start < 3


def test_the_page_lists_every_id_with_its_arguments() -> None:
    page = Path(reasoning_lab.verify.__file__).with_name("DECISIONS.md").read_text(encoding="utf-8")
    section = page.partition("## Instructions")[2].partition("Where the published")[0]
    listed: dict[str, set[str]] = {}
    for ids, arguments in re.findall(r"^\| (`[a-z_]+:[^|]+) \| ([^|]*)\|", section, re.M):
        for name in re.findall(r"`([^`]+)`", ids):
            listed[name] = set(re.findall(r"`(\w+)`", arguments))
    taken = {
        name: set(inspect.signature(check).parameters) - {"response"}
        for name, check in INSTRUCTIONS.items()
    }
    # `at least` is no word for the pattern, but `exactly` is.
    assert {name: names - {"exactly"} for name, names in listed.items()} == taken
