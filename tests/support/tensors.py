"""Tensors that torch and transformers type as if they might be missing, and how large they get."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import Parameter
from torch.profiler import ProfilerActivity, profile
from transformers import PreTrainedModel


def gradient_of(tensor: Tensor) -> Tensor:
    """The gradient that a backward pass left."""
    assert tensor.grad is not None
    return tensor.grad


def embedding(model: PreTrainedModel) -> Parameter:
    """`[V, D]`, each token's embedding."""
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, Parameter)
    return weight


def projection(model: PreTrainedModel) -> Parameter:
    """`[V, D]`, from a hidden state to logits."""
    weight = model.get_output_embeddings().weight
    assert isinstance(weight, Parameter)
    return weight


def largest_allocation(run: Callable[[], object]) -> int:
    """Bytes of the largest tensor that was made, inside torch's own operations too."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    assert profiler.profiler is not None
    sizes = []
    pending = list(profiler.profiler.kineto_results.experimental_event_tree())
    while pending:
        event = pending.pop()
        pending += event.children
        sizes.append(getattr(event.typed[1], "alloc_size", 0))
    return max(sizes)
