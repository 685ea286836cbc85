"""A loopback stand-in for an OpenAI-compatible server, which counts and can refuse."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.loopback import Handler, listening

Reply = tuple[int, dict[str, Any]]


@dataclass
class Server:
    """The server's replies, and the requests that it received.

    Attributes:
        reply: From a request's body and its number to a status and a body.
        pause_s: Seconds before each reply.
        bodies: Bodies of all requests, in order of arrival.
        keys: Authorization headers of all requests.
        most_in_flight: Most requests that were open at one time.
    """

    reply: Callable[[dict[str, Any], int], Reply]
    pause_s: float = 0.0
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    most_in_flight: int = 0
    in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def chat_reply(text: str, finish: str = "stop", **message: Any) -> Reply:
    """A successful reply with one choice."""
    return 200, {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": text, **message},
            }
        ],
    }


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    class Answering(Handler):
        def answer(self, request: bytes) -> None:
            body = json.loads(request)
            with server.lock:
                number = len(server.bodies)
                server.bodies.append(body)
                server.keys.append(self.headers["Authorization"])
                server.in_flight += 1
                server.most_in_flight = max(server.most_in_flight, server.in_flight)
            time.sleep(server.pause_s)
            status, content = server.reply(body, number)
            with server.lock:
                server.in_flight -= 1
            self.reply(status, json.dumps(content).encode(), Retry_After_Ms="1")

    with listening(Answering) as url:
        server.url = f"{url}/v1"
        yield server
