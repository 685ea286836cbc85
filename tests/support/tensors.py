"""Tensors that torch and transformers type as if they might be missing."""

from torch import Tensor
from torch.nn import Parameter
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
