"""Conversations and system prompts in the templates of many families."""

from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from reasoning_lab.data.tokens.documents import document_of
from reasoning_lab.models.chat import ensure_chat_template, set_system_prompt
from reasoning_lab.models.markup import plain_tokens
from reasoning_lab.models.tokenizer import (
    prompt_texts,
    prompt_tokens,
    template_thought,
    tokenize,
    tokenize_rollouts,
)
from reasoning_lab.types import Completion, Message, Problem, Rollout, UserError, Verdict
from tests.support.twins import FAMILIES, twin_tokenizer

TEXTS = ["the coin shows heads or tails", "so it is <think> and </think>", "user assistant 12"]
CHAT = (
    Message("system", "Be brief."),
    Message("user", "1 + 1?"),
    Message("assistant", "It is 2."),
    Message("user", "And 3 more?"),
)
QUESTION = CHAT[-1].content
KEY = "model.system_prompt"
# Their templates refuse a system message, or leave it out.
WITHOUT_SYSTEM = ("r1_distill_qwen", "opens_without_break", "opens_with_more", "gemma", "mistral")
# Text that is code where it is not escaped.
HOSTILE = (
    "{{ 1 / 0 }}",
    '"}] + messages %}{% for x in range(9) %}a{% endfor %}{{ raise_exception("no") }}',
    "' + bos_token + '",
    "{% raw %} {# a comment #}",
    'Say "yes" or \\boxed{no} \\n \\u0041\nThen\tstop \u2028 水 \U0001f600',
)


def tokenizer_of(family: str) -> PreTrainedTokenizerFast:
    """As a student's that trains; a copy."""
    return deepcopy(_tokenizer(family))


@cache
def _tokenizer(family: str) -> PreTrainedTokenizerFast:
    tokenizer = twin_tokenizer(FAMILIES[family], TEXTS)
    ensure_chat_template(tokenizer)
    tokenizer.add_tokens([t for t in ("<think>", "</think>") if t not in tokenizer.get_vocab()])
    return tokenizer


def hugging_face_text(tokenizer: PreTrainedTokenizerBase, chat: Sequence[Message]) -> str:
    text = tokenizer.apply_chat_template(
        [{"role": turn.role, "content": turn.content} for turn in chat],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert isinstance(text, str)
    return text


def controls(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Every added token among the ids."""
    added = tokenizer.added_tokens_decoder
    return [added[token].content for token in ids if token in added]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_conversation_is_what_the_template_writes_of_it(family: str) -> None:
    tokenizer = tokenizer_of(family)
    system, first, *later = CHAT
    chat: Sequence[Message] = CHAT
    if family in WITHOUT_SYSTEM:
        chat = [Message("user", f"{system.content}\n\n{first.content}"), *later]
    expected = hugging_face_text(tokenizer, chat)
    assert prompt_texts(tokenizer, [CHAT]) == [expected]
    assert prompt_tokens(tokenizer, [CHAT]) == plain_tokens(tokenizer, [expected])


def test_a_conversation_without_a_system_role_reads_so() -> None:
    assert prompt_texts(tokenizer_of("gemma"), [CHAT]) == [
        "<bos><start_of_turn>user\nBe brief.\n\n1 + 1?<end_of_turn>\n"
        "<start_of_turn>model\nIt is 2.<end_of_turn>\n"
        "<start_of_turn>user\nAnd 3 more?<end_of_turn>\n<start_of_turn>model\n"
    ]


def test_a_template_may_write_the_system_s_text_before_the_last_turn() -> None:
    tokenizer = tokenizer_of("mistral")
    tokenizer.chat_template = (
        "{% set system = messages[0]['content'] + '|' if messages[0]['role'] == 'system' else '' %}"
        "{% for m in messages if m['role'] != 'system' %}"
        "{{ system if loop.last else '' }}{{ m['content'] }};{% endfor %}"
    )
    assert prompt_texts(tokenizer, [CHAT]) == ["1 + 1?;It is 2.;Be brief.|And 3 more?;"]


@pytest.mark.parametrize("family", FAMILIES)
def test_no_content_of_a_conversation_is_a_control_token(family: str) -> None:
    tokenizer = tokenizer_of(family)
    marks = " ".join([*tokenizer.all_special_tokens, *FAMILIES[family].plain])
    attacked = tuple(Message(turn.role, f"{turn.content} {marks}!") for turn in CHAT)
    thoughts = (CHAT[0], Message("user", "</think> <think> <think>"), *CHAT[2:])
    plain, *others = prompt_tokens(tokenizer, [CHAT, attacked, thoughts])
    for ids in others:
        assert controls(tokenizer, ids) == controls(tokenizer, plain)
    if family not in WITHOUT_SYSTEM:
        assert tokenizer.decode(others[0]) == hugging_face_text(tokenizer, attacked)


@pytest.mark.parametrize(
    ("family", "shown"), [("qwen3", True), ("qwen3_hybrid", False), ("r1_distill_qwen", False)]
)
def test_the_thought_of_an_earlier_answer_is_the_template_s_to_show(
    family: str, shown: bool
) -> None:
    tokenizer = tokenizer_of(family)
    answer = "<think>\nOne and one.\n</think>\n\nIt is 2."
    chat = (CHAT[1], Message("assistant", answer), CHAT[3])
    (ids,) = prompt_tokens(tokenizer, [chat])
    assert ids == plain_tokens(tokenizer, [hugging_face_text(tokenizer, chat)])[0]
    (without,) = prompt_tokens(tokenizer, [(CHAT[1], CHAT[2], CHAT[3])])
    thoughts = controls(tokenizer, ids).count("</think>")
    assert thoughts - controls(tokenizer, without).count("</think>") == int(shown)
    assert ("One and one." in tokenizer.decode(ids)) is shown


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[-1]['content'] }}",
        "{% for m in messages | reverse %}{{ m.content }}{% endfor %}",
    ],
)
def test_a_template_that_leaves_out_or_moves_turns_is_refused(template: str) -> None:
    tokenizer = tokenizer_of("qwen3")
    tokenizer.chat_template = template
    assert prompt_texts(tokenizer, [QUESTION]) == [QUESTION]
    with pytest.raises(UserError, match=r"^model: .* \(system, user, assistant, user\); correct"):
        prompt_texts(tokenizer, [CHAT])


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_last_answer_is_trained(family: str) -> None:
    tokenizer = tokenizer_of(family)
    problem = Problem(QUESTION, "5", "math", "x", earlier_messages=CHAT[:-1])
    completion = Completion([], "<think>\n2 + 3\n</think>\n\\boxed{5}")
    rollout = Rollout(problem, completion, "5", Verdict.CORRECT, "t")
    (example,) = tokenize_rollouts(tokenizer, [rollout])
    assert [example.prompt_ids] == prompt_tokens(tokenizer, [CHAT])
    document = document_of(example)
    trained = document.token_ids[document.loss_mask].tolist()
    assert trained == list(example.completion_ids)
    opened = template_thought(tokenizer)
    written = tokenizer.decode(trained[:-1])
    assert isinstance(written, str)
    assert opened + written.removeprefix("\n") in (
        f"{opened}2 + 3\n</think>\n\\boxed{{5}}",
        "<think>\n2 + 3\n</think>\n\\boxed{5}",
    )


def test_an_earlier_answer_has_one_thought() -> None:
    tokenizer = tokenizer_of("qwen3")
    answer = "<think>One.</think><think>Two.</think> 2"
    (ids,) = prompt_tokens(tokenizer, [(CHAT[1], Message("assistant", answer), CHAT[3])])
    marks = [mark for mark in controls(tokenizer, ids) if "think" in mark]
    assert marks == ["<think>", "</think>"]
    assert "<think>One.Two.</think> 2<|im_end|>" in str(tokenizer.decode(ids))


def test_a_thought_may_be_opened_by_what_the_system_says() -> None:
    tokenizer = tokenizer_of("qwen3")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' }}"
        "{% endfor %}{{ '<|im_start|>assistant\n' }}"
        "{{ '<think>\n' if '/think' in messages[0]['content'] else '' }}"
    )
    thinking = (Message("system", "/think"), CHAT[-1])
    answer = Completion([], "<think>\n2 + 3\n</think>\n5")
    plain, opened = tokenize(tokenizer, [QUESTION, thinking], [answer, answer])
    assert tokenizer.decode(list(plain.completion_ids)) == "<think>\n2 + 3\n</think>\n5<|im_end|>"
    assert tokenizer.decode(list(opened.completion_ids)) == "2 + 3\n</think>\n5<|im_end|>"


@pytest.mark.parametrize("text", ["Be brief.", *HOSTILE])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_system_prompt_stands_where_a_system_message_would(family: str, text: str) -> None:
    tokenizer = tokenizer_of(family)
    by_message = prompt_texts(tokenizer, [(Message("system", text), CHAT[-1]), CHAT])
    set_system_prompt(tokenizer, text, KEY)
    # What data says of the system counts before it.
    assert prompt_texts(tokenizer, [QUESTION, CHAT]) == by_message
    assert text.strip() in by_message[0]
    # Other programs read the template alone.
    assert hugging_face_text(tokenizer, [CHAT[-1]]) == by_message[0]
    assert hugging_face_text(tokenizer, CHAT) == by_message[1]


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip))
def test_any_text_is_a_system_prompt(text: str) -> None:
    tokenizer = tokenizer_of("qwen3")
    set_system_prompt(tokenizer, text, KEY)
    assert prompt_texts(tokenizer, ["?"]) == [
        f"<|im_start|>system\n{text}<|im_end|>\n<|im_start|>user\n?<|im_end|>\n"
        "<|im_start|>assistant\n"
    ]


@pytest.mark.parametrize("family", ["qwen3", "gemma"])
def test_a_system_prompt_is_saved_once_and_may_be_replaced(family: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(family)
    set_system_prompt(tokenizer, "Be brief.", KEY)
    template = tokenizer.chat_template
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    ensure_chat_template(again)
    set_system_prompt(again, "Be brief.", KEY)
    assert again.chat_template == template
    set_system_prompt(again, "Be long.", KEY)
    system = Message("system", "Be long.")
    assert prompt_texts(again, ["?"]) == prompt_texts(tokenizer, [(system, Message("user", "?"))])


def test_a_system_prompt_changes_nothing_else_of_a_template() -> None:
    """Jinja leaves out a block's line break, and white space before a block that begins a line."""
    tokenizer = tokenizer_of("qwen3")
    for start in ("", "\n", "  ", "\n  ", "{%- if true %} {% endif -%}\n "):
        tokenizer.chat_template = start + (
            "{% for m in messages %}\n  {% if m.role %}\n{{ m.content }}\n  {% endif %}\n"
            "{% endfor %}\n"
        )
        expected = prompt_texts(tokenizer, [(Message("system", "s"), Message("user", "u"))])
        set_system_prompt(tokenizer, "s", KEY)
        assert prompt_texts(tokenizer, ["u"]) == expected


def test_a_named_template_gets_the_system_prompt() -> None:
    tokenizer = tokenizer_of("qwen3")
    plain = tokenizer.chat_template
    tokenizer.chat_template = {"default": plain, "tool_use": "tools"}
    set_system_prompt(tokenizer, "Be brief.", KEY)
    assert "Be brief." in prompt_texts(tokenizer, ["?"])[0]
    assert tokenizer.chat_template["tool_use"] == "tools"


def test_a_template_that_shows_no_text_has_no_system_prompt() -> None:
    tokenizer = tokenizer_of("qwen3")
    tokenizer.chat_template = "{{ messages[-1]['content'][:3] }}"
    with pytest.raises(
        UserError, match=r"^model\.system_prompt: the chat template shows it neither"
    ):
        set_system_prompt(tokenizer, "Be brief.", KEY)
