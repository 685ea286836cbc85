"""Train the tiny model's tokenizer and turn problems and completions into tokens.

Training: byte-level BPE whose pre-tokenizer isolates every digit and gives the spaces around it to
its neighbours: a digit is one token wherever it stands, so copying and adding are learned once,
and " + " is one token too. Chat markup follows Phi-4-mini: `<|user|>…<|end|><|assistant|>`.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from jinja2 import TemplateError
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from reasoning_lab.models.markup import Markup, Span, plain_tokens
from reasoning_lab.models.thoughts import (
    THINK_CLOSE,
    THINK_OPEN,
    TURN_ENDS,
    is_cut_off,
    without_turn_end,
)
from reasoning_lab.types import Completion, Example, Rollout, UserError

END, PAD = "<|end|>", "<|pad|>"
_SPECIAL = [PAD, END, "<|system|>", "<|user|>", "<|assistant|>"]
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
# Templates of the Llama 3 family say what day it is, where they are not told.
_DATE = "26 Jul 2024"
# Stands for a prompt where only what the template writes behind it matters.
_QUESTION = "\ue006?\ue006"
_WORDS = Regex(r" ?\p{L}+ ?| ?[^\s\p{L}\p{N}] ?|\p{N}|\s+")


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on `texts`, with the chat template and the thinking marks."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_WORDS, "isolated"),
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
    # Text rather than control tokens, so that decoding keeps the thought's boundaries.
    tokenizer.add_tokens([THINK_OPEN, THINK_CLOSE])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)
    fast.chat_template = _CHAT_TEMPLATE
    return fast


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of each prompt as a user's turn, ready for the assistant's.

    Markup in a prompt is text, never a control token. A prompt that comes more than once, as in a
    group, is worked once; its list is shared.

    Raises:
        UserError: As `prompt_texts` does, or the tokenizer cannot read markup as text.
    """
    if not prompts:
        return []
    distinct = list(dict.fromkeys(prompts))
    ids = Markup(tokenizer).rendered_tokens(distinct, partial(prompt_texts, tokenizer))
    ids_of = dict(zip(distinct, ids, strict=True))
    return [ids_of[prompt] for prompt in prompts]


def prompt_texts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[str]:
    """The text of each prompt as the chat template has it.

    Raises:
        UserError: The template cannot render a user's turn.
    """
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    return rendered_chats(tokenizer, chats, add_generation_prompt=True)


def rendered_chats(
    tokenizer: PreTrainedTokenizerBase,
    chats: Sequence[Sequence[Mapping[str, str]]],
    add_generation_prompt: bool,
) -> list[str]:
    """The text of each chat as the chat template, which nobody here wrote, has it.

    Raises:
        UserError: The template fails or refuses.
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


def opened_thought(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the chat template writes of the assistant's thought; empty = it opens none."""
    (text,) = prompt_texts(tokenizer, [_QUESTION])
    _, mark, rest = text.rpartition(_QUESTION)[2].rpartition(THINK_OPEN)
    return mark + rest if mark and THINK_CLOSE not in rest else ""


def completion_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each completion, the end token last unless its thought never ends.

    As control tokens they have one opening and one end of the thought, where the text has them, and
    the end token. Other markup is text; marks at the end of the text that end a turn are dropped.
    """
    return _completion_ids(tokenizer, [Completion([], text) for text in texts], "")


def text_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text as the tokenizer reads it: markup becomes control tokens."""
    return plain_tokens(tokenizer, texts)


def examples_of(tokenizer: PreTrainedTokenizerBase, rollouts: Sequence[Rollout]) -> list[Example]:
    """Tokenized prompt and completion of each rollout, from its own tokens where it has them.

    A thought that the chat template opens is not opened again by the completion; a completion that
    has no thought ends it at once. One that was cut off has no end token.
    """
    prompts = prompt_tokens(tokenizer, [rollout.problem.prompt for rollout in rollouts])
    completions = [rollout.completion for rollout in rollouts]
    texts = [completion for completion in completions if not completion.token_ids]
    opened = opened_thought(tokenizer) if texts else ""
    written = iter(_completion_ids(tokenizer, texts, opened))
    return [
        Example(prompt, completion.token_ids or next(written))
        for prompt, completion in zip(prompts, completions, strict=True)
    ]


def _completion_ids(
    tokenizer: PreTrainedTokenizerBase, completions: Sequence[Completion], opened: str
) -> list[list[int]]:
    """Of completions without tokens; `opened` is what the prompt has written of the thought."""
    ends = [*TURN_ENDS, str(tokenizer.eos_token)]
    texts = [without_turn_end(completion.text, ends) for completion in completions]
    cut_off = [
        completion.truncated or is_cut_off(text)
        for completion, text in zip(completions, texts, strict=True)
    ]
    spans = [_spans(text, cut, opened) for text, cut in zip(texts, cut_off, strict=True)]
    return [
        ids if cut else [*ids, tokenizer.eos_token_id]
        for ids, cut in zip(Markup(tokenizer).tokens(spans), cut_off, strict=True)
    ]


def _spans(text: str, cut_off: bool, opened: str) -> list[Span]:
    """A completion with one opening of the thought, counting `opened`, and at most one end."""
    opening, closing = Span(THINK_OPEN, markup=True), Span(THINK_CLOSE, markup=True)
    begun = text.lstrip()
    if begun.startswith(THINK_OPEN):
        text = _without_beginning(begun.removeprefix(THINK_OPEN), opened.removeprefix(THINK_OPEN))
        spans = [] if opened else [opening]
    elif THINK_CLOSE in text:
        spans = [] if opened else [opening, Span("\n")]
    elif opened and not cut_off:
        return [closing, Span(f"\n\n{text}")]
    else:
        return [Span(text)]
    thought, end, answer = text.rpartition(THINK_CLOSE)
    return [*spans, Span(thought), closing, Span(answer)] if end else [*spans, Span(answer)]


def _without_beginning(thought: str, written: str) -> str:
    """The thought without what the template has written: all, or the white space they share."""
    if thought.startswith(written):
        return thought.removeprefix(written)
    for character in written[: len(written) - len(written.lstrip())]:
        if not thought.startswith(character):
            break
        thought = thought.removeprefix(character)
    return thought
