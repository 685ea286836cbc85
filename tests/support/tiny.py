"""Random models that are small enough to compare exactly, for the tests of logprobs and engine."""

from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Phi3ForCausalLM,
    PreTrainedModel,
)


def tiny_phi3(
    vocab: int, pad_id: int, end_id: int, *, seed: int, initializer_range: float
) -> Phi3ForCausalLM:
    """Two layers with grouped-query attention, head dimension 32."""
    model = _two_layers("phi3", vocab, pad_id, end_id, 2, seed, initializer_range=initializer_range)
    assert isinstance(model, Phi3ForCausalLM)
    return model


def tiny_model(
    model_type: str, vocab: int, pad_id: int, end_id: int, *, seed: int, **options: Any
) -> PreTrainedModel:
    """Two layers, four query heads on two key heads; norms and biases are random too."""
    model = _two_layers(
        model_type, vocab, pad_id, end_id, 4, seed, initializer_range=0.1, **options
    )
    for name, parameter in model.named_parameters():
        if "norm" in name or "bias" in name:
            torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.2)
    return model


def _two_layers(
    model_type: str, vocab: int, pad_id: int, end_id: int, heads: int, seed: int, **options: Any
) -> PreTrainedModel:
    """Half as many key heads as query heads, 64 wide."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        model_type,
        vocab_size=vocab,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        pad_token_id=pad_id,
        bos_token_id=None,
        eos_token_id=end_id,
        **options,
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    model.eval()
    return model
