"""Generation with a transformers model in this process.

Prompts are sorted by length. Rows that have ended leave the batch, so they cost nothing while the
last long completions go on. Each row has its own stream of uniform numbers and samples by inverting
the cumulative distribution. A text ends where the model's context does, as vLLM has it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.kernels.decoding import Decoding, Rereading
from reasoning_lab.kernels.fused_decoder import FusedDecoder, can_decode_fused
from reasoning_lab.models.chat import stop_token_ids, unused_ids_mask
from reasoning_lab.models.policy import context_tokens, sampling_device, to_device
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.sampling.engine import (
    NOTHING_YET,
    OnProgress,
    Sampling,
    completions_of,
    extended_outputs,
)
from reasoning_lab.sampling.engine_check import check_engine, hf_remedy
from reasoning_lab.types import Completion, Prompt

# Copying the cache to drop rows pays once a quarter of them has ended.
COMPACT_BELOW_FRAC = 0.75
# The likeliest tokens mostly have a probability of top_p together. Other rows are sorted fully.
_LIKELY_TOKENS = 32
# Logits that a CPU samples from together: they and their intermediate results fit its caches.
CHUNK_LOGITS_ON_CPU = 2**19


class HFEngine:
    """Samples from a causal language model, which it does not change.

    Args:
        model: On any device; it is in eval mode while it generates.
        tokenizer: The model's tokenizer. Ids without a token, as in a padded vocabulary, are never
            sampled.
        batch_size: Most rows that are decoded together; it changes memory, not results.
        cache: Whether keys and values are cached between two tokens; see `Rereading`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        cache: bool = True,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._stop_ids = torch.tensor(stop_token_ids(model, tokenizer), device=model.device)
        self._unused_ids = unused_ids_mask(model, tokenizer)
        self._batch_size = batch_size
        self._on_progress: OnProgress = lambda completions: None
        self._cache = cache

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        return self.complete(prompt_tokens(self._tokenizer, prompts), sampling, seeds)

    def extend(
        self,
        prompts: Sequence[Prompt],
        started: Sequence[Completion],
        sampling: Sampling,
        seeds: Sequence[int],
        most_tokens: int,
    ) -> list[Completion]:
        """As `InterruptibleEngine` has it.

        Under the same weights a completion is, but for rounding, the one without an interruption.
        """
        prompt_ids = prompt_tokens(self._tokenizer, prompts)
        limits = [
            min(most_tokens, self._room(ids, sampling.max_new_tokens) - len(before.token_ids))
            for ids, before in zip(prompt_ids, started, strict=True)
        ]
        return self._complete(prompt_ids, started, sampling, seeds, limits)

    def reporting_to(self, on_progress: OnProgress) -> "HFEngine":
        """Have it called with the new completions when a batch ends; this engine."""
        self._on_progress = on_progress
        return self

    def close(self) -> None:
        """Drop the reference to the model."""
        del self._model

    def complete(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """Like `generate`, with prompts as token ids."""
        limits = [self._room(prompt, sampling.max_new_tokens) for prompt in prompts]
        started = [NOTHING_YET] * len(prompts)
        return self._complete(prompts, started, sampling, seeds, limits)

    @torch.inference_mode()
    def _complete(
        self,
        prompts: Sequence[Sequence[int]],
        started: Sequence[Completion],
        sampling: Sampling,
        seeds: Sequence[int],
        limits: Sequence[int],
    ) -> list[Completion]:
        """`limits` are the most new tokens of each row; a row of none stays as it is."""
        texts = [
            [*prompt, *before.token_ids] for prompt, before in zip(prompts, started, strict=True)
        ]
        written = [row for row, limit in enumerate(limits) if limit > 0]
        order = sorted(written, key=lambda row: len(texts[row]), reverse=True)
        completions: dict[int, Completion] = dict(enumerate(started))
        was_training = self._model.training
        self._model.eval()
        fused = FusedDecoder(self._model) if can_decode_fused(self._model) else None
        try:
            for start in range(0, len(order), self._batch_size):
                rows = order[start : start + self._batch_size]
                state = self._start_decoding([texts[row] for row in rows], fused)
                batch = self._generate_batch(
                    state,
                    [started[row] for row in rows],
                    sampling,
                    [seeds[row] for row in rows],
                    [limits[row] for row in rows],
                )
                completions.update(zip(rows, batch, strict=True))
                self._on_progress(batch)
        finally:
            self._model.train(was_training)
        return [completions[row] for row in range(len(prompts))]

    def _start_decoding(
        self, prompts: Sequence[Sequence[int]], fused: FusedDecoder | None
    ) -> Decoding | Rereading:
        pad_id: int | None = self._tokenizer.pad_token_id
        if pad_id is None:  # Any token serves.
            pad_id = int(self._stop_ids[0])
        if self._cache:
            return Decoding(self._model, fused, prompts, pad_id)
        return Rereading(self._model, prompts, pad_id)

    def _room(self, prompt: Sequence[int], max_new_tokens: int) -> int:
        """Tokens that may follow a prompt in the model's context, at most `max_new_tokens`."""
        context = context_tokens(self._model)
        return max_new_tokens if context is None else min(max_new_tokens, context - len(prompt))

    def _generate_batch(
        self,
        state: Decoding | Rereading,
        started: Sequence[Completion],
        sampling: Sampling,
        seeds: Sequence[int],
        limits: Sequence[int],
    ) -> list[Completion]:
        """`limits` are the most new tokens of each row, at least 1."""
        device, most = self._model.device, max(limits)
        end_id = int(self._stop_ids[0])
        starts = [len(before.token_ids) for before in started]
        uniforms = _uniforms(seeds, most, starts).to(device)
        tokens = torch.full((len(seeds), most), end_id, device=device)
        logprobs = torch.zeros(tokens.shape, device=device)
        lengths = torch.tensor(limits, device=device)
        row_limits, is_limited = lengths.clone(), min(limits) < most
        ended = torch.zeros(len(seeds), dtype=torch.bool, device=device)
        for step in range(most):
            rows = state.rows
            sampled, sampled_logprobs = sample(
                state.logits, sampling, uniforms[rows, step], self._unused_ids
            )
            alive = ~ended[rows]
            if is_limited:
                alive &= row_limits[rows] > step
            tokens[rows, step] = torch.where(alive, sampled, end_id)
            logprobs[rows, step] = sampled_logprobs
            stopping = alive & torch.isin(sampled, self._stop_ids)
            lengths[rows[stopping]] = step + 1
            ended[rows[stopping]] = True
            alive = alive & ~stopping
            if is_limited:
                alive &= row_limits[rows] > step + 1
            alive_count = int(alive.sum())
            if alive_count == 0 or step + 1 == most:
                break
            if alive_count < COMPACT_BELOW_FRAC * len(rows):
                state.select(alive.nonzero()[:, 0])
                sampled = sampled[alive]
            state.append(sampled)
        outputs = [
            (ids[:length], values[:length], not stopped)
            for ids, values, length, stopped in zip(
                *(part.tolist() for part in (tokens, logprobs, lengths, ended)), strict=True
            )
        ]
        return completions_of(self._tokenizer, extended_outputs(started, outputs))


def checked_engine(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    hardware: HardwareConfig,
    key: str,
) -> HFEngine:
    """The engine of `policy`, on the device that samples.

    Args:
        policy: Moved to that device.
        tokenizer: The policy's.
        hardware: The device, the batch size and whether there is a cache.
        key: The config key of the stage or the engine, for the error.

    Raises:
        UserError: Its decoding differs from the model's forward pass; see `check_engine`.
    """
    placed, limits = to_device(policy, sampling_device(hardware)), hardware.sampling
    engine = HFEngine(placed, tokenizer, hardware.generation_batch_size, limits.cache)
    check_engine(placed, tokenizer, engine.generate, 1.0, hardware, key, hf_remedy(hardware))
    return engine


def _uniforms(seeds: Sequence[int], count: int, starts: Sequence[int]) -> Tensor:
    """`[B, count]` float32 in [0, 1): row i has the numbers of `seeds[i]` from `starts[i]` on."""
    generator = torch.Generator()
    rows = [
        torch.rand(start + count, generator=generator.manual_seed(seed))[start:]
        for seed, start in zip(seeds, starts, strict=True)
    ]
    return torch.stack(rows)


def sample(
    logits: Tensor,
    sampling: Sampling,
    uniforms: Tensor,
    unused_ids: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Sample one token for each row by inverting its cumulative distribution.

    Args:
        logits: `[R, V]` float32.
        uniforms: `[R]` float32 in [0, 1).
        unused_ids: `[V]` bool, True = never sampled; None = all ids may be sampled.

    Returns:
        Tokens `[R]` int64 and their logprobs `[R]` under softmax(logits / temperature), as a loss
        computes them: before unused ids are masked and top-p truncates. At temperature 0 they are
        under softmax(logits).
    """
    chunk_rows = len(logits)
    if logits.device.type == "cpu":
        chunk_rows = max(1, CHUNK_LOGITS_ON_CPU // logits.shape[-1])
    chunks = [
        _sample_chunk(chunk, sampling, chunk_uniforms, unused_ids)
        for chunk, chunk_uniforms in zip(
            logits.split(chunk_rows), uniforms.split(chunk_rows), strict=True
        )
    ]
    tokens, logprobs = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    return tokens, logprobs


def _sample_chunk(
    logits: Tensor, sampling: Sampling, uniforms: Tensor, unused_ids: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Like `sample`, for a few rows."""
    if sampling.temperature == 0:
        allowed = logits if unused_ids is None else logits.masked_fill(unused_ids, -torch.inf)
        tokens = allowed.argmax(dim=-1)
        return tokens, torch.log_softmax(logits, -1).gather(1, tokens[:, None])[:, 0]
    probs = torch.softmax(
        logits if sampling.temperature == 1 else logits / sampling.temperature, dim=-1
    )
    allowed = probs
    if unused_ids is not None:
        allowed = probs.masked_fill(unused_ids, 0.0)
        allowed /= allowed.sum(dim=-1, keepdim=True)
    if sampling.top_p < 1:
        ordered, index = allowed.topk(min(_LIKELY_TOKENS, allowed.shape[-1]))
        tokens = _sample_nucleus(ordered, index, sampling.top_p, uniforms)
        flat_rows = (ordered.sum(dim=-1) < sampling.top_p).nonzero()[:, 0]
        if len(flat_rows):
            ordered, index = allowed[flat_rows].sort(dim=-1, descending=True)
            tokens[flat_rows] = _sample_nucleus(ordered, index, sampling.top_p, uniforms[flat_rows])
    else:
        tokens = _invert_cumulative(allowed, uniforms)
    return tokens, probs.gather(1, tokens[:, None])[:, 0].log()


def _sample_nucleus(ordered: Tensor, index: Tensor, top_p: float, uniforms: Tensor) -> Tensor:
    """Sample one token for each row from the smallest set with probability `top_p`.

    Args:
        ordered: `[R, K]` probabilities in descending order.
        index: `[R, K]` their tokens.
    """
    nucleus = torch.where(ordered.cumsum(-1) - ordered < top_p, ordered, 0.0)
    return index.gather(1, _invert_cumulative(nucleus, uniforms)[:, None])[:, 0]


def _invert_cumulative(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Return the first index at which the cumulative weight exceeds that fraction of the total."""
    cumulative = weights.cumsum(dim=-1)
    targets = uniforms * cumulative[:, -1]
    place = torch.searchsorted(cumulative, targets[:, None], right=True)[:, 0]
    return place.clamp(max=weights.shape[1] - 1)
