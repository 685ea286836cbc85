"""A random Phi-3 that is small enough to compare exactly, for the tests of logprobs and engine."""

import torch
from transformers import Phi3Config, Phi3ForCausalLM


def tiny_phi3(
    vocab: int, pad_id: int, end_id: int, *, seed: int, initializer_range: float
) -> Phi3ForCausalLM:
    """Two layers with grouped-query attention, head dimension 32."""
    torch.manual_seed(seed)
    config = Phi3Config(
        vocab_size=vocab,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=initializer_range,
        pad_token_id=pad_id,
        bos_token_id=None,
        eos_token_id=end_id,
    )
    return Phi3ForCausalLM(config).eval()
