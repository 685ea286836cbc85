"""The rows that an engine decodes together, and the keys and values that they have read."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from reasoning_lab.kernels.fused_decoder import FusedDecoder
from reasoning_lab.kernels.logit_chunks import most_chunk_tokens

# Beyond what is filled. Little is memory that stays empty, a fixed number would copy the cache of
# a long completion again and again.
_ROOM_FRAC = 0.25
_LEAST_ROOM_TOKENS = 16


class Decoding:
    """Prompts, read, and the tokens drawn for them so far.

    A prompt that several rows share, as in a group, is read once. Shorter prompts are padded on
    the left.

    Args:
        model: In eval mode.
        decoder: Reads single tokens with the same weights; None = the model reads them too.
        prompts: Token ids of each row's prompt.
        pad_id: Fills up shorter prompts.

    Attributes:
        rows: `[R]` int64, each row's place in `prompts`.
        logits: `[R, V]` float32, of each row's next token.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        decoder: FusedDecoder | None,
        prompts: Sequence[Sequence[int]],
        pad_id: int,
    ) -> None:
        self._model = model
        self._decoder = decoder
        self._cache = Cache(layer_class_to_replicate=BufferedLayer)
        distinct = list(dict.fromkeys(tuple(prompt) for prompt in prompts))
        width = max(len(prompt) for prompt in distinct)
        padded = [[pad_id] * (width - len(prompt)) + list(prompt) for prompt in distinct]
        real = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in distinct]
        self._mask = torch.tensor(real, device=model.device)  # [R, P] int64
        self._positions = self._mask.sum(dim=1)  # [R] int64, the next token's
        positions = (self._mask.cumsum(1) - 1).clamp(min=0)
        self.logits = self._read(torch.tensor(padded, device=model.device), positions)
        place = {prompt: number for number, prompt in enumerate(distinct)}
        spread = [place[tuple(prompt)] for prompt in prompts]
        self.rows = torch.arange(len(distinct), device=model.device)
        if len(distinct) < len(prompts):
            self.select(torch.tensor(spread, device=model.device))
            self.rows = torch.arange(len(prompts), device=model.device)

    def append(self, tokens: Tensor) -> None:
        """Read the token drawn for each row, `[R] int64`."""
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        if self._decoder is None:
            self.logits = self._read(tokens[:, None], self._positions[:, None])
        else:
            self.logits = self._decoder.logits(
                tokens, self._positions, self._mask, self._cache.layers
            )
        self._positions = self._positions + 1

    def select(self, index: Tensor) -> None:
        """Go on with the rows of `index`, `[R'] int64`; one may come more than once."""
        self.rows, self.logits = self.rows[index], self.logits[index]
        self._mask, self._positions = self._mask[index], self._positions[index]
        self._cache.batch_select_indices(index)

    def _read(self, tokens: Tensor, positions: Tensor) -> Tensor:
        output = self._model(
            input_ids=tokens,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        last: Tensor = output.logits[:, -1].float()
        return last


class Rereading:
    """As `Decoding` without a cache: each token is read with all that stands before it.

    Right for every causal model, and slow: a completion of n tokens costs n forward passes over
    all of it. Shorter rows are padded on the right, where no token sees the padding.

    Args:
        model: In eval mode.
        prompts: Token ids of each row's prompt.
        pad_id: Fills up shorter rows.

    Attributes:
        rows: As in `Decoding`.
        logits: As in `Decoding`.
    """

    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], pad_id: int
    ) -> None:
        self._model = model
        self._pad_id = pad_id
        self._texts = [list(prompt) for prompt in prompts]
        self.rows = torch.arange(len(prompts), device=model.device)
        self.logits = self._read()

    def append(self, tokens: Tensor) -> None:
        """Read the token drawn for each row, `[R] int64`."""
        for text, token in zip(self._texts, tokens.tolist(), strict=True):
            text.append(token)
        self.logits = self._read()

    def select(self, index: Tensor) -> None:
        """Go on with the rows of `index`, `[R'] int64`."""
        self.rows, self.logits = self.rows[index], self.logits[index]
        self._texts = [list(self._texts[row]) for row in index.tolist()]

    def _read(self) -> Tensor:
        width = max(len(text) for text in self._texts)
        padded = [text + [self._pad_id] * (width - len(text)) for text in self._texts]
        device = self._model.device
        tokens = torch.tensor(padded, device=device)
        last = torch.tensor([len(text) - 1 for text in self._texts], device=device)
        vocab: int = self._model.config.get_text_config().vocab_size
        at_once = max(1, most_chunk_tokens(vocab, device.type == "cpu") // width)
        parts = zip(tokens.split(at_once), last.split(at_once), strict=True)
        return torch.cat([self._last_logits(*part) for part in parts])

    def _last_logits(self, tokens: Tensor, last: Tensor) -> Tensor:
        logits: Tensor = self._model(input_ids=tokens, use_cache=False).logits
        return logits[torch.arange(len(last), device=last.device), last].float()


class BufferedLayer(DynamicLayer):
    """Keys and values of one layer, written into a buffer with room to spare.

    transformers' own layer copies the whole cache with every token, which takes most of the
    time of a small model. `keys` and `values` are views of the buffer's filled part.
    """

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self._key_buffer = key_states.new_empty((*key_states.shape[:-2], 0, key_states.shape[-1]))
        self._value_buffer = value_states.new_empty(
            (*value_states.shape[:-2], 0, value_states.shape[-1])
        )

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self._key_buffer.shape[-2]:
            tokens = end + max(_LEAST_ROOM_TOKENS, int(_ROOM_FRAC * end))
            self._key_buffer = _grown(self._key_buffer, start, tokens)
            self._value_buffer = _grown(self._value_buffer, start, tokens)
        self._key_buffer[..., start:end, :] = key_states
        self._value_buffer[..., start:end, :] = value_states
        self.keys = self._key_buffer[..., :end, :]
        self.values = self._value_buffer[..., :end, :]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        end = self.get_seq_length()
        self._key_buffer = self._key_buffer[indices]
        self._value_buffer = self._value_buffer[indices]
        self.keys = self._key_buffer[..., :end, :]
        self.values = self._value_buffer[..., :end, :]


def _grown(buffer: Tensor, filled: int, tokens: int) -> Tensor:
    """A buffer of `tokens` positions whose first `filled` are the old one's."""
    larger = buffer.new_empty((*buffer.shape[:-2], tokens, buffer.shape[-1]))
    larger[..., :filled, :] = buffer[..., :filled, :]
    return larger
