"""Generation with a transformers model in this process.

Prompts are sorted by length; rows that have ended leave the batch, so the last long completions
don't keep the finished ones company. Each row draws from its own stream of uniform numbers by
inverting the cumulative distribution.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.kernels.cached_decoder import LeanDecoder, decodes_leanly
from reasoning_lab.kernels.decoding import Decoding, Rereading
from reasoning_lab.models.chat import stop_token_ids, unused_ids_mask
from reasoning_lab.models.policy import load_policy, sampling_device, to_device
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.sampling.probe import check_engine, hf_remedy
from reasoning_lab.types import Completion

# Copying the cache to drop rows pays once a quarter of them has ended.
_COMPACT_BELOW_FRAC = 0.75
# So many of the likeliest tokens mostly hold top_p; a row of which they do not is sorted whole.
_LIKELY_TOKENS = 32
# Drawn from together on a CPU: its cache holds them, and memory what a step makes of them.
_LOGITS_AT_ONCE_ON_CPU = 2**19


class HFEngine:
    """Samples from a causal language model; the model is borrowed, never changed.

    Args:
        model: On any device; put into eval mode while it generates.
        tokenizer: Gives the end token, the padding and the decoding. Ids that have no token, as in
            a padded vocabulary, are never drawn.
        batch_size: Most rows decoded together; memory grows with it, results do not change.
        on_progress: Called with the number of completions as they end.
        cache: Whether keys and values are kept between two tokens; see `Rereading`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        on_progress: Callable[[int], None] = lambda _: None,
        cache: bool = True,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._ends = torch.tensor(stop_token_ids(model, tokenizer), device=model.device)
        self._hidden = unused_ids_mask(model, tokenizer)
        self._batch_size = batch_size
        self._on_progress = on_progress
        self._cache = cache

    def generate(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        return self.complete(prompt_tokens(self._tokenizer, prompts), sampling, seeds)

    def reporting_to(self, on_progress: Callable[[int], None]) -> "HFEngine":
        """Itself, which from now on calls this with the number of completions as they end."""
        self._on_progress = on_progress
        return self

    def close(self) -> None:
        """Let go of the model."""
        del self._model

    @torch.inference_mode()
    def complete(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """As `generate`, from token ids."""
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]), reverse=True)
        completions: dict[int, Completion] = {}
        was_training = self._model.training
        self._model.eval()
        lean = LeanDecoder(self._model) if decodes_leanly(self._model) else None
        try:
            for start in range(0, len(order), self._batch_size):
                rows = order[start : start + self._batch_size]
                state = self._reading([prompts[row] for row in rows], lean)
                drawn = self._generate_batch(state, sampling, [seeds[row] for row in rows])
                completions.update(zip(rows, drawn, strict=True))
                self._on_progress(len(rows))
        finally:
            self._model.train(was_training)
        return [completions[row] for row in range(len(prompts))]

    def _reading(
        self, prompts: Sequence[Sequence[int]], lean: LeanDecoder | None
    ) -> Decoding | Rereading:
        if self._cache:
            return Decoding(self._model, lean, prompts, self._padding())
        return Rereading(self._model, prompts, self._padding())

    def _padding(self) -> int:
        """Of prompts, where any token will do."""
        own: int | None = self._tokenizer.pad_token_id
        return int(self._ends[0]) if own is None else own

    def _generate_batch(
        self, state: Decoding | Rereading, sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        device = self._model.device
        end_id = int(self._ends[0])
        uniforms = _uniforms(seeds, sampling.max_new_tokens).to(device)
        tokens = torch.full((len(seeds), sampling.max_new_tokens), end_id, device=device)
        logprobs = torch.zeros(tokens.shape, device=device)
        lengths = torch.full((len(seeds),), sampling.max_new_tokens, device=device)
        ended = torch.zeros(len(seeds), dtype=torch.bool, device=device)
        for step in range(sampling.max_new_tokens):
            rows = state.rows
            drawn, drawn_logprobs = sample(
                state.logits, sampling, uniforms[rows, step], self._hidden
            )
            alive = ~ended[rows]
            tokens[rows, step] = torch.where(alive, drawn, end_id)
            logprobs[rows, step] = drawn_logprobs
            stopping = alive & torch.isin(drawn, self._ends)
            lengths[rows[stopping]] = step + 1
            ended[rows[stopping]] = True
            alive = alive & ~stopping
            alive_count = int(alive.sum())
            if alive_count == 0 or step + 1 == sampling.max_new_tokens:
                break
            if alive_count < _COMPACT_BELOW_FRAC * len(rows):
                state.select(alive.nonzero()[:, 0])
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
        UserError: When there is no such model, or its decoding is not its forward.
    """
    policy, tokenizer = load_policy(
        model, dtype, revision, key="engine.model", kernels=hardware.kernels
    )
    placed = to_device(policy, sampling_device(hardware))
    engine = HFEngine(
        placed, tokenizer, hardware.generation_batch_size, cache=hardware.sampling.cache
    )
    remedy = hf_remedy(hardware)
    check_engine(placed, tokenizer, engine.generate, 1.0, hardware, "engine.model", remedy)
    return engine


def _uniforms(seeds: Sequence[int], count: int) -> Tensor:
    """`[B, count]` float32 in [0, 1): row i depends on `seeds[i]` alone."""
    generator = torch.Generator()
    return torch.stack([torch.rand(count, generator=generator.manual_seed(s)) for s in seeds])


def sample(
    logits: Tensor, sampling: Sampling, uniforms: Tensor, hidden: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Draw one token a row by inverting its cumulative distribution.

    Args:
        logits: `[R, V]` float32.
        uniforms: `[R]` float32 in [0, 1).
        hidden: `[V]` bool, True = never drawn; None = any may be.

    Returns:
        Tokens `[R]` int64 and their logprobs `[R]` under softmax(logits / temperature), which is
        what a loss computes: before the truncation to top-p and to what is not hidden (at
        temperature 0, under softmax(logits)).
    """
    if sampling.temperature == 0:
        shown = logits if hidden is None else logits.masked_fill(hidden, -torch.inf)
        tokens = shown.argmax(dim=-1)
        return tokens, torch.log_softmax(logits, -1).gather(1, tokens[:, None])[:, 0]
    at_once = len(logits)
    if logits.device.type == "cpu":
        at_once = max(1, _LOGITS_AT_ONCE_ON_CPU // logits.shape[-1])
    drawn = [
        _draw(part, sampling, of_part, hidden)
        for part, of_part in zip(logits.split(at_once), uniforms.split(at_once), strict=True)
    ]
    tokens, logprobs = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    return tokens, logprobs


def _draw(
    logits: Tensor, sampling: Sampling, uniforms: Tensor, hidden: Tensor | None
) -> tuple[Tensor, Tensor]:
    """As `sample`, of rows that are few and at a temperature above 0."""
    probs = torch.softmax(
        logits if sampling.temperature == 1 else logits / sampling.temperature, dim=-1
    )
    shown = probs
    if hidden is not None:
        shown = probs.masked_fill(hidden, 0.0)
        shown /= shown.sum(dim=-1, keepdim=True)
    if sampling.top_p < 1:
        ordered, index = shown.topk(min(_LIKELY_TOKENS, shown.shape[-1]))
        tokens = _nucleus(ordered, index, sampling.top_p, uniforms)
        short = (ordered.sum(dim=-1) < sampling.top_p).nonzero()[:, 0]
        if len(short):
            ordered, index = shown[short].sort(dim=-1, descending=True)
            tokens[short] = _nucleus(ordered, index, sampling.top_p, uniforms[short])
    else:
        tokens = _invert(shown, uniforms)
    return tokens, probs.gather(1, tokens[:, None])[:, 0].log()


def _nucleus(ordered: Tensor, index: Tensor, top_p: float, uniforms: Tensor) -> Tensor:
    """A token a row, of those before which less than `top_p` stands in descending order."""
    kept = torch.where(ordered.cumsum(-1) - ordered < top_p, ordered, 0.0)
    return index.gather(1, _invert(kept, uniforms)[:, None])[:, 0]


def _invert(weights: Tensor, uniforms: Tensor) -> Tensor:
    """The first index whose cumulative weight exceeds `uniforms` of the row's total."""
    cumulative = weights.cumsum(dim=-1)
    targets = uniforms * cumulative[:, -1]
    place = torch.searchsorted(cumulative, targets[:, None], right=True)[:, 0]
    return place.clamp(max=weights.shape[1] - 1)
