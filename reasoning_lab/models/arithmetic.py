"""Another arithmetic for one model, for a while: without dropout, transformers' own, or rounded.

What a probe needs to hold one way of computing to another; everything is afterwards what it was.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from reasoning_lab.logprobs import has_reference_kernels, use_reference_kernels
from reasoning_lab.models.lean import transformers_ops


@contextmanager
def full_float32() -> Iterator[None]:
    """A GPU's products of float32 in all its digits, not in TF32's ten."""
    backends: Any = (torch.backends.cudnn, torch.backends.cuda.matmul)
    if not torch.cuda.is_available():
        yield
        return
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    try:
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout; modes and the attention implementation are afterwards what they were."""
    training = [module for module in model.modules() if module.training]
    implementation: str = model.config._attn_implementation
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
        if model.config._attn_implementation != implementation:
            model.set_attn_implementation(implementation)


@contextmanager
def as_transformers(model: PreTrainedModel) -> Iterator[None]:
    """Logprobs are those of the model's own forward, with transformers' own operations."""
    before = has_reference_kernels(model)
    use_reference_kernels(model)
    try:
        with transformers_ops():
            yield
    finally:
        use_reference_kernels(model, before)


@contextmanager
def rounding(model: PreTrainedModel, dtype: torch.dtype | None = None) -> Iterator[None]:
    """Every layer's result moves at random by a unit in its last place, of `dtype` at least."""
    generator = torch.Generator(model.device).manual_seed(0)
    coarsest = torch.finfo(dtype).eps if dtype is not None else 0.0

    def moved(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(moved(part) for part in value)
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        epsilon = max(torch.finfo(value.dtype).eps, coarsest)
        uniform = torch.rand(value.shape, generator=generator, device=value.device)
        return (value.float() * (1 + epsilon * (2 * uniform - 1))).to(value.dtype)

    layers = [module for module in model.modules() if not list(module.children())]
    handles = [
        layer.register_forward_hook(lambda module, inputs, output: moved(output))
        for layer in layers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
