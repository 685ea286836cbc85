"""Build a policy from scratch, load one from a checkpoint, save one.

A policy's artifact is a Hugging Face folder: safetensors, a tokenizer with a chat template, and a
generation config. Weights are never unpickled and remote code never runs.
"""

import copy
import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.kernels.binding import bind_kernels, mix_precision
from reasoning_lab.models.adapters import merged_policy
from reasoning_lab.models.chat import ensure_chat_template, set_system_prompt, stop_token_ids
from reasoning_lab.types import UserError

# For these families AutoTokenizer ignores the pre-tokenizer of tokenizer.json.
_OWN_PRETOKENIZER = ("qwen2",)
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "mixed": torch.float32}


def build_policy(
    architecture: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    dtype: str,
    seed: int,
    kernels: str = "fused",
) -> PreTrainedModel:
    """A randomly initialised causal language model for `tokenizer`.

    Args:
        architecture: Arguments of the transformers config, including `model_type`.
        tokenizer: Defines the vocabulary's size and the special tokens.
        dtype: float32, bfloat16 or mixed.
        seed: Fixes the initial weights.
        kernels: One of `hardware.KERNELS`.

    Raises:
        UserError: transformers does not know the model type, or would load another tokenizer for
            it, or the dtype is unknown.
    """
    options = dict(copy.deepcopy(architecture))
    if options.get("model_type") in _OWN_PRETOKENIZER:
        raise UserError(
            f"model.architecture.model_type={options['model_type']}: transformers would read the "
            "tokenizer trained here as Qwen's; choose qwen3"
        )
    try:
        config = AutoConfig.for_model(
            options.pop("model_type"),
            vocab_size=len(tokenizer),
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **options,
        )
    except (KeyError, ValueError) as error:
        raise UserError(
            f"model.architecture: transformers cannot build it ({error}); "
            "give a model_type that it knows, with that config's own arguments"
        ) from error
    fix_rope_factors(config, "model.architecture")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=_dtype(dtype))
    _set_kernels_and_precision(model, dtype, kernels)
    return model


def load_policy(
    path: str | Path,
    dtype: str,
    revision: str | None = None,
    key: str = "model.path",
    kernels: str = "fused",
    system_prompt: str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a policy and its tokenizer from a folder or a hub id.

    Args:
        path: The folder or the hub id.
        dtype: float32, bfloat16 or mixed.
        revision: The hub commit.
        key: The config key that names it, for the error.
        kernels: One of `hardware.KERNELS`.
        system_prompt: What its chat template then begins with; None = as it is.

    Returns:
        The policy, and its tokenizer with a chat template. Its end token is the end of a turn.

    Raises:
        UserError: There is no such model, its weights are not safetensors, or its chat template
            shows no system prompt.
    """
    tokenizer = load_tokenizer(path, revision, key, system_prompt)
    model, _ = load_model(path, dtype, revision, key, kernels)
    return model, tokenizer


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Weights that a checkpoint and its architecture do not share, by name.

    Attributes:
        missing: Of the architecture alone; their values are random.
        unexpected: Of the checkpoint alone; nothing reads them.
    """

    missing: Sequence[str]
    unexpected: Sequence[str]


def load_model(
    path: str | Path,
    dtype: str,
    revision: str | None = None,
    key: str = "model.path",
    kernels: str = "fused",
) -> tuple[PreTrainedModel, LoadReport]:
    """The model of `load_policy`, whose arguments it takes, and which weights were there."""
    try:
        config = AutoConfig.from_pretrained(path, revision=revision)
        fix_rope_factors(config, key)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path,
            config=config,
            revision=revision,
            dtype=_dtype(dtype),
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _load_error(path, key, error) from error
    model, info = loaded
    _set_kernels_and_precision(model, dtype, kernels)
    return model, LoadReport(sorted(info["missing_keys"]), sorted(info["unexpected_keys"]))


def _set_kernels_and_precision(model: PreTrainedModel, dtype: str, kernels: str) -> None:
    if kernels == "fused":
        bind_kernels(model)
    if dtype == "mixed":
        mix_precision(model)


def load_tokenizer(
    path: str | Path, revision: str | None, key: str, system_prompt: str | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer of a policy; arguments, result and errors as for `load_policy`."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, revision=revision)
    except (OSError, ValueError) as error:
        raise _load_error(path, key, error) from error
    ensure_chat_template(tokenizer)
    if system_prompt is not None:
        set_system_prompt(tokenizer, system_prompt, f"{key.partition('.')[0]}.system_prompt")
    return tokenizer


def _load_error(path: str | Path, key: str, error: Exception) -> UserError:
    first_line = str(error).strip().splitlines()[0]
    return UserError(
        f"{key}: cannot load '{path}' ({first_line}); give a Hugging Face folder with "
        "safetensors, or a hub id that this machine can reach; conf/MODELS.md makes a small one "
        "without a hub"
    )


def fix_rope_factors(config: PreTrainedConfig, key: str) -> None:
    """Make the rotation of a position independent of the rest of the batch.

    In transformers the longest row of a batch decides whether LongRoPE's short or long factors
    rotate the whole batch, and cached keys keep their old rotation. A document would then have
    different logprobs packed, padded and alone. Here, and in the saved policy, the long factors
    always apply, as in vLLM at the model's full context.

    Raises:
        UserError: The rotation depends on the longest text so far ("dynamic"), which this cannot
            change.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    kind = str(rope.get("rope_type", "default"))
    if "dynamic" in kind:
        raise UserError(
            f"{key}: its rotary embedding ('{kind}') depends on the rest of the batch, so packed, "
            "padded and single texts would differ; choose a model without it"
        )
    if kind == "longrope":
        rope["short_factor"] = list(rope["long_factor"])


def context_tokens(model: PreTrainedModel) -> int | None:
    """The longest text that the model reads, in tokens; None = any."""
    tokens: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return tokens


def sampling_device(hardware: HardwareConfig) -> torch.device:
    """The device of a policy that only samples; Lightning places policies that train."""
    gpu = hardware.accelerator != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if gpu else "cpu")


def to_device(policy: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """Move `policy` to `device` and return it."""
    # transformers wraps `to` in a decorator whose type has no `self`.
    moved: PreTrainedModel = policy.to(device)  # type: ignore[arg-type]
    return moved


def save_policy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Save `model` with its adapter merged, so that transformers and vLLM can load it.

    Args:
        model: The policy.
        tokenizer: Its tokenizer.
        folder: The folder to write.
        weights: The whole state dict, where `model` holds only a shard of it.
    """
    stop_ids = stop_token_ids(model, tokenizer)
    merged = merged_policy(model)
    merged.generation_config = GenerationConfig(
        eos_token_id=stop_ids if stop_ids[1:] else stop_ids[0], pad_token_id=tokenizer.pad_token_id
    )
    merged.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)


def _dtype(name: str) -> torch.dtype:
    if name not in _DTYPES:
        raise UserError(f"model.dtype: '{name}' is unknown; choose {' or '.join(_DTYPES)}")
    return _DTYPES[name]


def free_memory() -> None:
    """Free models in reference cycles, on the device too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
