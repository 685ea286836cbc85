"""What vLLM's server answers, by transformers, on loopback: it takes weights, falls and refuses.

For what the real one takes a minute to do, or does not do on demand.
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
# transformers patches its own tie_weights while it loads: two at once would leave it patched.
_LOADING = threading.Lock()


@dataclass
class StandIn:
    """A server on a policy.

    Attributes:
        checkpoint: Folder that it was started on.
        instead: Answers in place of the server, unless it gives None; a status of 0 ends the
            connection without an answer. Gets a path and how often it was asked before.
        model: What it says of its model.
        instance: Differs from one start to the next.
        bodies: Of all requests that were answered, by path.
        weights: Folder of the weights that it has.
    """

    checkpoint: Path
    instead: Callable[[str, int], Reply | None] = lambda path, before: None
    model: dict[str, Any] = field(default_factory=dict)
    instance: int = 0
    bodies: dict[str, list[Any]] = field(default_factory=dict)
    weights: Path | None = None
    url: str = ""
    asked: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Start again, on the checkpoint."""
        self.instance += 1
        self.read(self.checkpoint)

    def read(self, folder: Path) -> None:
        """Take over a policy."""
        self.weights = folder
        with _LOADING:
            self.engine = HFEngine(*load_policy(folder, "float32"), 8)

    def answer(self, path: str, body: dict[str, Any]) -> Reply:
        with self.lock:
            before = self.asked.get(path, 0)
            self.asked[path] = before + 1
            instead = self.instead(path, before)
            if instead is not None:
                return instead
            self.bodies.setdefault(path, []).append(body)
            if path == "/server_info":
                told = {"instance_id": str(self.instance), "model_config": MODEL | self.model}
                return 200, {"vllm_config": told}
            if path == "/collective_rpc":
                assert body["method"] == "reload_weights"
                self.read(Path(body["kwargs"]["weights_path"]))
                return 200, {"results": [None]}
            if path == "/reset_prefix_cache":
                return 200, {"success": True}
            return 200, self._completion(body)

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        sampling = Sampling(body["temperature"], body["top_p"], body["max_tokens"])
        (drawn,) = self.engine.complete([body["prompt"]], sampling, [body["seed"]])
        choice = {
            "token_ids": list(drawn.token_ids),
            "logprobs": {"token_logprobs": list(drawn.logprobs)},
            "finish_reason": "length" if drawn.truncated else "stop",
        }
        return {"choices": [choice]}


@contextmanager
def standing_in(server: StandIn) -> Iterator[StandIn]:
    class Answering(Handler):
        def answer(self, body: bytes) -> None:
            asked = json.loads(body) if body else {}
            status, content = server.answer(self.path.partition("?")[0], asked)
            if status == 0:
                self.close_connection = True
                return
            self.reply(status, json.dumps(content).encode())

    with listening(Answering) as server.url:
        yield server
