"""Train the tiny model's tokenizer and turn problems and completions into tokens.

Training: byte-level BPE whose pre-tokenizer isolates every digit and gives the spaces around it to
its neighbours: a digit is one token wherever it stands, so copying and adding are learned once,
and " + " is one token too. Chat markup follows Phi-4-mini: `<|user|>…<|end|><|assistant|>`.
"""

from collections.abc import Iterable, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from reasoning_lab.data.batches import Example
from reasoning_lab.types import Rollout

END, PAD = "<|end|>", "<|pad|>"
THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
_SPECIAL = [PAD, END, "<|system|>", "<|user|>", "<|assistant|>"]
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
# Templates of the Llama 3 family say what day it is, where they are not told.
_DATE = "26 Jul 2024"
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

    A prompt that comes more than once, as in a group, is worked once; its list is shared.
    """
    if not prompts:
        return []
    distinct = list(dict.fromkeys(prompts))
    ids = text_tokens(tokenizer, prompt_texts(tokenizer, distinct))
    ids_of = dict(zip(distinct, ids, strict=True))
    return [ids_of[prompt] for prompt in prompts]


def prompt_texts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[str]:
    """The text of each prompt as the chat template has it."""
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    texts = tokenizer.apply_chat_template(
        chats, tokenize=False, add_generation_prompt=True, date_string=_DATE
    )
    return [str(text) for text in texts]


def completion_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each completion, the end token last."""
    return [[*ids, tokenizer.eos_token_id] for ids in text_tokens(tokenizer, texts)]


def text_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of plain text, no marks added."""
    if not texts:
        return []
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def opened_thought(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the chat template writes of the assistant's thought: `<think>` and the space behind it.

    "" where it writes none: a thought that it opens and closes, or a mark that only stands in a
    system prompt, opens nothing.
    """
    _, mark, rest = prompt_texts(tokenizer, [""])[0].rpartition(THINK_OPEN)
    return mark + rest if mark and not rest.strip() else ""


def examples_of(tokenizer: PreTrainedTokenizerBase, rollouts: Sequence[Rollout]) -> list[Example]:
    """Tokenized prompt and completion of each rollout, from its own tokens where it has them.

    A thought that the chat template opens is not opened again by the completion.
    """
    prompts = prompt_tokens(tokenizer, [rollout.problem.prompt for rollout in rollouts])
    opened = opened_thought(tokenizer)
    written = completion_tokens(
        tokenizer, [rollout.completion.text.removeprefix(opened) for rollout in rollouts]
    )
    return [
        Example(prompt, rollout.completion.token_ids or text)
        for prompt, text, rollout in zip(prompts, written, rollouts, strict=True)
    ]
