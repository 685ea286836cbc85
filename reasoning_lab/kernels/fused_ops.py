"""Norms and rotations that read and write memory less often.

transformers composes them of torch's elementwise operations, each of which passes over all states,
forwards and backwards. On a GPU torch has a norm in one operation, and what is here rotates; on a
CPU both are here, for float32. In other precisions a CPU has transformers' own.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers import PreTrainedModel

# Modules of transformers, by name.
# Their norms and rotations are the ones that are replaced.
_FAMILIES = ("llama", "mistral", "phi3", "qwen2", "qwen3")
_changed: set[str] = set()
_is_off: ContextVar[bool] = ContextVar("lean_is_off", default=False)


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
        found = x * cos
        first, second = found.chunk(2, -1)
        first.addcmul_(x2, sin1, value=-1)
        second.addcmul_(x1, sin2)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        (g1, g2), (sin1, sin2) = gradient.chunk(2, -1), sin.chunk(2, -1)
        found = gradient * cos
        first, second = found.chunk(2, -1)
        first.addcmul_(g2, sin2)
        second.addcmul_(g1, sin1, value=-1)
        return found.to(ctx.dtype), None, None


# Their signatures are not told.
_normed: Any = RMSNorm.apply
_rotated: Any = Rotation.apply


def lean(model: PreTrainedModel) -> None:
    """Have a model of a family that `plan` knows take these, as will all of it in this process.

    Its norms are `weight * x / rms(x)`, and the halves of its heads rotate against each other.
    transformers finds its functions by their module's names.
    """
    modeling: Any = sys.modules[type(model).__module__]
    if not (model.config.model_type in _FAMILIES and modeling.__name__.startswith("transformers.")):
        return
    if modeling.__name__ in _changed:
        return
    _changed.add(modeling.__name__)
    modeling.apply_rotary_pos_emb = _rotation_of(modeling.apply_rotary_pos_emb)
    for name, kind in vars(modeling).items():
        if name.endswith("RMSNorm"):
            kind.forward = _norm_of(kind.forward)


@contextmanager
def transformers_ops() -> Iterator[None]:
    """Norms and rotations are transformers' own here, in this thread."""
    token = _is_off.set(True)
    try:
        yield
    finally:
        _is_off.reset(token)


def _norm_of(plain: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    @wraps(plain)
    def forward(self: Any, hidden_states: Tensor) -> Tensor:
        weight: Tensor = self.weight
        if hidden_states.dtype != weight.dtype or not _is_lean(hidden_states):
            return plain(self, hidden_states)
        if hidden_states.is_cuda:
            return F.rms_norm(hidden_states, weight.shape, weight, self.variance_epsilon)
        found: Tensor = _normed(hidden_states, weight, self.variance_epsilon)
        return found

    return forward


def _rotation_of(plain: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., Any]:
    @wraps(plain)
    def apply_rotary_pos_emb(
        q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1
    ) -> tuple[Tensor, Tensor]:
        # Phi-4-Mini rotates a part of each head.
        if not (_is_lean(q) and cos.shape[-1] == q.shape[-1]):
            return plain(q, k, cos, sin, unsqueeze_dim)
        cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        return _rotated(q, cos, sin), _rotated(k, cos, sin)

    return apply_rotary_pos_emb


def _is_lean(values: Tensor) -> bool:
    if _is_off.get():
        return False
    return values.is_cuda or (values.dtype == torch.float32 and values.device.type == "cpu")
