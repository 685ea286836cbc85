"""NCCL where there is no GPU: a process group's own store carries the tensors.

vLLM sends weights to a server by NCCL alone, which runs on GPUs alone. Here all of vLLM's transfer
is real but that broadcast. A server has it as a plugin of vLLM; see `plugin_folder`.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_NAME = "nccl_stand_in"
# What a server says of its options that takes weights over NCCL.
OFFERED = {"weight_transfer_config": {"backend": "nccl"}}


class StandInCommunicator:
    """Broadcasts a tensor through the store of the group, as `PyNcclCommunicator` does by NCCL."""

    def __init__(self, group: Any, device: Any) -> None:
        self._group = group

    def broadcast(self, tensor: Tensor, src: int, stream: Any = None) -> None:
        if self._group.rank == src:
            self._group.broadcast_obj(tensor.clone(), src)
        else:
            tensor.copy_(self._group.broadcast_obj(None, src))

    def destroy(self) -> None:
        pass


def places() -> list[tuple[Any, str]]:
    """The modules, and the names in them, that `install` replaces."""
    from vllm.distributed.device_communicators import pynccl

    return [
        (pynccl, "PyNcclCommunicator"),
        (torch.accelerator, "current_device_index"),
        (torch.cuda, "current_stream"),
    ]


def install() -> None:
    """Take the place of NCCL and of the GPU that it would ask for, in this process."""
    stand_ins = (StandInCommunicator, lambda: 0, lambda device=None: None)
    for (module, name), stand_in in zip(places(), stand_ins, strict=True):
        setattr(module, name, stand_in)


def plugin_folder(parent: Path) -> Path:
    """A folder for `PYTHONPATH`, by which every vLLM process calls `install`."""
    description = parent / f"{_NAME}-1.0.dist-info"
    description.mkdir(parents=True)
    (description / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {_NAME}\nVersion: 1.0\n")
    (description / "entry_points.txt").write_text(
        f"[vllm.general_plugins]\n{_NAME} = {__name__}:install\n"
    )
    return parent
