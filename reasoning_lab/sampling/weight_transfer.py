"""Weights for a vLLM server elsewhere, sent by vLLM's own weight transfer over NCCL.

The server was started with `--weight-transfer-config '{"backend": "nccl"}'`. One trainer and all
workers of the server form a group of NCCL, through which each update goes tensor by tensor. So no
folder is shared, and nothing beside the policy takes memory.
"""

import importlib.util
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import torch

from reasoning_lab.models.adapters import merged_weights
from reasoning_lab.types import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

BACKEND = "nccl"
START_OPTION = f"""--weight-transfer-config '{{"backend": "{BACKEND}"}}'"""

# Sends a request to the server: its method, its path and its body.
Request = Callable[[str, str, Mapping[str, Any] | None], Any]


def can_transfer() -> bool:
    """Whether this process has what sends weights: a GPU, and vLLM."""
    return torch.accelerator.is_available() and importlib.util.find_spec("vllm") is not None


class WeightTransfer:
    """Sends a policy's weights to one server.

    Args:
        url: The server's address.
        request: Reaches it.
        device: Where the weights are that will be sent.
        timeout_s: For the server to answer; NCCL itself would wait for ever.

    Raises:
        UserError: The server refuses, or cannot reach this machine.
    """

    def __init__(self, url: str, request: Request, device: torch.device, timeout_s: float) -> None:
        from vllm.distributed.weight_transfer.nccl_engine import (
            NCCLTrainerInitInfo,
            NCCLTrainerWeightTransferEngine,
        )

        self._url, self._device, self._timeout_s = url, device, timeout_s
        address, port = _rendezvous(url)
        workers = request("GET", "/get_world_size", None)["world_size"]
        group = NCCLTrainerInitInfo(address, port, 1 + workers, packed=False, rank=0)
        self._where = f"which it reaches at {address}:{port}"
        self._weights, self._control = _Weights(), _Control(request)
        self._engine = self._in_time(
            lambda: NCCLTrainerWeightTransferEngine.trainer_init(
                group, client=self._control, source=self._weights
            )
        )

    def send(self, policy: "PreTrainedModel") -> None:
        """Send the weights that the policy has now; it is whole on this process's device.

        Raises:
            UserError: The server ended meanwhile, or refuses them.
        """
        self._weights.merged = merged_weights(policy)
        self._in_time(self._engine.send_weights)
        self._weights.merged = {}

    def close(self) -> None:
        """Leave the group."""
        self._engine.shutdown()

    def _in_time(self, call: Callable[[], Any]) -> Any:
        """What `call` returns, in a thread that may hang after a peer has gone."""
        results: list[Any] = []
        errors: list[Exception] = []

        def run() -> None:
            try:
                if self._device.type != "cpu":  # A thread begins with the first of them.
                    torch.accelerator.set_device_index(self._device)
                results.append(call())
            except Exception as error:  # Raised below, in the thread that asked.
                errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        deadline = time.monotonic() + self._timeout_s
        while thread.is_alive() and not self._control.errors and time.monotonic() < deadline:
            thread.join(0.1)
        if results:
            return results[0]
        if self._control.errors:
            raise self._control.errors[0]
        reason = errors[0] if errors else f"nothing came of it in {self._timeout_s:g} s"
        raise UserError(
            f"hardware.sampling.rollout_urls: '{self._url}' did not take the weights of this "
            f"machine, {self._where} ({reason}); open the way between the two, or start it without "
            "--weight-transfer-config, so that it reads them in hardware.sampling.weights_dir"
        ) from (errors[0] if errors else None)


class _Control:
    """vLLM's requests about a transfer; see its protocol `VLLMWeightSyncClient`.

    Attributes:
        errors: Of requests that failed, which leave vLLM's own call waiting for the server.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self.errors: list[UserError] = []

    def init_weight_transfer_engine(self, init_info: Mapping[str, Any]) -> None:
        self._post("/init_weight_transfer_engine", {"init_info": init_info})

    def start_weight_update(self) -> None:
        self._post("/start_weight_update", None)

    def update_weights(self, update_info: Mapping[str, Any]) -> None:
        self._post("/update_weights", {"update_info": update_info})

    def finish_weight_update(self) -> None:
        self._post("/finish_weight_update", None)

    def _post(self, path: str, body: Mapping[str, Any] | None) -> None:
        try:
            self._request("POST", path, body)
        except UserError as error:
            self.errors.append(error)
            raise


class _Weights:
    """Weights for vLLM; see its `WeightSource`, whose other methods NCCL needs not.

    Attributes:
        merged: By name, those of a policy with its adapter merged.
    """

    merged: "Mapping[str, Tensor]" = MappingProxyType({})

    def metadata(self) -> list[Any]:
        from vllm.distributed.weight_transfer.base import ParamMeta

        weights = self.merged.items()
        return [ParamMeta(name, weight.dtype, tuple(weight.shape)) for name, weight in weights]

    def __iter__(self) -> "Iterator[tuple[str, Tensor]]":
        return iter(self.merged.items())


def _rendezvous(url: str) -> tuple[str, int]:
    """This machine's address as the server sees it, and a port that is free now."""
    server = urlsplit(url)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((server.hostname, server.port or 80))  # Sends nothing.
        address: str = probe.getsockname()[0]
    with socket.socket() as listener:
        listener.bind((address, 0))
        return address, listener.getsockname()[1]
