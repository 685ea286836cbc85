"""Log-probabilities of given tokens, computed only where a token is trained.

Shared by every stage, so that a policy, its reference and an engine mean the same by
`logprobs`: log softmax(logits / temperature) at the token that was really there. All results are
flat: one value for each of the batch's K trained tokens, in their order.

The logits of many tokens over a large vocabulary are more memory than all else in training, so they
are built in chunks of tokens. Of a plain float32 vocabulary projection torch's own
`linear_cross_entropy` does so, and takes the mean's gradient on the way forwards, which is faster
even where all fit; of any other, also in bfloat16, where that would round the log-probabilities to
eight bits, each chunk is computed again in the backward pass.
"""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from reasoning_lab.kernels import logit_chunks
from reasoning_lab.kernels.batch import TokenBatch
from reasoning_lab.kernels.binding import has_kernels, mixes_precision
from reasoning_lab.kernels.rows import model_rows, padded_rows
from reasoning_lab.losses.next_token import next_token_loss

P = ParamSpec("P")
T = TypeVar("T")

# From states, `[K, H]`, to logits, `[K, V]`.
Project = Callable[[Tensor], Tensor]


def use_shared_forward(model: PreTrainedModel) -> None:
    """Have all of these go through a method of the model, to which a strategy adds hooks."""
    model._shared_forward = partial(_compute, model)  # type: ignore[assignment]


def _compute(model: PreTrainedModel, function: Callable[[], T]) -> T:
    # Each weight is read once, so a cache of its bfloat16 copy would only take memory.
    with torch.autocast(
        model.device.type, torch.bfloat16, enabled=mixes_precision(model), cache_enabled=False
    ):
        return function()


def _in_forward(
    function: Callable[Concatenate[PreTrainedModel, P], T],
) -> Callable[Concatenate[PreTrainedModel, P], T]:
    """`function` in the model's precision and, where a strategy has hooks, between these."""

    @wraps(function)
    def run(model: PreTrainedModel, /, *args: P.args, **kwargs: P.kwargs) -> T:
        compute: Any = getattr(model, "_shared_forward", None) or partial(_compute, model)
        result: T = compute(partial(function, model, *args, **kwargs))
        return result

    return run


@_in_forward
def trained_logits(
    model: PreTrainedModel, batch: TokenBatch
) -> tuple[Float[Tensor, "K V"], Int[Tensor, " K"]]:
    """Logits that predict each trained token, and those tokens: for a loss of one's own.

    The vocabulary projection runs for those alone, so no `[N, V]` tensor is ever built.
    """
    head, states, targets, _ = _trained_states(model, batch)
    return head(states).float(), targets


@_in_forward
def mean_logprob(model: PreTrainedModel, batch: TokenBatch) -> Float[Tensor, ""]:
    """Mean log-probability of the trained tokens; without any, a differentiable 0."""
    head, states, targets, size = _trained_states(model, batch)
    if is_plain(head) and (
        size < len(targets) or size * head.out_features > logit_chunks.FEW_LOGITS
    ):
        return -_cross_entropy(head, states, targets, size, "mean")
    if size == len(targets):
        return -next_token_loss(head(states).float(), targets)
    (logprobs,) = _by_chunks(_logprobs_of, head, states, targets, 1.0, size)
    return logprobs.mean()


@_in_forward
def token_logprobs(
    model: PreTrainedModel, batch: TokenBatch, temperature: float = 1.0
) -> Float[Tensor, " K"]:
    """Log-probability of every trained token, float32."""
    head, states, targets, size = _trained_states(model, batch)
    if size == len(targets):
        return _logprobs_of(head, states, targets, temperature)[0]
    if is_plain(head):
        return -_cross_entropy(head, states / temperature, targets, size, "none")
    (logprobs,) = _by_chunks(_logprobs_of, head, states, targets, temperature, size)
    return logprobs


@_in_forward
def token_logprobs_and_entropies(
    model: PreTrainedModel, batch: TokenBatch, temperature: float = 1.0
) -> tuple[Float[Tensor, " K"], Float[Tensor, " K"]]:
    """Log-probability of every trained token, and the entropy in nats that it was drawn with.

    Both are of softmax(logits / temperature), float32, with gradient. Chunks are computed again in
    the backward pass. They have half as many tokens as without entropies, whose gradient reads
    twice as many tensors of a chunk's size.
    """
    head, states, targets, size = _trained_states(model, batch)
    function = _logprobs_and_entropies_of
    logprobs, entropies = _by_chunks(function, head, states, targets, temperature, -(-size // 2))
    return logprobs, entropies


@torch.no_grad()
@_in_forward
def token_entropies(
    model: PreTrainedModel, batch: TokenBatch, temperature: float = 1.0
) -> Float[Tensor, " K"]:
    """Entropy in nats that each trained token is drawn with, float32, without gradient.

    Of softmax(logits / temperature). At temperature 1, whatever the temperature that sampled,
    steps can be compared.
    """
    head, states, targets, size = _trained_states(model, batch)
    (entropies,) = _by_chunks(_entropies_of, head, states, targets, temperature, size)
    return entropies


def _trained_states(model: PreTrainedModel, batch: TokenBatch) -> tuple[Any, Tensor, Tensor, int]:
    """The vocabulary projection, and what it reads and predicts for each trained token.

    Without kernels the logits themselves, by the model's own forward, which may cap and scale them.

    Returns:
        The projection, `[K, H]` states, `[K]` int64 targets, and how many have logits at once.
    """
    fused, targets = has_kernels(model), batch.input_ids[batch.loss_mask]
    rows = model_rows(model, batch) if fused else padded_rows(batch)
    # Not through the hooks of a sharded model, which `_shared_forward` has already run.
    forward = model.base_model if fused else model.forward
    output = forward(input_ids=batch.input_ids[rows.sources], use_cache=False, **rows.options)
    states = output[0].flatten(0, 1)[rows.predictors[batch.loss_mask]]
    if not fused:
        return nn.Identity(), states, targets, len(targets)
    head: Any = model.get_output_embeddings()
    return head, states, targets, _chunk_size(head, targets)


def _entropies_of(
    project: Project, states: Tensor, targets: Tensor, temperature: float
) -> tuple[Tensor, ...]:
    probabilities = _logits_at(project, states, temperature).softmax(-1)
    return (torch.special.entr(probabilities).sum(-1),)


def _logprobs_and_entropies_of(
    project: Project, states: Tensor, targets: Tensor, temperature: float
) -> tuple[Tensor, ...]:
    logprobs = F.log_softmax(_logits_at(project, states, temperature), dim=-1)
    probabilities = logprobs.exp()
    # What has no probability adds none, and its gradient is not 0 * infinity.
    entropies = -(probabilities * logprobs.masked_fill(probabilities == 0, 0.0)).sum(-1)
    return logprobs.gather(1, targets[:, None])[:, 0], entropies


def _logprobs_of(
    project: Project, states: Tensor, targets: Tensor, temperature: float
) -> tuple[Tensor, ...]:
    logits = _logits_at(project, states, temperature)
    return (-F.cross_entropy(logits, targets, reduction="none"),)


def _logits_at(project: Project, states: Tensor, temperature: float) -> Tensor:
    logits = project(states).float()
    return logits if temperature == 1.0 else logits / temperature


def _chunk_size(head: Any, targets: Tensor) -> int:
    # ZeRO-3 gathers weights at each call of a part with weights, which ranks do equally often.
    if _is_divided(head) and list(head.children()):
        return len(targets)
    most = logit_chunks.most_chunk_tokens(head.out_features, targets.device.type == "cpu")
    return logit_chunks.chunk_size(len(targets), most)


def _is_divided(head: Any) -> bool:
    """Whether ZeRO-3 keeps its weights in parts, which naming one outside its forward gathers."""
    return any(hasattr(parameter, "ds_id") for parameter in head.parameters())


def is_plain(head: Any) -> bool:
    """Whether its logits are one float32 product: no adapter, bias, hook, 4-bit, absent weights."""
    if type(head) is not nn.Linear or _is_divided(head) or head.weight.dtype != torch.float32:
        return False
    if torch.is_autocast_enabled(head.weight.device.type):
        return False
    if head._forward_pre_hooks or head._forward_hooks:
        return False
    bias: Tensor | None = head.bias
    return bias is None


def _cross_entropy(head: Any, states: Tensor, targets: Tensor, size: int, reduction: str) -> Tensor:
    options = nn.LinearCrossEntropyOptions(batch_chunk_size=size, chunking_method=None)
    return F.linear_cross_entropy(
        states, head.weight, targets, reduction=reduction, options=options
    )


def _by_chunks(
    function: Callable[[Project, Tensor, Tensor, float], tuple[Tensor, ...]],
    head: Any,
    states: Tensor,
    targets: Tensor,
    temperature: float,
    size: int,
) -> tuple[Tensor, ...]:
    """Results of all tokens, of which so many have logits at once, in the backward pass too."""

    def compute(project: Project, states: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        chunks = zip(states.split(max(1, size)), targets.split(max(1, size)), strict=True)
        parts = [
            checkpoint(function, project, *chunk, temperature, use_reentrant=False)
            for chunk in chunks
        ]
        return tuple(torch.cat(results) for results in zip(*parts, strict=True))

    if not _is_divided(head):
        return compute(head, states, targets)
    return _gathered_once(head, compute, states, targets)


def _gathered_once(
    head: Any,
    compute: Callable[[Project, Tensor, Tensor], tuple[Tensor, ...]],
    states: Tensor,
    targets: Tensor,
) -> tuple[Tensor, ...]:
    """Have `compute` project by a head whose weights ZeRO-3 gathers once, and once backwards.

    Its hooks around one call of the head do so, and ranks must call it equally often: each has
    chunks of its own number, so all of them are inside of one call.
    """
    project = head.forward
    head.forward = lambda states, targets: compute(project, states, targets)
    try:
        results: tuple[Tensor, ...] = head(states, targets)
    finally:
        del head.forward
    return results
