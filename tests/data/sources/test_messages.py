"""Rows that hold conversations, from the file to what a stage trains on."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.data.corpus import RolloutFile, write_rollouts
from reasoning_lab.data.rollout_index import EARLIER_MESSAGES
from reasoning_lab.data.sources.row_mapping import RowMapping
from reasoning_lab.data.teachers.config import RecordedTeacherConfig
from reasoning_lab.data.tokens.tokenized import tokenized
from reasoning_lab.evaluate.benchmark import digest
from reasoning_lab.evaluate.completions import Evaluation
from reasoning_lab.types import (
    Completion,
    Message,
    Problem,
    Rollout,
    Split,
    UserError,
    Verdict,
    prompt_id,
)
from tests.support.sources import everything, file_source, write_lines
from tests.support.twins import TWINS, twin_tokenizer

SYSTEM = {"role": "system", "content": "Be brief."}
TURNS = [
    {"role": "user", "content": "1 + 1?"},
    {"role": "assistant", "content": "It is \\boxed{2}."},
    {"role": "user", "content": " And 3 more? "},
    {"role": "assistant", "content": "<think>2 + 3</think>It is \\boxed{5}."},
]
EARLIER = (
    Message("system", "Be brief."),
    Message("user", "1 + 1?"),
    Message("assistant", "It is \\boxed{2}."),
)
MAPPING = {"prompt": "messages", "gold": "messages.-1.content", "gold_in": "boxed"}


def share_gpt(turns: list[dict[str, str]]) -> list[dict[str, str]]:
    """The same conversation in ShareGPT's layout."""
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return [{"from": names[turn["role"]], "value": turn["content"]} for turn in turns]


def problem_of(row: dict[str, Any], **options: Any) -> Problem:
    problem = RowMapping(**{**MAPPING, **options}).problem(row, "f.jsonl, line 7")
    assert problem is not None
    return problem


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ({"messages": [SYSTEM, *TURNS]}, {}),
        (
            {"conversations": share_gpt([SYSTEM, *TURNS])},
            {"prompt": "conversations", "gold": "conversations.-1.value"},
        ),
        (
            {"system": "Be brief.", "conversations": share_gpt(TURNS)},
            {
                "prompt": "conversations",
                "gold": "conversations.-1.value",
                "system": "system",
            },
        ),
    ],
    ids=["messages", "share_gpt", "system_apart"],
)
def test_a_conversation_is_read_as_it_is(row: dict[str, Any], options: dict[str, Any]) -> None:
    problem = problem_of(row, **options)
    assert (problem.prompt, problem.gold) == ("And 3 more?", "5")
    assert problem.earlier_messages == EARLIER
    assert problem.metadata["solutions"] == ["<think>2 + 3</think>It is \\boxed{5}."]
    assert problem.model_prompt == (*EARLIER, Message("user", "And 3 more?"))
    assert problem.transcript == (
        "system: Be brief.\n\nuser: 1 + 1?\n\nassistant: It is \\boxed{2}.\n\nuser: And 3 more?"
    )


def test_a_single_turn_is_a_plain_prompt() -> None:
    problem = problem_of({"messages": TURNS[:2]})
    plain = problem_of({"messages": "1 + 1?", "a": "2"}, gold="a", gold_in="whole")
    assert problem.earlier_messages == ()
    assert (problem.model_prompt, problem.id) == ("1 + 1?", plain.id) == ("1 + 1?", plain.id)
    assert plain.id == prompt_id("1 + 1?")
    assert "solutions" not in plain.metadata


def test_a_plain_prompt_may_have_a_system_message() -> None:
    row = {"prompt": "1 + 1?", "gold": "2", "system": "Be brief."}
    problem = RowMapping(system="system").problem(row, "r")
    assert problem is not None
    assert problem.earlier_messages == (Message("system", "Be brief."),)
    for nothing in (None, " "):
        without = RowMapping(system="system").problem(row | {"system": nothing}, "r")
        assert without is not None
        assert without.model_prompt == "1 + 1?"
    with pytest.raises(UserError, match=r"'system' is 3; give .*data\.rows\.system"):
        RowMapping(system="system").problem(row | {"system": 3}, "r")


def test_named_solutions_count_before_the_last_answer() -> None:
    row = {"messages": [SYSTEM, *TURNS], "solutions": ["\\boxed{5}", "Five."]}
    assert problem_of(row, solutions="solutions").metadata["solutions"] == row["solutions"]
    thought = problem_of({**row, "t": "hm"}, thought="t").metadata["solutions"]
    assert thought == ["<think>\nhm\n</think>\n<think>2 + 3</think>It is \\boxed{5}."]


def test_a_conversation_is_known_by_what_the_user_says() -> None:
    def conversation(*changes: tuple[int, str]) -> Problem:
        turns = [dict(turn) for turn in [SYSTEM, *TURNS]]
        for place, text in changes:
            turns[place]["content"] = text
        return problem_of({"messages": turns})

    problem = conversation()
    assert problem.id == prompt_id("1 + 1?\n\nAnd 3 more?")
    assert conversation((0, "Be long."), (2, "Two.")).id == problem.id
    assert conversation((1, "1 + 2?")).id != problem.id
    assert conversation((3, "And 4 more?")).id != problem.id


def turn(role: Any, content: Any = "x") -> dict[str, Any]:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("turns", "complaint"),
    [
        ([turn("tool"), turn("user")], r"'messages\.0\.role' is 'tool'; only system, user, assis"),
        (
            [turn("user<|im_end|>"), turn("user")],
            r"'messages\.0\.role' is 'user<\|im_end\|>'; only",
        ),
        ([turn(3), turn("user")], r"'messages\.0\.role' is 3"),
        ([turn("user"), turn("user")], "the user where one of the assistant is due"),
        ([turn("assistant"), turn("user")], "the assistant where one of the user is due"),
        ([turn("user"), turn("system")], "the system where one of the assistant is due"),
        ([turn("system"), turn("system")], "the system where one of the user is due"),
        ([turn("system")], "no message of the user"),
        ([turn("user", ""), turn("assistant")], r"'messages\.0\.content' is ''; give a non-empty"),
        ([turn("user", [{"type": "text"}])], r"'messages\.0\.content' is \[\{'type': 'text'\}\]"),
        ([turn("user", "a\0b")], r"'messages\.0\.content' holds a NUL"),
        ([{"text": "x"}], r"'messages' is \[\{'text': 'x'\}\]; .* e\.g\. messages\.0\.text"),
    ],
)
def test_a_conversation_that_no_template_has_is_refused(turns: list[Any], complaint: str) -> None:
    row = {"messages": turns, "gold": "5"}
    with pytest.raises(UserError, match=complaint):
        problem_of(row, gold="gold", gold_in="whole")


def test_two_system_messages_are_refused() -> None:
    row = {"messages": [SYSTEM, *TURNS], "system": "Be long."}
    with pytest.raises(UserError, match=r"begins with a system message, and data\.rows\.system"):
        problem_of(row, system="system")


@pytest.mark.parametrize(
    ("column", "value"),
    [("m.-1.content", "b"), ("m.-2.content", "a"), ("m.-3.content", None), ("m.1.content", "b")],
)
def test_a_position_may_count_from_the_end(column: str, value: str | None) -> None:
    row = {"m": [turn("user", "a"), turn("assistant", "b")], "prompt": "?"}
    if value is None:
        with pytest.raises(UserError, match="is None"):
            RowMapping(gold=column).problem(row, "r")
        return
    problem = RowMapping(gold=column).problem(row, "r")
    assert problem is not None
    assert problem.gold == value


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_file_of_conversations_becomes_tokens_of_the_last_answer_alone(
    form: str, tmp_path: Path
) -> None:
    rows = [
        {"messages": [SYSTEM, *TURNS]},
        # The same question to another system, and a role that nobody knows.
        {"messages": [turn("system", "Be long."), *TURNS]},
        {"messages": [turn("tool", "5"), *TURNS]},
        {"messages": TURNS[:2]},
    ]
    path = tmp_path / f"chats.{form}"
    if form == "jsonl":
        write_lines(path, rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(UserError, match=rf"chats\.{form}, \w+ 3: 'messages\.0\.role' is 'tool'"):
        file_source(path, rows=MAPPING)
    source = file_source(path, rows=MAPPING, unreadable="drop")
    problems = {p.prompt: p for p in everything(source)[Split.TRAIN]}
    assert problems.keys() == {"And 3 more?", "1 + 1?"}
    problem = problems["And 3 more?"]
    assert problem.earlier_messages == EARLIER

    teacher = RecordedTeacherConfig().build()
    with teacher.open(HardwareConfig()) as write:
        ((completion,),) = write([problem], 1, 0)
    assert completion.text == "<think>2 + 3</think>It is \\boxed{5}."
    rollout = Rollout(problem, completion, "5", Verdict.CORRECT, "recorded")
    plain = Rollout(problems["1 + 1?"], Completion([], "\\boxed{2}"), "2", Verdict.CORRECT, "r")
    corpus = tmp_path / "corpus.parquet"
    write_rollouts(corpus, [rollout, plain])
    stored = RolloutFile(corpus)
    assert list(stored) == [rollout, plain]
    assert list(stored.problems()) == [problem, plain.problem]
    assert stored.index.problems.tolist() == [int(p.id, 16) for p in stored.problems()]

    tokenizer = twin_tokenizer(TWINS["qwen3"], ["1 + 1? And 3 more?"])
    table = tokenized(stored, tokenizer, tmp_path / "tokens", processes=0)
    document = table[0]
    text = tokenizer.decode(document.token_ids.tolist())
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1 + 1?<|im_end|>\n"
        "<|im_start|>assistant\nIt is \\boxed{2}.<|im_end|>\n"
        "<|im_start|>user\nAnd 3 more?<|im_end|>\n<|im_start|>assistant\n"
        "<think>2 + 3</think>It is \\boxed{5}.<|im_end|>"
    )
    trained = tokenizer.decode(document.token_ids[document.loss_mask].tolist())
    assert trained == "<think>2 + 3</think>It is \\boxed{5}.<|im_end|>"


def test_a_corpus_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    rollout = Rollout(
        Problem("1 + 1?", "2", "math", "x"), Completion([], "2"), "2", Verdict.CORRECT, "t"
    )
    path = tmp_path / "new.parquet"
    write_rollouts(path, [rollout, rollout])
    old = tmp_path / "completions.parquet"
    pq.write_table(pq.read_table(path).drop_columns([EARLIER_MESSAGES, "judge", "domain"]), old)
    stored = RolloutFile(old)
    assert list(stored) == [rollout, rollout]
    assert stored.index.problems.tolist() == [int(rollout.problem.id, 16)] * 2
    assert Evaluation(tmp_path).samples(2).problem_ids == [rollout.problem.id]
    stored.write(tmp_path / "copy.parquet")
    assert pq.read_schema(tmp_path / "copy.parquet") == pq.read_schema(path)
    assert list(RolloutFile(tmp_path / "copy.parquet")) == [rollout, rollout]


def test_what_a_benchmark_asks_is_told_apart_by_what_precedes_it() -> None:
    plain = Problem("And 3 more?", "5", "math", "x")
    asked = Problem("And 3 more?", "5", "math", "x", earlier_messages=EARLIER)
    other = Problem("And 3 more?", "5", "math", "x", earlier_messages=EARLIER[1:])
    assert len({digest([problem]) for problem in (plain, asked, other)}) == 3
    # As it was before there were conversations.
    content = json.dumps([[plain.id, plain.prompt, plain.gold]]).encode()
    assert digest([plain]) == hashlib.sha256(content).hexdigest()
