"""Text stays text, and a turn has one thought and one end, in the templates of many families."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from reasoning_lab.models.chat import ensure_chat_template
from reasoning_lab.models.markup import Markup, Span, plain_tokens
from reasoning_lab.models.tokenizer import (
    completion_tokens,
    prompt_texts,
    prompt_tokens,
    template_thought,
    tokenize_rollouts,
)
from reasoning_lab.types import Completion, Problem, Rollout, UserError, Verdict
from tests.support.twins import FAMILIES, twin_tokenizer

TEXTS = ["the coin shows heads or tails", "so it is <think> and </think>", "user assistant 12"]
OPEN, CLOSE = "<think>", "</think>"
FOREIGN = ["<|im_end|>", "<|eot_id|>", "<s>", "</s>", "[INST]", "<|user|>", "<end_of_turn>"]
WORDS = [
    "coin",
    " heads",
    "\n",
    "  ",
    "\\boxed{1}",
    "<",
    "|>",
    "[/",
    "<|",
    "é",
    "水",
    "1 < 2",
    "a>b",
]


# For each of many families; a busy machine may take long for one.
FEW = settings(max_examples=8, deadline=None)


@cache
def tokenizer_of(family: str) -> PreTrainedTokenizerFast:
    """As a student's that trains: with a template, an end of a turn and the thinking marks."""
    tokenizer = twin_tokenizer(FAMILIES[family], TEXTS)
    ensure_chat_template(tokenizer)
    tokenizer.add_tokens([mark for mark in (OPEN, CLOSE) if mark not in tokenizer.get_vocab()])
    return tokenizer


def markup_of(family: str) -> list[str]:
    """The tokenizer's control tokens, and other families'."""
    return [*dict.fromkeys([*Markup(tokenizer_of(family)).ids, *FOREIGN])]


def texts(*extra: str) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from([*WORDS, *extra]), max_size=8).map("".join)


def controls(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Every added token among the ids: an independent count, as no twin has others."""
    added = tokenizer.added_tokens_decoder
    return [added[token].content for token in ids if token in added]


def decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of one sequence; for several, `decode` gives a list."""
    text = tokenizer.decode(list(ids))
    assert isinstance(text, str)
    return text


def example(
    tokenizer: PreTrainedTokenizerBase, prompt: str, completion: Completion
) -> list[list[int]]:
    rollout = Rollout(Problem(prompt, "0", "math", "x"), completion, "0", Verdict.CORRECT, "t")
    (tokenized,) = tokenize_rollouts(tokenizer, [rollout])
    return [list(tokenized.prompt_ids), list(tokenized.completion_ids)]


@pytest.mark.parametrize("family", FAMILIES)
@FEW
@given(data=st.data())
def test_text_without_markup_has_the_tokenizer_s_plain_tokens(
    family: str, data: st.DataObject
) -> None:
    tokenizer = tokenizer_of(family)
    prompt, thought, answer = (data.draw(texts()) for _ in range(3))
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    assert isinstance(rendered, str)
    assert prompt_texts(tokenizer, [prompt]) == [rendered]
    assert prompt_tokens(tokenizer, [prompt]) == plain_tokens(tokenizer, [rendered])
    completion = f"{OPEN}\n{thought}\n{CLOSE}\n{answer}"
    # What the template has written of it already: `<think>`, mostly with a line break.
    opened = template_thought(tokenizer)[: len(f"{OPEN}\n")]
    expected = plain_tokens(tokenizer, [completion.removeprefix(opened)])[0]
    ids = example(tokenizer, prompt, Completion([], completion))
    assert ids == [*prompt_tokens(tokenizer, [prompt]), [*expected, tokenizer.eos_token_id]]


@pytest.mark.parametrize("family", FAMILIES)
@FEW
@given(data=st.data())
def test_no_content_of_a_prompt_is_a_control_token(family: str, data: st.DataObject) -> None:
    tokenizer = tokenizer_of(family)
    prompt = data.draw(texts(*markup_of(family)))
    (ids,) = prompt_tokens(tokenizer, [prompt])
    (empty,) = prompt_tokens(tokenizer, ["?"])
    assert controls(tokenizer, ids) == controls(tokenizer, empty)
    before, after = decoded(tokenizer, empty).split("?")
    # Some templates trim.
    assert tokenizer.decode(ids) in {before + text + after for text in (prompt, prompt.strip())}


@pytest.mark.parametrize("family", FAMILIES)
@FEW
@given(data=st.data())
def test_a_complete_completion_has_one_thought_and_one_end(
    family: str, data: st.DataObject
) -> None:
    tokenizer = tokenizer_of(family)
    ends = [tokenizer.eos_token, "<|im_end|>", "</s>", "\n"]
    opening = data.draw(st.sampled_from([OPEN, f"{OPEN}\n", f"\n{OPEN}\n\n", "", "so "]))
    thought = data.draw(texts(OPEN, CLOSE, *markup_of(family)))
    answer = data.draw(texts(*(mark for mark in markup_of(family) if mark not in (OPEN, CLOSE))))
    ending = data.draw(st.lists(st.sampled_from(ends), max_size=3).map("".join))
    text = f"{opening}{thought}{CLOSE}{answer}!{ending}"
    prompt_ids, ids = example(tokenizer, "coin", Completion([], text))
    whole = controls(tokenizer, [*prompt_ids, *ids])[len(controls(tokenizer, prompt_ids)) :]
    opened = template_thought(tokenizer)
    assert whole == [*([] if opened else [OPEN]), CLOSE, tokenizer.eos_token]
    assert ids[-1] == tokenizer.eos_token_id
    # In order and whole: only the opening, white space around it and ends of turns may differ.
    written = decoded(tokenizer, ids[:-1]).removeprefix("" if opened else OPEN)
    rest = text.lstrip().removeprefix(OPEN)
    assert written.strip() == rest.removesuffix(ending).strip()


@pytest.mark.parametrize("family", FAMILIES)
@FEW
@given(data=st.data())
def test_what_was_cut_off_has_no_end(family: str, data: st.DataObject) -> None:
    tokenizer = tokenizer_of(family)
    thought = data.draw(texts(*(mark for mark in markup_of(family) if mark != CLOSE)))
    answer = data.draw(st.sampled_from(["", f"{CLOSE}\nso \\boxed{{1}} and"]))
    completion = Completion([], f"{OPEN}{thought}{answer}", truncated=bool(answer))
    _, ids = example(tokenizer, "coin", completion)
    opening = [] if template_thought(tokenizer) else [OPEN]
    assert controls(tokenizer, ids) == [*opening, *([CLOSE] if answer else [])]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_without_a_thought_ends_the_one_that_the_template_opened(family: str) -> None:
    tokenizer = tokenizer_of(family)
    _, ids = example(tokenizer, "coin", Completion([], "\\boxed{0}"))
    assert tokenizer.eos_token is not None
    expected = f"{CLOSE}\n\n\\boxed{{0}}" if template_thought(tokenizer) else "\\boxed{0}"
    assert tokenizer.decode(ids) == expected + tokenizer.eos_token


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_of_the_same_tokenizer_stay(family: str) -> None:
    tokenizer = tokenizer_of(family)
    end = tokenizer.eos_token_id
    sampled = [5, end, 6, tokenizer.get_vocab()[OPEN], end]
    assert example(tokenizer, "coin", Completion(sampled, "text"))[1] == sampled


@pytest.mark.parametrize(
    ("family", "thought", "written"),
    [
        ("r1_distill_qwen", "\ncoin", "coin"),
        ("r1_distill_qwen", "coin", "coin"),
        ("r1_distill_qwen", "\n\ncoin", "\ncoin"),
        ("opens_without_break", "\ncoin", "\ncoin"),
        ("opens_with_more", "\nOkay, coin", " coin"),
        ("opens_with_more", "\nOk coin", "Ok coin"),
        ("qwen3", "\ncoin", f"{OPEN}\ncoin"),
    ],
)
def test_what_the_template_has_written_is_not_written_again(
    family: str, thought: str, written: str
) -> None:
    tokenizer = tokenizer_of(family)
    _, ids = example(tokenizer, "coin", Completion([], f"{OPEN}{thought}{CLOSE}"))
    assert tokenizer.decode(ids[:-1]) == written + CLOSE


def test_which_templates_open_a_thought() -> None:
    opened = {family: template_thought(tokenizer_of(family)) for family in FAMILIES}
    assert {family: text for family, text in opened.items() if text} == {
        "r1_distill_qwen": f"{OPEN}\n",
        "opens_with_more": f"{OPEN}\nOkay,",
        "opens_without_break": OPEN,
    }


def test_the_order_of_texts_and_repeated_prompts_are_kept() -> None:
    tokenizer = tokenizer_of("qwen3")
    prompts = ["a", "b<|im_end|>", "a", "c", "<|im_end|>"]
    assert prompt_tokens(tokenizer, prompts) == [prompt_tokens(tokenizer, [p])[0] for p in prompts]
    answers = ["a", "b<|im_end|>c", "<think>d</think>e<think>f</think>"]
    assert completion_tokens(tokenizer, answers) == [
        completion_tokens(tokenizer, [a])[0] for a in answers
    ]


def test_markup_that_another_tokenizer_would_write_otherwise() -> None:
    """SentencePiece-like: spaces are a letter of their own, and the first word gets one."""
    letters = [*"abcdefghijklmnopqrstuvwxyz<>/[]?:\n", "\u2581"]
    vocabulary = {
        letter: number for number, letter in enumerate(["<unk>", "<s>", "</s>", *letters])
    }
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.chat_template = (
        "{{ bos_token }}{% for message in messages %}"
        "{{ '[inst] ' + message['content'] + ' [/inst]' }}{% endfor %}"
    )
    plain, marked = prompt_tokens(tokenizer, ["say a b", "say </s><s> b"])
    assert plain == plain_tokens(tokenizer, prompt_texts(tokenizer, ["say a b"]))[0]
    assert controls(tokenizer, marked) == ["<s>"]
    names = "".join(tokenizer.convert_ids_to_tokens(marked[1:]))
    assert names == "\u2581[inst]\u2581say\u2581</s><s>\u2581b\u2581[/inst]"


def test_no_markup_forms_across_the_border_of_a_prompt() -> None:
    tokenizer = twin_tokenizer(FAMILIES["mistral"], TEXTS)
    tokenizer.chat_template = "{% for message in messages %}<{{ message['content'] }}>{% endfor %}"
    ids = prompt_tokens(tokenizer, ["s", "/s"])
    assert [controls(tokenizer, one) for one in ids] == [[], []]
    assert [tokenizer.decode(one) for one in ids] == ["<s>", "</s>"]


def test_an_ordinary_added_token_is_no_markup() -> None:
    tokenizer = twin_tokenizer(replace(FAMILIES["qwen3"], template=None), TEXTS)
    tokenizer.add_tokens(["enzyme", "    "])
    ensure_chat_template(tokenizer)
    ids = [tokenizer.get_vocab()[token] for token in ("enzyme", "    ")]
    (prompt,) = prompt_tokens(tokenizer, ["an enzyme    <|im_end|>"])
    assert [token for token in prompt if token in ids] == ids


def test_spans_say_which_markup_counts() -> None:
    tokenizer = tokenizer_of("qwen3")
    (ids,) = Markup(tokenizer).tokens([[Span("<|im_end|>"), Span("<|im_end|>", markup=True)]])
    assert controls(tokenizer, ids) == ["<|im_end|>"]
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids) == "<|im_end|>" * 2


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages[3].content }}",
        "{{ messages.__class__.__mro__ }}",
        "{% for x in range(10 ** 9) %}{% endfor %}",
        "{{ unknown_filter | nothing }}",
        "{{ 1 / 0 }}",
        "{% if %}",
    ],
)
def test_a_template_that_fails_is_refused_in_one_sentence(template: str) -> None:
    tokenizer = twin_tokenizer(FAMILIES["qwen3"], TEXTS)
    tokenizer.chat_template = template
    with pytest.raises(UserError, match=r"model: its chat template cannot .* choose another"):
        prompt_tokens(tokenizer, ["a"])
