"""Which kernels one model has; no other model, of its class or not, is changed.

A model to which nothing is bound computes with transformers' own forward, over right-padded rows:
the reference. `bind_kernels` gives it the fast paths of this folder, each for the families that it
knows. `hardware.kernels=reference` leaves them out.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

from reasoning_lab.kernels.fused_ops import bind_fused_ops, unbind_fused_ops


def bind_kernels(model: PreTrainedModel) -> None:
    """Have `model` take the fast paths that know its family."""
    bind_fused_ops(model)
    model._has_kernels = True  # type: ignore[assignment]


def has_kernels(model: PreTrainedModel) -> bool:
    """Whether `bind_kernels` was here."""
    return bool(getattr(model, "_has_kernels", False))


@contextmanager
def reference_kernels(model: PreTrainedModel) -> Iterator[None]:
    """`model` computes with its own forward and transformers' own operations here."""
    bound = has_kernels(model)
    unbind_fused_ops(model)
    model._has_kernels = False  # type: ignore[assignment]
    try:
        yield
    finally:
        if bound:
            bind_kernels(model)


def pad_documents(model: PreTrainedModel) -> None:
    """Have documents reach `model` as padded rows, whatever its family."""
    model._pads_documents = True  # type: ignore[assignment]


def pads_documents(model: PreTrainedModel) -> bool:
    """Whether `pad_documents` was here."""
    return bool(getattr(model, "_pads_documents", False))


def mix_precision(model: PreTrainedModel, mixes: bool = True) -> None:
    """Have products be taken in bfloat16 from the model's float32 weights."""
    model._mixes_precision = mixes  # type: ignore[assignment]


def mixes_precision(model: PreTrainedModel) -> bool:
    """Whether `mix_precision` was here."""
    return bool(getattr(model, "_mixes_precision", False))
