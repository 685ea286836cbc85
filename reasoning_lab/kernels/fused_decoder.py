"""A decoding step of a small model in few operations.

transformers' forward takes dozens of small operations a layer, and a model of a few million
parameters spends most of a step between them. Here norms and rotations take fewer, queries and keys
share them, and the rows of a group of heads attend together.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaForCausalLM, PreTrainedModel, Qwen2ForCausalLM, Qwen3ForCausalLM
from transformers.cache_utils import CacheLayerMixin

from reasoning_lab.kernels.binding import has_kernels
from reasoning_lab.kernels.fused_ops import inverse_rms

_FAMILIES = (LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)
# Above it, products take most of a step.
_MOST_PARAMETERS = 64_000_000


class FusedDecoder:
    """Reads one token a row; made anew once the model's weights have changed.

    Args:
        model: One that `can_decode_fused` accepts.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        decoder: Any = model.base_model
        embeddings: Any = model.get_input_embeddings()
        self._embeddings: Tensor = embeddings.weight
        self._rotary = decoder.rotary_emb
        self._turns: Tensor = self._embeddings.new_empty((2, 0, 0))
        self._layers = [_Layer(layer, model.config) for layer in decoder.layers]
        self._norm: Tensor = decoder.norm.weight
        head: Any = model.get_output_embeddings()
        self._head: Tensor = head.weight
        self._epsilon = self._norm.new_tensor(model.config.rms_norm_eps)
        self._key_heads: int = model.config.num_key_value_heads
        self._logits = self._head.new_empty((0, len(self._head)))

    def logits(
        self, tokens: Tensor, positions: Tensor, mask: Tensor, cache: Sequence[Any]
    ) -> Tensor:
        """The logits of the next token, and the cache one token longer.

        Args:
            tokens: `[R]` int64.
            positions: `[R]` int64.
            mask: `[R, P]` int64, 1 = real token, over the cache and these tokens.
            cache: transformers' cache layers: P - 1 positions of R rows in each.

        Returns:
            `[R, V]`, until the next call, which writes there too.
        """
        x = F.embedding(tokens, self._embeddings)
        cos, signed_sin = self._turned(mask.shape[1]).index_select(1, positions)[:, :, None]
        hidden = torch.zeros(mask.shape, device=x.device).masked_fill_(mask == 0, -torch.inf)
        hidden = hidden.repeat_interleave(self._key_heads, dim=0)[:, None]  # [R * keys, 1, P]
        for weights, layer in zip(self._layers, cache, strict=True):
            x = weights.attend(x, cos, signed_sin, hidden, layer)
            x = weights.feed_forward(x)
        x = _normed(x, self._norm, self._epsilon)
        if len(x) > len(self._logits):
            self._logits = x.new_empty((len(x), len(self._head)))
        return torch.mm(x, self._head.t(), out=self._logits[: len(x)])

    def _turned(self, count: int) -> Tensor:
        """`[2, C, D]` for C positions, `count` or more: cosines and signed sines of their angles.

        rotate_half(x) * sin = roll(x) * signed sin, one operation less.
        """
        if self._turns.shape[1] < count:
            positions = torch.arange(2 * count, device=self._embeddings.device)
            cos, sin = self._rotary(self._embeddings, positions[None])
            first, second = sin.chunk(2, dim=-1)
            self._turns = torch.cat([cos, torch.cat([-first, second], dim=-1)])
        return self._turns


def can_decode_fused(model: PreTrainedModel) -> bool:
    """Whether `FusedDecoder` computes what this model does, and is faster."""
    fits = type(model) in _FAMILIES and model.dtype == torch.float32 and has_kernels(model)
    if not fits or model.num_parameters() > _MOST_PARAMETERS:
        return False
    config = model.config
    windowed = any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or [])
    return config.hidden_act == "silu" and not windowed and _projections_are_plain(model)


def _projections_are_plain(model: PreTrainedModel) -> bool:
    """No adapter or quantisation stands in for a product, and none has a bias that is left out."""
    decoder: Any = model.base_model
    for layer in decoder.layers:
        attention, mlp = layer.self_attn, layer.mlp
        first = (attention.q_proj, attention.k_proj, attention.v_proj)
        others = (attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj)
        if any(type(linear) is not nn.Linear for linear in (*first, *others)):
            return False
        if any(linear.bias is not None for linear in others):
            return False
    return True


class _Layer:
    """One layer's weights: widths D of a head, A of all query heads, I of the MLP, H of states."""

    def __init__(self, layer: Any, config: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.query = _product(attention.q_proj)  # [R, H] to [R, A]
        self.key, self.value = _product(attention.k_proj), _product(attention.v_proj)
        self.gate, self.up = _product(mlp.gate_proj), _product(mlp.up_proj)
        self.out: Tensor = attention.o_proj.weight.t()  # [A, H]
        self.down: Tensor = mlp.down_proj.weight.t()  # [I, H]
        self.norm: Tensor = layer.input_layernorm.weight  # [H]
        self.mlp_norm: Tensor = layer.post_attention_layernorm.weight  # [H]
        self.epsilon = self.norm.new_tensor(config.rms_norm_eps)
        self.key_heads: int = config.num_key_value_heads
        self.head_width: int = attention.head_dim
        self.scale: float = attention.scaling
        self.head_norm: Tensor | None = None  # [query heads + key heads, D]
        if hasattr(attention, "q_norm"):
            norms = [
                attention.q_norm.weight.expand(config.num_attention_heads, self.head_width),
                attention.k_norm.weight.expand(self.key_heads, self.head_width),
            ]
            self.head_norm = torch.cat(norms)

    def attend(
        self, x: Tensor, cos: Tensor, signed_sin: Tensor, hidden: Tensor, layer: CacheLayerMixin
    ) -> Tensor:
        rows, keys, width = x.shape[0], self.key_heads, self.head_width
        states = _normed(x, self.norm, self.epsilon)
        turned = torch.cat([self.query(states), self.key(states)], dim=-1).view(rows, -1, width)
        values = self.value(states).view(rows, keys, 1, width)
        if self.head_norm is not None:
            turned = _normed(turned, self.head_norm, self.epsilon)
        turned = torch.addcmul(turned * cos, turned.roll(width // 2, -1), signed_sin)
        cached = layer.update(turned[:, -keys:, None], values)
        all_keys, all_values = (part.flatten(0, 1) for part in cached)  # [R * keys, P, D]
        queries = turned[:, :-keys].reshape(rows * keys, -1, width)
        scores = torch.baddbmm(hidden, queries, all_keys.mT, alpha=self.scale)
        attended = torch.bmm(torch.softmax(scores, dim=-1), all_values)
        return torch.addmm(x, attended.view(rows, -1), self.out)

    def feed_forward(self, x: Tensor) -> Tensor:
        states = _normed(x, self.mlp_norm, self.epsilon)
        return torch.addmm(x, F.silu(self.gate(states)).mul_(self.up(states)), self.down)


def _product(linear: nn.Linear) -> Callable[[Tensor], Tensor]:
    return partial(F.linear, weight=linear.weight, bias=linear.bias)


def _normed(x: Tensor, weight: Tensor, epsilon: Tensor) -> Tensor:
    """`F.rms_norm` of the last dimension, which takes ten operations on a CPU."""
    return x * inverse_rms(x, epsilon) * weight
