"""Where vLLM samples from a policy that trains, and what of `hardware` it cannot use there."""

import re

from reasoning_lab.config.components import require_package
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.types import UserError


def uses_servers(hardware: HardwareConfig) -> bool:
    """Whether vLLM samples in servers, which the ranks share.

    They are named, or rank 0 starts one whose model several devices share.
    """
    limits = hardware.sampling
    is_wide = hardware.strategy != "single" and limits.tensor_parallel_size > 1
    return is_wide or bool(limits.rollout_urls)


def check_vllm(key: str, hardware: HardwareConfig) -> None:
    """Refuse options of vLLM that do not fit where it runs: beside the trainers or in servers."""
    limits = hardware.sampling
    if uses_servers(hardware) and limits.sleep:
        raise UserError(
            "hardware.sampling.sleep: only vLLM in the trainer's own process, or in one beside it, "
            "gives its memory back; leave it out, or leave out rollout_urls and set "
            "tensor_parallel_size=1"
        )
    for url in limits.rollout_urls:
        if not re.fullmatch(r"https?://[^/]+(/v1)?/?", url):
            raise UserError(
                f"hardware.sampling.rollout_urls: '{url}' is not a server's address; give one like "
                "http://10.0.0.2:8000"
            )
    if limits.rollout_urls:
        return
    otherwise = "name vLLM servers elsewhere by hardware.sampling.rollout_urls, or choose hf"
    require_package("vllm", key, "vllm", f", {otherwise}")
    is_alone = hardware.strategy == "single"
    if is_alone and max(limits.tensor_parallel_size, limits.data_parallel_size) > 1:
        raise UserError(
            f"{key}=vllm shares its process and its device with the trainer; set "
            "hardware.sampling.tensor_parallel_size and data_parallel_size to 1"
        )
