"""Build a policy from scratch, load one from a checkpoint, write one out.

A policy's artifact is a Hugging Face folder: safetensors, tokenizer with chat template,
generation config. Weights are never unpickled and remote code never runs.
"""

import copy
import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
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
from reasoning_lab.models.adapters import plain_policy
from reasoning_lab.models.chat import complete_chat, end_ids
from reasoning_lab.types import UserError

# transformers' AutoTokenizer splits text its own way for it, whatever tokenizer.json says.
_READS_ANOTHER_TOKENIZER = ("qwen2",)
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
        architecture: Arguments of the transformers config, `model_type` among them.
        tokenizer: Gives the vocabulary's size and the special tokens.
        dtype: float32, bfloat16 or mixed.
        seed: Of the initial weights.
        kernels: Of `hardware.KERNELS`.

    Raises:
        UserError: For a model type that transformers does not know, or reads with a tokenizer of
            its own, or an unknown dtype.
    """
    options = dict(copy.deepcopy(architecture))
    if options.get("model_type") in _READS_ANOTHER_TOKENIZER:
        raise UserError(
            f"model.architecture.model_type={options['model_type']}: transformers takes any "
            "tokenizer beside it for Qwen's, which the one trained here is not; choose qwen3"
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
    fix_rotation(config, "model.architecture")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=_dtype(dtype))
    _set_arithmetic(model, dtype, kernels)
    return model


def load_policy(
    path: str | Path,
    dtype: str,
    revision: str | None = None,
    key: str = "model.path",
    kernels: str = "fused",
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a policy and its tokenizer from a folder or a hub id.

    Args:
        path: The folder or the hub id.
        dtype: float32, bfloat16 or mixed.
        revision: The hub commit.
        key: The config key that names it, for the error.
        kernels: Of `hardware.KERNELS`.

    Returns:
        The policy, and its tokenizer with a chat template whose end of a turn is the end token.

    Raises:
        UserError: When there is no such model, or its weights are not safetensors.
    """
    tokenizer = load_tokenizer(path, revision, key)
    try:
        config = AutoConfig.from_pretrained(path, revision=revision)
        fix_rotation(config, key)
        model = AutoModelForCausalLM.from_pretrained(
            path, config=config, revision=revision, dtype=_dtype(dtype), use_safetensors=True
        )
    except (OSError, ValueError) as error:
        raise _unloadable(path, key, error) from error
    _set_arithmetic(model, dtype, kernels)
    return model, tokenizer


def _set_arithmetic(model: PreTrainedModel, dtype: str, kernels: str) -> None:
    if kernels == "fused":
        bind_kernels(model)
    if dtype == "mixed":
        mix_precision(model)


def load_tokenizer(path: str | Path, revision: str | None, key: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a policy; arguments, result and errors as for `load_policy`."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, revision=revision)
    except (OSError, ValueError) as error:
        raise _unloadable(path, key, error) from error
    complete_chat(tokenizer)
    return tokenizer


def _unloadable(path: str | Path, key: str, error: Exception) -> UserError:
    first_line = str(error).strip().splitlines()[0]
    return UserError(
        f"{key}: cannot load '{path}' ({first_line}); give a Hugging Face folder with "
        "safetensors, or a hub id that this machine can reach"
    )


def fix_rotation(config: PreTrainedConfig, key: str) -> None:
    """Have a position be rotated alike whatever else is in the batch.

    transformers lets the longest row of a batch decide whether LongRoPE's short or long factors
    rotate all of it, and leaves cached keys as they were turned; a document would mean something
    else packed, padded and alone. Here, as in vLLM at the model's full context, and in the saved
    policy, they are always the long ones.

    Raises:
        UserError: The rotation follows the longest text read so far ("dynamic"), which cannot be
            fixed so.
    """
    rotation = getattr(config, "rope_parameters", None) or {}
    kind = str(rotation.get("rope_type", "default"))
    if "dynamic" in kind:
        raise UserError(
            f"{key}: its rotary embedding ('{kind}') depends on what else was read, so packed, "
            "padded and single texts would differ; choose a model without it"
        )
    if kind == "longrope":
        rotation["short_factor"] = list(rotation["long_factor"])


def device_of(hardware: HardwareConfig) -> torch.device:
    """Where a policy that only samples runs; training devices are Lightning's."""
    gpu = hardware.accelerator != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if gpu else "cpu")


def on_device(policy: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """`policy` itself, moved."""
    # transformers wraps `to` in a decorator whose type has lost `self`.
    moved: PreTrainedModel = policy.to(device)  # type: ignore[arg-type]
    return moved


def save_policy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write `model`, its adapter merged, so that transformers and vLLM load it from `folder`.

    `weights` are its own where it holds only a shard of them.
    """
    ends = end_ids(model, tokenizer)
    plain = plain_policy(model)
    plain.generation_config = GenerationConfig(
        eos_token_id=ends if ends[1:] else ends[0], pad_token_id=tokenizer.pad_token_id
    )
    plain.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)


def _dtype(name: str) -> torch.dtype:
    if name not in _DTYPES:
        raise UserError(f"model.dtype: '{name}' is unknown; choose {' or '.join(_DTYPES)}")
    return _DTYPES[name]


def free_memory() -> None:
    """Let go of models that nothing but themselves refers to, on the device too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
