"""Make a checkpoint's tokenizer and embeddings fit for prompts, thoughts and ends of turns.

What a hub's checkpoint lacks is given to it: a chat template, and, once it trains, tokens for the
thinking marks and for padding. Embeddings grow only where no row is free, to a multiple of what
they were, and never shrink: many have rows to spare, which have no token.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.models.markup import Markup
from reasoning_lab.models.thoughts import THINK_CLOSE, THINK_OPEN
from reasoning_lab.models.tokenizer import PAD, rendered_chats, text_tokens

# In words, as a base model's markup tokens are often untrained. `{start}` is its first token's.
_PLAIN_TEMPLATE = (
    "{start}{% for message in messages %}"
    "{{ message['role'] | capitalize + ':\\n' + message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '\\n\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\\n' }}{% endif %}"
)
_SAID = "said before the end"
_MOST_ROWS_MULTIPLE = 128


def complete_chat(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give `tokenizer` a chat template if it has none, and as its end token the one of a turn.

    A checkpoint's own end token is often that of a document, at which no assistant stops.

    Raises:
        UserError: As `rendered_chats` does.
    """
    if tokenizer.chat_template is None:
        starts = bool(tokenizer("")["input_ids"])
        start = "{{ bos_token }}" if starts else ""
        tokenizer.chat_template = _PLAIN_TEMPLATE.replace("{start}", start)
        return
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _SAID}]
    (text,) = rendered_chats(tokenizer, [chat], add_generation_prompt=False)
    (after,) = text_tokens(tokenizer, [text.rpartition(_SAID)[2]])
    controls = Markup(tokenizer).controls_in(after)
    if controls:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(controls[0])


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens at which generation stops: the one that training writes, then the model's own."""
    own = getattr(model.generation_config, "eos_token_id", None)
    own = [own] if isinstance(own, int) else own or []
    return list(dict.fromkeys([tokenizer.eos_token_id, *own]))


def tokenless(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Tensor | None:
    """`[V]` bool, True = an id that stands for no token; None where each one does."""
    rows = _tables(model)[0].shape[0]
    mask = torch.ones(rows, dtype=torch.bool)
    mask[[number for number in tokenizer.get_vocab().values() if number < rows]] = False
    return mask.to(model.device) if bool(mask.any()) else None


def add_missing_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give both what training needs and they lack: the thinking marks, and padding.

    A new token begins as the mean of the tokens that its text was written with.
    """
    known = tokenizer.get_vocab()
    marks = [mark for mark in (THINK_OPEN, THINK_CLOSE) if mark not in known]
    padding = [PAD] if tokenizer.pad_token_id is None else []
    pieces = text_tokens(tokenizer, [*marks, *padding])
    # Text rather than control tokens, so that decoding keeps the thought's boundaries.
    tokenizer.add_tokens(marks)
    if padding:
        tokenizer.add_special_tokens({"pad_token": PAD})
    if not pieces:
        return
    vocabulary = tokenizer.get_vocab()
    _grow(model, max(vocabulary.values()) + 1)
    added = [vocabulary[token] for token in (*marks, *padding)]
    for table in _tables(model):
        _as_means(table, dict(zip(added, pieces, strict=True)))


def _grow(model: PreTrainedModel, needed: int) -> None:
    """At least `needed` rows; those that are nobody's become the mean row."""
    had = _tables(model)[0].shape[0]
    if needed <= had:
        return
    multiple = min(had & -had, _MOST_ROWS_MULTIPLE)
    model.resize_token_embeddings(needed, pad_to_multiple_of=multiple, mean_resizing=False)
    for table in _tables(model):
        _as_means(table, dict.fromkeys(range(had, table.shape[0]), range(had)))


def _tables(model: PreTrainedModel) -> list[Tensor]:
    """Weights of the input and output embeddings, `[V, H]`; once where they are tied."""
    modules: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
    both = [module.weight for module in modules]
    return both[:1] if both[0] is both[1] else both


@torch.no_grad()
def _as_means(table: Tensor, pieces: dict[int, Sequence[int]]) -> None:
    for row, of in pieces.items():
        table[row] = table[list(of)].float().mean(dim=0).to(table.dtype)
