"""Train a tokenizer for a model from scratch, and tokenize prompts and completions.

The tokenizer is byte-level BPE. Its pre-tokenizer isolates every digit, and the spaces around a
digit belong to its neighbours. A digit is therefore one token in every position, and " + " is one
token too. Chat markup follows Phi-4-mini: `<|user|>…<|end|><|assistant|>`.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from jinja2 import TemplateError
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from reasoning_lab.models.conversations import Chat, shown_chats
from reasoning_lab.models.markup import Markup, Span
from reasoning_lab.models.think_tags import (
    THINK_CLOSE,
    THINK_OPEN,
    TURN_ENDS,
    has_open_thought,
    strip_turn_end,
)
from reasoning_lab.types import (
    Completion,
    Example,
    Message,
    Prompt,
    Rollout,
    UserError,
    model_prompt,
)

END, PAD = "<|end|>", "<|pad|>"
_SPECIAL = [PAD, END, "<|system|>", "<|user|>", "<|assistant|>"]
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
# Templates of the Llama 3 family write today's date unless one is given.
_DATE = "26 Jul 2024"
# A placeholder prompt, to see what the template writes after it.
_PLACEHOLDER = "\ue006?\ue006"
_PRETOKENS = Regex(r" ?\p{L}+ ?| ?[^\s\p{L}\p{N}] ?|\p{N}|\s+")


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on `texts` and add the chat template and the think tags."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_PRETOKENS, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # They are no special tokens, so that decoding keeps the thought's boundaries.
    tokenizer.add_tokens([THINK_OPEN, THINK_CLOSE])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)
    fast.chat_template = _CHAT_TEMPLATE
    return fast


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Token ids of each prompt in the chat template, with the start of the assistant's turn.

    Markup in a prompt is text, never a control token. A repeated prompt, as in a group, is
    tokenized once and its list is shared.

    Raises:
        UserError: The template cannot render a prompt, or the tokenizer cannot read markup as text.
    """
    if not prompts:
        return []
    distinct = list(dict.fromkeys(prompts))
    render = partial(chat_texts, tokenizer)
    ids = Markup(tokenizer).rendered_tokens(shown_chats(distinct, render), render)
    ids_of = dict(zip(distinct, ids, strict=True))
    return [ids_of[prompt] for prompt in prompts]


def prompt_texts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> list[str]:
    """The text of each prompt in the chat template, with the start of the assistant's turn.

    Raises:
        UserError: The template cannot render a prompt.
    """
    render = partial(chat_texts, tokenizer)
    return render(shown_chats(prompts, render))


def chat_texts(tokenizer: PreTrainedTokenizerBase, chats: Sequence[Chat]) -> list[str]:
    """The text of each chat as it is, with the start of the assistant's turn.

    Raises:
        UserError: The template cannot render a chat.
    """
    plain = [[{"role": turn.role, "content": turn.content} for turn in chat] for chat in chats]
    return render_chats(tokenizer, plain, add_generation_prompt=True)


def render_chats(
    tokenizer: PreTrainedTokenizerBase,
    chats: Sequence[Sequence[Mapping[str, str]]],
    add_generation_prompt: bool,
) -> list[str]:
    """The text of each chat in the chat template, which is untrusted.

    Raises:
        UserError: The template fails, or refuses the chat.
    """
    try:
        texts = tokenizer.apply_chat_template(
            [list(map(dict, chat)) for chat in chats],
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            date_string=_DATE,
        )
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"model: its chat template cannot render a user's turn ({reason}); correct "
            "chat_template in the checkpoint's folder, or choose another checkpoint"
        ) from error
    return [str(text) for text in texts]


def template_thought(
    tokenizer: PreTrainedTokenizerBase, earlier_messages: Sequence[Message] = ()
) -> str:
    """The start of the thought that the chat template writes; empty = it opens none.

    It may depend on a system message.
    """
    (text,) = prompt_texts(tokenizer, [model_prompt(_PLACEHOLDER, earlier_messages)])
    _, mark, rest = text.rpartition(_PLACEHOLDER)[2].rpartition(THINK_OPEN)
    return mark + rest if mark and THINK_CLOSE not in rest else ""


def completion_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each completion; the end token is last unless the thought has no end.

    The only control tokens are the end token and one pair of think tags, if the text has them.
    Other markup is text. End-of-turn tokens at the end of the text are removed.
    """
    return _completion_ids(tokenizer, [Completion([], text) for text in texts], [""] * len(texts))


def tokenize_rollouts(
    tokenizer: PreTrainedTokenizerBase, rollouts: Sequence[Rollout]
) -> list[Example]:
    """`tokenize` of the prompt and the completion of each rollout."""
    prompts = [rollout.problem.model_prompt for rollout in rollouts]
    return tokenize(tokenizer, prompts, [rollout.completion for rollout in rollouts])


def tokenize(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], completions: Sequence[Completion]
) -> list[Example]:
    """Tokenize each prompt and its completion; a completion's own tokens are kept.

    A completion does not open a thought that the chat template opens. If it has no thought, it
    closes that one at once. A completion that was cut off has no end token.
    """
    texts = [
        (completion, prompt[:-1] if isinstance(prompt, tuple) else ())
        for prompt, completion in zip(prompts, completions, strict=True)
        if not completion.token_ids
    ]
    opened = {
        earlier: template_thought(tokenizer, earlier)
        for earlier in dict.fromkeys(earlier for _, earlier in texts)
    }
    text_ids = iter(
        _completion_ids(
            tokenizer,
            [completion for completion, _ in texts],
            [opened[earlier] for _, earlier in texts],
        )
    )
    return [
        Example(prompt, completion.token_ids or next(text_ids))
        for prompt, completion in zip(prompt_tokens(tokenizer, prompts), completions, strict=True)
    ]


def tokenizer_identity(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """All that decides which tokens `tokenize` gives."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    added = {str(number): str(token) for number, token in tokenizer.added_tokens_decoder.items()}
    return {
        "backend": backend.to_str() if backend else sorted(tokenizer.get_vocab().items()),
        "added": added,
        "chat_template": tokenizer.chat_template,
        "eos_token": tokenizer.eos_token,
    }


def _completion_ids(
    tokenizer: PreTrainedTokenizerBase, completions: Sequence[Completion], opened: Sequence[str]
) -> list[list[int]]:
    """Token ids of completions without tokens; `opened` are the template's starts of thoughts."""
    ends = [*TURN_ENDS, str(tokenizer.eos_token)]
    texts = [strip_turn_end(completion.text, ends) for completion in completions]
    cut_off = [
        completion.truncated or has_open_thought(text)
        for completion, text in zip(completions, texts, strict=True)
    ]
    spans = [_spans(*row) for row in zip(texts, cut_off, opened, strict=True)]
    return [
        ids if cut else [*ids, tokenizer.eos_token_id]
        for ids, cut in zip(Markup(tokenizer).tokens(spans), cut_off, strict=True)
    ]


def _spans(text: str, cut_off: bool, opened: str) -> list[Span]:
    """Spans with one opening tag, which may be in `opened`, and at most one closing tag."""
    opening, closing = Span(THINK_OPEN, markup=True), Span(THINK_CLOSE, markup=True)
    stripped = text.lstrip()
    if stripped.startswith(THINK_OPEN):
        text = _without_beginning(
            stripped.removeprefix(THINK_OPEN), opened.removeprefix(THINK_OPEN)
        )
        spans = [] if opened else [opening]
    elif THINK_CLOSE in text:
        spans = [] if opened else [opening, Span("\n")]
    elif opened and not cut_off:
        return [closing, Span(f"\n\n{text}")]
    else:
        return [Span(text)]
    thought, end, answer = text.rpartition(THINK_CLOSE)
    return [*spans, Span(thought), closing, Span(answer)] if end else [*spans, Span(answer)]


def _without_beginning(thought: str, template_text: str) -> str:
    """The thought without the text that the template wrote, or without their common white space."""
    if thought.startswith(template_text):
        return thought.removeprefix(template_text)
    leading_space = template_text[: len(template_text) - len(template_text.lstrip())]
    for character in leading_space:
        if not thought.startswith(character):
            break
        thought = thought.removeprefix(character)
    return thought
