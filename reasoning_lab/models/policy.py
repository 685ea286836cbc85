"""Build a policy from scratch, load one from a checkpoint, write one out.

A policy's artifact is a Hugging Face folder: safetensors, tokenizer with chat template,
generation config. Weights are never unpickled and remote code never runs.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from reasoning_lab.schema import HardwareConfig
from reasoning_lab.types import UserError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def build_policy(
    architecture: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, dtype: str, seed: int
) -> PreTrainedModel:
    """A randomly initialised causal language model for `tokenizer`.

    Args:
        architecture: Arguments of the transformers config, `model_type` among them.
        tokenizer: Gives the vocabulary's size and the special tokens.
        dtype: float32 or bfloat16.
        seed: Of the initial weights.

    Raises:
        UserError: For a model type that transformers does not know, or an unknown dtype.
    """
    options = dict(copy.deepcopy(architecture))
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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=_dtype(dtype))
    return model


def load_policy(
    path: str | Path, dtype: str, revision: str | None = None, key: str = "model.path"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a policy and its tokenizer from a folder or a hub id.

    Args:
        path: The folder or the hub id.
        dtype: float32 or bfloat16.
        revision: The hub commit.
        key: The config key that names it, for the error.

    Raises:
        UserError: When there is no such model, or its weights are not safetensors.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision)
        model = AutoModelForCausalLM.from_pretrained(
            path, revision=revision, dtype=_dtype(dtype), use_safetensors=True
        )
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise UserError(
            f"{key}: cannot load '{path}' ({first_line}); give a Hugging Face folder with "
            "safetensors, or a hub id that this machine can reach"
        ) from error
    return model, tokenizer


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
    """Write `model` so that transformers and vLLM load it from `folder`.

    `weights` are its own where it holds only a shard of them.
    """
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)


def _dtype(name: str) -> torch.dtype:
    if name not in _DTYPES:
        raise UserError(f"model.dtype: '{name}' is unknown; choose {' or '.join(_DTYPES)}")
    return _DTYPES[name]
