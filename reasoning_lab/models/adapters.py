"""Low-rank adapters: a stage trains them on frozen weights and leaves a plain policy.

LoRA (Hu et al. 2021, arXiv:2106.09685) adds `alpha / rank * B A` to a linear layer; QLoRA
(Dettmers et al. 2023, arXiv:2305.14314) freezes those layers in 4 bits (NF4). peft's layers are
put into the model itself, so the model stays what it is to losses and engines. What a stage
writes is merged: no reader of a policy knows of adapters. Simplified: embeddings never learn, and
each stage that starts from a merged policy quantises it anew.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from reasoning_lab.config.model import AdapterConfig
from reasoning_lab.types import UserError


def add_adapter(policy: PreTrainedModel, config: AdapterConfig, seed: int) -> None:
    """Freeze `policy` and put an adapter that changes nothing yet into its blocks.

    Args:
        policy: Plain.
        config: Its size and place.
        seed: Of the adapter's first half; the other begins as 0.

    Raises:
        UserError: No linear layer has the names of `target_modules`.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if config.kind == "qlora":
        _quantize(policy)
    options = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # Any number will do.
        lora_dropout=config.dropout,
        target_modules=config.target_modules or "all-linear",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(options, policy)
        except ValueError as error:
            raise UserError(
                f"model.adapter.target_modules: the model has none of "
                f"{config.target_modules} ({str(error).splitlines()[0]}); give names of its linear "
                "layers, or null for all"
            ) from error
    for parameter in policy.parameters():
        if parameter.requires_grad:
            # Steps of a small learning rate get lost in bfloat16.
            parameter.data = parameter.data.float()


def learning_weights(policy: nn.Module) -> dict[str, Tensor]:
    """The part of the state that training changes: all of it without an adapter."""
    frozen = tuple(
        name
        for name, parameter in policy.named_parameters(remove_duplicate=False)
        if not parameter.requires_grad
    )
    # Beside a 4-bit weight stands what it is read with, under names that begin with its own.
    return {k: v for k, v in policy.state_dict().items() if not k.startswith(frozen)}


def plain_weights(policy: PreTrainedModel) -> dict[str, Tensor]:
    """The weights of the same policy without adapters, merged, in the policy's precision."""
    if not has_adapter(policy):
        return policy.state_dict()
    replaced = {
        name: module
        for name, module in policy.named_modules()
        if _is_adapted(module) or _is_quantized(module)
    }
    inside = tuple(f"{name}." for name in replaced)
    weights = {k: v for k, v in policy.state_dict().items() if not k.startswith(inside)}
    for name, module in replaced.items():
        if name.endswith(".base_layer"):
            continue
        base: Any = module.base_layer if _is_adapted(module) else module
        weights[f"{name}.weight"] = _merged(module, base).to(policy.dtype)
        if base.bias is not None:
            weights[f"{name}.bias"] = base.bias
    return weights


def plain_policy(policy: PreTrainedModel) -> PreTrainedModel:
    """`policy` itself without an adapter, else a merged one, good for being saved."""
    if not has_adapter(policy):
        return policy
    with torch.device("meta"):
        plain = type(policy)(copy.deepcopy(policy.config))
    plain.load_state_dict(plain_weights(policy), assign=True)
    plain.tie_weights()
    plain.generation_config = policy.generation_config
    return plain


def has_adapter(policy: nn.Module) -> bool:
    """Whether `add_adapter` was here."""
    return any(_is_adapted(module) for module in policy.modules())


def _is_adapted(module: nn.Module) -> bool:
    return hasattr(module, "lora_A") and hasattr(module, "base_layer")


def _is_quantized(module: nn.Module) -> bool:
    return hasattr(getattr(module, "weight", None), "quant_state")


@torch.no_grad()
def _merged(module: Any, base: Any) -> Tensor:
    """`[out, in]` float32."""
    weight: Tensor = base.weight
    if _is_quantized(base):
        from bitsandbytes.functional import dequantize_4bit

        weight = dequantize_4bit(weight.data, base.weight.quant_state)
    if module is base:
        return weight.float()
    product: Tensor = module.get_delta_weight("default")
    return weight.float() + product.float()


def _quantize(policy: PreTrainedModel) -> None:
    """Put 4-bit layers in place of the linear ones, but for the output embeddings."""
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    head = policy.get_output_embeddings()
    for parent in list(policy.modules()):
        for name, linear in list(parent.named_children()):
            if type(linear) is not nn.Linear or linear is head:
                continue
            small = Linear4bit(  # type: ignore[no-untyped-call]
                linear.in_features,
                linear.out_features,
                bias=linear.bias is not None,
                compute_dtype=linear.weight.dtype,
                quant_type="nf4",
            )
            small.weight = Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4")
            small.bias = linear.bias
            # Else some CPUs' sampling packs the weights anew, with scales rounded to bfloat16, into
            # a form that no merge can read.
            small.support_avx512bf16_for_cpu = False
            # Moving is what quantises.
            setattr(parent, name, small.to(linear.weight.device))
