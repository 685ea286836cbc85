"""Tiny random models of many families, by what training needs from each."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

# Those that packed rows keep apart and whose logits are hidden states times a matrix.
PLAIN = (
    *("llama", "qwen2", "qwen3", "phi3", "mistral", "ministral", "gemma", "gemma3_text"),
    *("olmo2", "olmo3", "smollm3", "glm4", "starcoder2", "stablelm", "mixtral", "qwen3_moe"),
    *("gpt2", "gpt_neox", "phi", "nemotron", "exaone4"),
)
# Those whose logits are capped or scaled.
SCALED = ("gemma2", "granite", "cohere", "cohere2", "falcon_h1")
# Those whose packed documents read each other.
LEAKING = (
    *("gpt_oss", "opt", "bloom", "mpt", "mamba", "mamba2", "falcon_mamba", "lfm2"),
    *("qwen3_next", "falcon_h1"),
)
# Those whose cache is not keys and values alone.
STATEFUL = ("mamba", "mamba2", "falcon_mamba", "lfm2", "qwen3_next", "falcon_h1")

_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_OWN: dict[str, dict[str, Any]] = {
    "ministral": {"head_dim": 16},
    "qwen3": {"head_dim": 16},
    "gemma": {"head_dim": 16},
    "gemma2": {"head_dim": 16},
    "gemma3_text": {"head_dim": 16},
    "glm4": {"head_dim": 16},
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": {**_EXPERTS, "head_dim": 16},
    "granite": {"logits_scaling": 2.0},
    "cohere": {"logit_scale": 0.5},
    "cohere2": {"logit_scale": 0.5},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.0},
    "bloom": {"n_head": 2, "n_layer": 2},
    "mpt": {"d_model": 32, "n_heads": 2, "n_layers": 2, "max_seq_len": 256},
    "mamba": {"state_size": 4},
    "falcon_mamba": {"state_size": 4},
    "mamba2": {
        "num_heads": 4,
        "head_dim": 16,
        "state_size": 8,
        "n_groups": 1,
        "chunk_size": 16,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "gpt_oss": {
        "head_dim": 16,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "qwen3_next": {
        **_EXPERTS,
        "layer_types": ["linear_attention", "full_attention"],
        "head_dim": 16,
        "linear_num_value_heads": 2,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "shared_expert_intermediate_size": 32,
    },
    "falcon_h1": {
        "head_dim": 16,
        "mamba_d_ssm": 32,
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
        "mamba_n_groups": 1,
        "mamba_chunk_size": 16,
        "lm_head_multiplier": 0.5,
    },
}


def architecture(family: str) -> dict[str, Any]:
    """Arguments of its transformers config, without the vocabulary."""
    return {"model_type": family, **_SIZES, **_OWN.get(family, {})}


def family_model(
    family: str, dtype: torch.dtype = torch.float32, seed: int = 0, **options: Any
) -> PreTrainedModel:
    """As its family initialises it, of some thousand parameters."""
    torch.manual_seed(seed)
    defaults = {"vocab_size": 300, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1}
    config = AutoConfig.for_model(**{**defaults, **architecture(family), **options})
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.eval()
    return model
