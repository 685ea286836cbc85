"""Norms and rotations that read and write memory less often, bound to one model.

transformers composes them of torch's elementwise operations, each of which passes over all states,
forwards and backwards. On a GPU torch has a norm in one operation, and what is here rotates; on a
CPU both are here, for float32. In other precisions a CPU has transformers' own.
"""

import sys
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers import PreTrainedModel

# Their norms are `weight * x / rms(x)`, and the halves of their heads rotate against each other.
_FAMILIES = ("llama", "mistral", "phi3", "qwen2", "qwen3")
_ROTATION = "apply_rotary_pos_emb"


def inverse_rms(x: Tensor, epsilon: Tensor) -> Tensor:
    """`1 / sqrt(mean(x**2) + epsilon)` over the last dimension, which is kept, in one pass."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.addcmul(epsilon, length, length, value=1 / x.shape[-1]).rsqrt_()


class RMSNorm(torch.autograd.Function):
    """`weight * x / sqrt(mean(x**2) + epsilon)` over the last dimension (Zhang and Sennrich, 2019).

    With n = x / rms and g the gradient, x has the gradient (g w - n mean(g w n)) / rms.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        inverse = inverse_rms(x, x.new_tensor(epsilon))
        normed = x * inverse
        ctx.save_for_backward(normed, inverse, weight)
        return normed * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, inverse, weight = ctx.saved_tensors
        of_weight = gradient * normed
        along = of_weight.matmul(weight * (-1 / len(weight)))[..., None]
        of_x = (gradient * weight).addcmul_(normed, along).mul_(inverse)
        return of_x, of_weight.flatten(0, -2).sum(0), None


class Rotation(torch.autograd.Function):
    """`x cos + (-x2, x1) sin` for the halves x1 and x2 of the last dimension (Su et al., 2021).

    `cos` and `sin` are broadcast to `x` and carry no gradient; in float32 they make it float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.dtype = x.dtype
        (x1, x2), (sin1, sin2) = x.chunk(2, -1), sin.chunk(2, -1)
        rotated = x * cos
        first, second = rotated.chunk(2, -1)
        first.addcmul_(x2, sin1, value=-1)
        second.addcmul_(x1, sin2)
        return rotated

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        (g1, g2), (sin1, sin2) = gradient.chunk(2, -1), sin.chunk(2, -1)
        of_x = gradient * cos
        first, second = of_x.chunk(2, -1)
        first.addcmul_(g2, sin2)
        second.addcmul_(g1, sin1, value=-1)
        return of_x.to(ctx.dtype), None, None


# Autograd functions have no types.
_rms_norm: Any = RMSNorm.apply
_rotate: Any = Rotation.apply


def bind_fused_ops(model: PreTrainedModel) -> None:
    """Give a model of a known family forwards of its own: of its norms and its attention layers.

    An attention layer's is transformers' own code, which rotates with the function given here.
    """
    modeling: Any = sys.modules[type(model).__module__]
    known = model.config.model_type in _FAMILIES
    if not (known and modeling.__name__.startswith("transformers.")):
        return
    rotation = fused_rotation(getattr(modeling, _ROTATION))
    for module in model.modules():
        plain = type(module).forward
        if _is_norm(module):
            module.forward = MethodType(fused_norm(plain), module)
        elif _rotates(module):
            module.forward = MethodType(_with_rotation(plain, rotation), module)


def unbind_fused_ops(model: PreTrainedModel) -> None:
    """Give its norms and attention layers transformers' own forwards again."""
    for module in model.modules():
        if _is_norm(module) or _rotates(module):
            vars(module).pop("forward", None)


def _is_norm(module: nn.Module) -> bool:
    return type(module).__name__.endswith("RMSNorm")


def _rotates(module: nn.Module) -> bool:
    plain = type(module).forward
    return isinstance(plain, FunctionType) and _ROTATION in plain.__code__.co_names


def _with_rotation(plain: Any, rotation: Callable[..., Any]) -> FunctionType:
    """A copy of `plain` that calls `rotation`; the module that defines it stays as it is."""
    copied = FunctionType(
        plain.__code__,
        {**plain.__globals__, _ROTATION: rotation},
        plain.__name__,
        plain.__defaults__,
        plain.__closure__,
    )
    copied.__kwdefaults__ = plain.__kwdefaults__
    return copied


def fused_norm(plain: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """A norm's forward by `RMSNorm`, or `plain` where it does not apply."""

    def forward(self: Any, hidden_states: Tensor) -> Tensor:
        weight: Tensor = self.weight
        if hidden_states.dtype != weight.dtype or not _takes_fused(hidden_states):
            return plain(self, hidden_states)
        if hidden_states.is_cuda:
            return F.rms_norm(hidden_states, weight.shape, weight, self.variance_epsilon)
        normed: Tensor = _rms_norm(hidden_states, weight, self.variance_epsilon)
        return normed

    return forward


def fused_rotation(plain: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., Any]:
    """The rotation of queries and keys by `Rotation`, or `plain` where it does not apply."""

    def apply_rotary_pos_emb(
        q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1
    ) -> tuple[Tensor, Tensor]:
        # Phi-4-Mini rotates a part of each head.
        if not (_takes_fused(q) and cos.shape[-1] == q.shape[-1]):
            return plain(q, k, cos, sin, unsqueeze_dim)
        cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        return _rotate(q, cos, sin), _rotate(k, cos, sin)

    return apply_rotary_pos_emb


def _takes_fused(values: Tensor) -> bool:
    return values.is_cuda or (values.dtype == torch.float32 and values.device.type == "cpu")
