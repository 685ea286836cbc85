"""Low-rank adapters: a stage trains them on frozen weights and saves a merged policy.

LoRA (Hu et al. 2021, arXiv:2106.09685) adds `alpha / rank * B A` to a linear layer; QLoRA
(Dettmers et al. 2023, arXiv:2305.14314) freezes those layers in 4 bits (NF4). peft's layers are
injected into the model, so its class stays the same for losses and engines. Every saved policy is
merged, so a reader of a policy needs no adapter. Simplified: embeddings are not trained, and each
stage that starts from a merged policy quantizes it again.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from reasoning_lab.config.model import AdapterConfig
from reasoning_lab.types import UserError


def add_adapter(policy: PreTrainedModel, config: AdapterConfig, seed: int) -> None:
    """Freeze `policy` and inject an adapter that does not change its output yet.

    Args:
        policy: A policy without adapters.
        config: The adapter's size and target layers.
        seed: Fixes the adapter's A matrices; its B matrices start at 0.

    Raises:
        UserError: No linear layer has the names of `target_modules`.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if config.kind == "qlora":
        _quantize(policy)
    options = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # peft accepts any number.
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
            # In bfloat16 the updates of a small learning rate round to zero.
            parameter.data = parameter.data.float()


def trainable_weights(policy: nn.Module) -> dict[str, Tensor]:
    """The part of the state dict that training changes; without an adapter all of it."""
    frozen = tuple(
        name
        for name, parameter in policy.named_parameters(remove_duplicate=False)
        if not parameter.requires_grad
    )
    # The state of a 4-bit weight has names that begin with the weight's own.
    state = policy.state_dict()
    return {name: value for name, value in state.items() if not name.startswith(frozen)}


def merged_weights(policy: PreTrainedModel) -> dict[str, Tensor]:
    """The policy's state dict with its adapters merged, in the policy's precision."""
    if not has_adapter(policy):
        return policy.state_dict()
    replaced = {
        name: module
        for name, module in policy.named_modules()
        if _is_adapted(module) or _is_quantized(module)
    }
    prefixes = tuple(f"{name}." for name in replaced)
    state = policy.state_dict()
    weights = {name: value for name, value in state.items() if not name.startswith(prefixes)}
    for name, module in replaced.items():
        if name.endswith(".base_layer"):
            continue
        base: Any = module.base_layer if _is_adapted(module) else module
        weights[f"{name}.weight"] = _merged_weight(module, base).to(policy.dtype)
        if base.bias is not None:
            weights[f"{name}.bias"] = base.bias
    return weights


def merged_policy(policy: PreTrainedModel) -> PreTrainedModel:
    """`policy` itself if it has no adapter, else a merged copy that can be saved."""
    if not has_adapter(policy):
        return policy
    with torch.device("meta"):
        merged = type(policy)(copy.deepcopy(policy.config))
    merged.load_state_dict(merged_weights(policy), assign=True)
    merged.tie_weights()
    merged.generation_config = policy.generation_config
    return merged


def has_adapter(policy: nn.Module) -> bool:
    """Whether a layer of `policy` has an adapter."""
    return any(_is_adapted(module) for module in policy.modules())


def _is_adapted(module: nn.Module) -> bool:
    return hasattr(module, "lora_A") and hasattr(module, "base_layer")


def _is_quantized(module: nn.Module) -> bool:
    return hasattr(getattr(module, "weight", None), "quant_state")


@torch.no_grad()
def _merged_weight(module: Any, base: Any) -> Tensor:
    """The layer's weight with its adapter added, `[out, in]` float32."""
    weight: Tensor = base.weight
    if _is_quantized(base):
        from bitsandbytes.functional import dequantize_4bit

        weight = dequantize_4bit(weight.data, base.weight.quant_state)
    if module is base:
        return weight.float()
    product: Tensor = module.get_delta_weight("default")
    return weight.float() + product.float()


def _quantize(policy: PreTrainedModel) -> None:
    """Replace the linear layers by 4-bit layers, except the output embeddings."""
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    head = policy.get_output_embeddings()
    for parent in list(policy.modules()):
        for name, linear in list(parent.named_children()):
            if type(linear) is not nn.Linear or linear is head:
                continue
            quantized = Linear4bit(  # type: ignore[no-untyped-call]
                linear.in_features,
                linear.out_features,
                bias=linear.bias is not None,
                compute_dtype=linear.weight.dtype,
                quant_type="nf4",
            )
            quantized.weight = Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4")
            quantized.bias = linear.bias
            # On some CPUs sampling would otherwise repack the weights with scales rounded to
            # bfloat16, and that form cannot be merged.
            quantized.support_avx512bf16_for_cpu = False
            # The move quantizes.
            setattr(parent, name, quantized.to(linear.weight.device))
