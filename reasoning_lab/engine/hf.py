"""Generation with a transformers model in this process.

Prompts are sorted by length and padded on the left; rows that have ended leave the batch,
so the last long completions don't keep the finished ones company. Each row draws from its
own stream of uniform numbers by inverting the cumulative distribution.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import Cache, DynamicLayer

from reasoning_lab.engine import Sampling
from reasoning_lab.models.policy import device_of, load_policy, on_device
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.schema import HardwareConfig
from reasoning_lab.types import Completion

# Copying the cache to drop rows pays once a quarter of them has ended.
_COMPACT_BELOW_FRAC = 0.75
_CACHE_GROWTH_TOKENS = 64
# So many of the likeliest tokens nearly always hold top_p; else the whole vocabulary is sorted.
_LIKELY_TOKENS = 32


class HFEngine:
    """Samples from a causal language model; the model is borrowed, never changed.

    Args:
        model: On any device; put into eval mode while it generates.
        tokenizer: Gives the end token, the padding and the decoding.
        batch_size: Most rows decoded together; memory grows with it, results do not change.
        on_progress: Called with the number of completions as they end.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._on_progress = on_progress

    def generate(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        return self.complete(prompt_tokens(self._tokenizer, prompts), sampling, seeds)

    def close(self) -> None:
        """Let go of the model."""
        del self._model

    def complete(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """As `generate`, from token ids."""
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]), reverse=True)
        completions: dict[int, Completion] = {}
        was_training = self._model.training
        self._model.eval()
        try:
            for start in range(0, len(order), self._batch_size):
                rows = order[start : start + self._batch_size]
                drawn = self._generate_batch(
                    [prompts[row] for row in rows], sampling, [seeds[row] for row in rows]
                )
                completions.update(zip(rows, drawn, strict=True))
                self._on_progress(len(rows))
        finally:
            self._model.train(was_training)
        return [completions[row] for row in range(len(prompts))]

    @torch.inference_mode()
    def _generate_batch(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        device = self._model.device
        end_id = self._tokenizer.eos_token_id
        state = _Decoding.start(prompts, self._tokenizer.pad_token_id, device)
        uniforms = _uniforms(seeds, sampling.max_new_tokens).to(device)
        tokens = torch.full((len(prompts), sampling.max_new_tokens), end_id, device=device)
        logprobs = torch.zeros(tokens.shape, device=device)
        lengths = torch.full((len(prompts),), sampling.max_new_tokens, device=device)
        ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)
        for step in range(sampling.max_new_tokens):
            rows = state.rows
            drawn, drawn_logprobs = sample(
                state.logits(self._model), sampling, uniforms[rows, step]
            )
            alive = ~ended[rows]
            tokens[rows, step] = torch.where(alive, drawn, end_id)
            logprobs[rows, step] = drawn_logprobs
            stopping = alive & (drawn == end_id)
            lengths[rows[stopping]] = step + 1
            ended[rows[stopping]] = True
            alive = alive & ~stopping
            alive_count = int(alive.sum())
            if alive_count == 0:
                break
            if alive_count < _COMPACT_BELOW_FRAC * len(rows):
                state.keep(alive)
                drawn = drawn[alive]
            state.append(drawn)
        return self._completions(tokens, logprobs, lengths, ended)

    def _completions(
        self, tokens: Tensor, logprobs: Tensor, lengths: Tensor, ended: Tensor
    ) -> list[Completion]:
        token_lists = [
            row[:length] for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True)
        ]
        texts = self._tokenizer.batch_decode(token_lists, skip_special_tokens=True)
        return [
            Completion(ids, text, row[: len(ids)], truncated=not stopped)
            for ids, text, row, stopped in zip(
                token_lists, texts, logprobs.tolist(), ended.tolist(), strict=True
            )
        ]


def engine_of(model: str, revision: str | None, dtype: str, hardware: HardwareConfig) -> HFEngine:
    """An engine with a model of its own.

    Args:
        model: A Hugging Face folder or hub id.
        revision: The hub commit.
        dtype: float32 or bfloat16.
        hardware: Its device and the rows decoded together.

    Raises:
        UserError: When there is no such model.
    """
    policy, tokenizer = load_policy(model, dtype, revision, key="engine.model")
    return HFEngine(
        on_device(policy, device_of(hardware)),
        tokenizer,
        hardware.generation_batch_size,
    )


class _BufferedLayer(DynamicLayer):
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
            self._key_buffer = _grown(self._key_buffer, start, end + _CACHE_GROWTH_TOKENS)
            self._value_buffer = _grown(self._value_buffer, start, end + _CACHE_GROWTH_TOKENS)
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


@dataclass(slots=True)
class _Decoding:
    """The rows that are still being decoded, and their cache."""

    rows: Tensor  # [R] int64, each row's place in the batch
    inputs: Tensor  # [R, S] int64, what the model has not read yet
    mask: Tensor  # [R, P] int64, 1 = real token, over all that was read or will be
    positions: Tensor  # [R, S] int64
    cache: Cache

    @classmethod
    def start(
        cls, prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device
    ) -> "_Decoding":
        width = max(len(prompt) for prompt in prompts)
        padded = [[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        real = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        mask = torch.tensor(real, device=device)
        return cls(
            rows=torch.arange(len(prompts), device=device),
            inputs=torch.tensor(padded, device=device),
            mask=mask,
            positions=(mask.cumsum(1) - 1).clamp(min=0),
            cache=Cache(layer_class_to_replicate=_BufferedLayer),
        )

    def logits(self, model: PreTrainedModel) -> Tensor:
        output = model(
            input_ids=self.inputs,
            attention_mask=self.mask,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        last: Tensor = output.logits[:, -1].float()
        return last

    def append(self, tokens: Tensor) -> None:
        self.inputs = tokens[:, None]
        self.mask = torch.nn.functional.pad(self.mask, (0, 1), value=1)
        self.positions = self.positions[:, -1:] + 1

    def keep(self, kept: Tensor) -> None:
        self.rows, self.mask, self.positions = (
            self.rows[kept],
            self.mask[kept],
            self.positions[kept],
        )
        self.cache.batch_select_indices(kept.nonzero()[:, 0])


def _uniforms(seeds: Sequence[int], count: int) -> Tensor:
    """`[B, count]` float32 in [0, 1): row i depends on `seeds[i]` alone."""
    generator = torch.Generator()
    return torch.stack([torch.rand(count, generator=generator.manual_seed(s)) for s in seeds])


def sample(logits: Tensor, sampling: Sampling, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Draw one token a row by inverting its cumulative distribution.

    Args:
        logits: `[R, V]` float32.
        uniforms: `[R]` float32 in [0, 1).

    Returns:
        Tokens `[R]` int64 and their logprobs `[R]` under softmax(logits / temperature),
        before top-p truncation (at temperature 0, under softmax(logits)).
    """
    if sampling.temperature == 0:
        tokens = logits.argmax(dim=-1)
        return tokens, torch.log_softmax(logits, -1).gather(1, tokens[:, None])[:, 0]
    logprobs = torch.log_softmax(logits / sampling.temperature, dim=-1)
    probs = logprobs.exp()
    if sampling.top_p < 1:
        ordered, index = probs.topk(min(_LIKELY_TOKENS, probs.shape[-1]))
        if bool((ordered.sum(dim=-1) < sampling.top_p).any()):
            ordered, index = probs.sort(dim=-1, descending=True)
        # A token stays if what stands before it does not yet reach top_p.
        ordered = torch.where(ordered.cumsum(-1) - ordered < sampling.top_p, ordered, 0.0)
        place = _invert(ordered, uniforms)
        tokens = index.gather(1, place[:, None])[:, 0]
    else:
        tokens = _invert(probs, uniforms)
    return tokens, logprobs.gather(1, tokens[:, None])[:, 0]


def _invert(weights: Tensor, uniforms: Tensor) -> Tensor:
    """The first index whose cumulative weight exceeds `uniforms` of the row's total."""
    cumulative = weights.cumsum(dim=-1)
    targets = uniforms * cumulative[:, -1]
    place = torch.searchsorted(cumulative, targets[:, None], right=True)[:, 0]
    return place.clamp(max=weights.shape[1] - 1)
