"""A relay before a server, which counts requests and can lose some."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.loopback import Handler, listening


@dataclass
class Relay:
    """Hands requests on to a server.

    Attributes:
        server: Its address.
        loses: Whether a request is answered as done and not handed on, by its path.
        bodies: Of all requests that had one, by path, in order of arrival.
        url: Its own address.
    """

    server: str
    loses: Callable[[str], bool] = lambda path: False
    bodies: dict[str, list[Any]] = field(default_factory=dict)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def relaying(relay: Relay) -> Iterator[Relay]:
    class Answering(Handler):
        def answer(self, body: bytes) -> None:
            if body:
                path = self.path.partition("?")[0]
                with relay.lock:
                    relay.bodies.setdefault(path, []).append(json.loads(body))
            payload, status = b"{}", 200
            if not relay.loses(self.path):
                request = urllib.request.Request(f"{relay.server}{self.path}", body or None)
                request.add_header("Content-Type", "application/json")
                try:
                    with urllib.request.urlopen(request) as response:
                        payload, status = response.read(), response.status
                except urllib.error.HTTPError as error:
                    payload, status = error.read(), error.code
            self.reply(status, payload)

    with listening(Answering) as relay.url:
        yield relay
