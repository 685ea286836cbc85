"""Prepare a checkpoint's tokenizer and embeddings for prompts, thoughts and ends of turns.

A hub checkpoint gets what it lacks: a chat template and, before training, tokens for the think tags
and for padding. Many checkpoints have spare embedding rows without a token. Embeddings grow only
if no row is free, to a multiple of their size, and never shrink.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.models.conversations import with_system_prompt
from reasoning_lab.models.markup import Markup, plain_tokens
from reasoning_lab.models.think_tags import THINK_CLOSE, THINK_OPEN
from reasoning_lab.models.tokenizer import PAD, chat_texts, render_chats
from reasoning_lab.types import Message

# Plain words, because a base model's markup tokens are often untrained. `{start}` is its BOS token.
_PLAIN_TEMPLATE = (
    "{start}{% for message in messages %}"
    "{{ message['role'] | capitalize + ':\\n' + message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '\\n\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\\n' }}{% endif %}"
)
_ASSISTANT_TEXT = "said before the end"
_MAX_ROWS_MULTIPLE = 128


def ensure_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give `tokenizer` a chat template if it has none, and make its end token the end of a turn.

    A checkpoint's own end token often ends a document, and no assistant stops there.

    Raises:
        UserError: As `render_chats` does.
    """
    if tokenizer.chat_template is None:
        adds_bos = bool(tokenizer("")["input_ids"])
        start = "{{ bos_token }}" if adds_bos else ""
        tokenizer.chat_template = _PLAIN_TEMPLATE.replace("{start}", start)
        return
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _ASSISTANT_TEXT}]
    (text,) = render_chats(tokenizer, [chat], add_generation_prompt=False)
    (after,) = plain_tokens(tokenizer, [text.rpartition(_ASSISTANT_TEXT)[2]])
    control_ids = Markup(tokenizer).controls_in(after)
    if control_ids:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(control_ids[0])


def set_system_prompt(tokenizer: PreTrainedTokenizerBase, text: str, key: str) -> None:
    """Have the chat template begin with a system prompt where a chat has no system message.

    Args:
        tokenizer: It has a chat template, which a policy is saved with.
        text: The system prompt.
        key: The config key of the text, for the error.

    Raises:
        UserError: The template shows no such text, or fails.
    """
    templates = tokenizer.chat_template
    render = partial(chat_texts, tokenizer)
    # Of several by name, this one is for chats without tools.
    if isinstance(templates, dict):
        default = with_system_prompt(templates["default"], text, key, render)
        tokenizer.chat_template = {**templates, "default": default}
    else:
        tokenizer.chat_template = with_system_prompt(str(templates), text, key, render)
    render([(Message("user", "?"),)])


def stop_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that stop generation: the tokenizer's end token, then the model's own."""
    model_ids = getattr(model.generation_config, "eos_token_id", None)
    model_ids = [model_ids] if isinstance(model_ids, int) else model_ids or []
    return list(dict.fromkeys([tokenizer.eos_token_id, *model_ids]))


def unused_ids_mask(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Tensor | None:
    """`[V]` bool, True = an id without a token; None where every id has one."""
    rows = _embedding_weights(model)[0].shape[0]
    mask = torch.ones(rows, dtype=torch.bool)
    mask[[number for number in tokenizer.get_vocab().values() if number < rows]] = False
    return mask.to(model.device) if bool(mask.any()) else None


def add_missing_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Add the tokens that training needs: the think tags, and padding.

    The embedding of a new token starts as the mean of the tokens that its text had before.
    """
    old_vocabulary = tokenizer.get_vocab()
    tags = [tag for tag in (THINK_OPEN, THINK_CLOSE) if tag not in old_vocabulary]
    padding = [PAD] if tokenizer.pad_token_id is None else []
    pieces = plain_tokens(tokenizer, [*tags, *padding])
    # They are no special tokens, so that decoding keeps the thought's boundaries.
    tokenizer.add_tokens(tags)
    if padding:
        tokenizer.add_special_tokens({"pad_token": PAD})
    if not pieces:
        return
    vocabulary = tokenizer.get_vocab()
    _resize_embeddings(model, max(vocabulary.values()) + 1)
    added = [vocabulary[token] for token in (*tags, *padding)]
    for table in _embedding_weights(model):
        _set_rows_to_means(table, dict(zip(added, pieces, strict=True)))


def _resize_embeddings(model: PreTrainedModel, needed: int) -> None:
    """Resize the embeddings to at least `needed` rows; new rows become the mean row."""
    old_rows = _embedding_weights(model)[0].shape[0]
    if needed <= old_rows:
        return
    multiple = min(old_rows & -old_rows, _MAX_ROWS_MULTIPLE)
    model.resize_token_embeddings(needed, pad_to_multiple_of=multiple, mean_resizing=False)
    for table in _embedding_weights(model):
        _set_rows_to_means(table, dict.fromkeys(range(old_rows, table.shape[0]), range(old_rows)))


def _embedding_weights(model: PreTrainedModel) -> list[Tensor]:
    """Weights of the input and output embeddings, `[V, H]`; one tensor where they are tied."""
    modules: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
    weights = [module.weight for module in modules]
    return weights[:1] if weights[0] is weights[1] else weights


@torch.no_grad()
def _set_rows_to_means(table: Tensor, sources: dict[int, Sequence[int]]) -> None:
    """Set each row of `table` to the mean of its source rows."""
    for row, source_rows in sources.items():
        table[row] = table[list(source_rows)].float().mean(dim=0).to(table.dtype)
