"""How much of its device a training uses: memory, and FLOPs as a share of the device's peak."""

import resource

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.models.adapters import has_adapter
from reasoning_lab.models.cost import DEVICES
from reasoning_lab.models.footprint import attention_widths
from reasoning_lab.models.policy import sampling_device


class DeviceUse:
    """Counts a step's FLOPs on this rank's device, where `hardware.gpu_model` says what it is.

    Args:
        policy: Whole, before a strategy divides it.
        hardware: The stage's.
    """

    def __init__(self, policy: PreTrainedModel, hardware: HardwareConfig) -> None:
        self._on_gpu = sampling_device(hardware).type == "cuda"
        self._device = DEVICES.get(hardware.gpu_model or "") if self._on_gpu else None
        self._costs = training_costs(policy) if self._device else (0, 0)
        self.start_step()

    def start_step(self) -> None:
        """Forget the passes of the step before."""
        self._flops = torch.zeros((), dtype=torch.float64)

    def add(self, lengths: Int[Tensor, " D"]) -> None:
        """Count a forward and a backward pass over documents of so many tokens."""
        if self._device:
            token, squared = self._costs
            tokens = lengths.double()
            # Not a Python number, which would wait for the device.
            self._flops = self._flops.to(lengths.device) + (
                token * tokens.sum() + squared * tokens.square().sum()
            )

    def metrics(self, seconds: float) -> dict[str, float]:
        """What is logged of a step that has taken so many seconds."""
        peak = (
            torch.cuda.max_memory_allocated()
            if self._on_gpu
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        )
        values = {"device/peak_memory_bytes": float(peak)}
        if self._device:
            values["device/mfu"] = float(self._flops) / seconds / self._device.flops_per_s
        return values


def training_costs(policy: PreTrainedModel) -> tuple[int, int]:
    """FLOPs of a forward and a backward pass, per token and per squared token of a document.

    The estimate of `reasoning_lab.models.cost.training_flops`, of the parameters that there are.
    Beside an adapter the gradients of the frozen weights are left out, a third of the former.
    """
    config = policy.config.get_text_config()
    products = policy.num_parameters(exclude_embeddings=not config.tie_word_embeddings)
    queries, _, _ = attention_widths(config.to_dict())
    per_token = 4 if has_adapter(policy) else 6
    return per_token * products, 6 * config.num_hidden_layers * queries
