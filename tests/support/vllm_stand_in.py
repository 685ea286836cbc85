"""A stand-in for vLLM's server on loopback, which generates with transformers.

It loads weights, restarts, fails and refuses on demand, which the real server does slowly or not.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reasoning_lab.models.policy import load_policy
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.sampling.hf import HFEngine
from tests.support.loopback import Handler, listening

MODEL = {
    "logprobs_mode": "processed_logprobs",
    "dtype": "torch.float32",
    "max_model_len": 64,
}

Reply = tuple[int, dict[str, Any]]
# transformers patches tie_weights while it loads: two loads at once would leave it patched.
_LOADING = threading.Lock()


@dataclass
class StandIn:
    """A server on a policy.

    Attributes:
        checkpoint: Folder of the checkpoint that it starts with.
        override: From a path and the number of earlier requests to it to a reply, or None for the
            usual reply. A status of 0 closes the connection without a reply.
        model: Fields of its model config that differ from the usual.
        config: Further options that it tells.
        instance: Number of starts.
        bodies: Bodies of all served requests, by path.
        weights: Folder of the loaded weights.
    """

    checkpoint: Path
    override: Callable[[str, int], Reply | None] = lambda path, before: None
    model: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    instance: int = 0
    bodies: dict[str, list[Any]] = field(default_factory=dict)
    weights: Path | None = None
    url: str = ""
    requests: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Start again with the checkpoint."""
        self.instance += 1
        self.load(self.checkpoint)

    def load(self, folder: Path) -> None:
        """Load a policy."""
        self.weights = folder
        with _LOADING:
            self.engine = HFEngine(*load_policy(folder, "float32"), 8)

    def answer(self, path: str, body: dict[str, Any]) -> Reply:
        with self.lock:
            before = self.requests.get(path, 0)
            self.requests[path] = before + 1
            override = self.override(path, before)
            if override is not None:
                return override
            self.bodies.setdefault(path, []).append(body)
            if path == "/server_info":
                model_config = MODEL | self.model
                config = {"instance_id": str(self.instance), "model_config": model_config}
                return 200, {"vllm_config": config | self.config}
            if path == "/get_world_size":
                return 200, {"world_size": 1}
            if path == "/collective_rpc":
                assert body["method"] == "reload_weights"
                self.load(Path(body["kwargs"]["weights_path"]))
                return 200, {"results": [None]}
            if path == "/reset_prefix_cache":
                return 200, {"success": True}
            return 200, self._completion(body)

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        sampling = Sampling(body["temperature"], body["top_p"], body["max_tokens"])
        (completion,) = self.engine.complete([body["prompt"]], sampling, [body["seed"]])
        choice = {
            "token_ids": list(completion.token_ids),
            "logprobs": {"token_logprobs": list(completion.logprobs)},
            "finish_reason": "length" if completion.truncated else "stop",
        }
        return {"choices": [choice]}


@contextmanager
def running_stand_in(server: StandIn) -> Iterator[StandIn]:
    class Answering(Handler):
        def answer(self, body: bytes) -> None:
            request = json.loads(body) if body else {}
            status, content = server.answer(self.path.partition("?")[0], request)
            if status == 0:
                self.close_connection = True
                return
            self.reply(status, json.dumps(content).encode())

    with listening(Answering) as server.url:
        yield server
