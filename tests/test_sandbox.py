"""What a sealed process can reach, and what comes back from it."""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from reasoning_lab.verify.sandbox import in_child, is_available

sealed_only = pytest.mark.skipif(not is_available(), reason="this kernel has no Landlock")


@sealed_only
def test_a_sealed_child_reaches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    pid = os.getpid()
    attempts: dict[str, Callable[[], object]] = {
        "write": lambda: (tmp_path / "new").touch(),
        "read": secret.read_text,
        "remove": secret.unlink,
        "mode": lambda: secret.chmod(0o777),
        "times": lambda: os.utime(secret),
        "memory of the parent": Path(f"/proc/{pid}/mem").read_bytes,
        "signal": lambda: os.kill(pid, 0),
        "network": socket.socket,
        "local socket": lambda: socket.socket(socket.AF_UNIX),
        "fork": os.fork,
        "program": lambda: os.execv("/bin/true", ["true"]),
        "limits of the parent": lambda: os.sched_setaffinity(pid, {0}),
    }

    def try_all() -> list[str]:
        reached = ["environment"] if "SECRET_TOKEN" in os.environ else []
        for name, attempt in attempts.items():
            try:
                attempt()
            except PermissionError:
                continue
            reached.append(name)
        return reached

    assert in_child(try_all) == []
    assert secret.read_text() == "hunter2"


@sealed_only
def test_what_a_child_returns_is_plain_data() -> None:
    assert in_child(lambda: [1, None, "x"]) == [1, None, "x"]
    with pytest.raises(KeyError):
        in_child(lambda: dict[str, int]()["missing"])
    for gone in (lambda: os._exit(0), lambda: object(), lambda: sys.exit(), lambda: "x" * 10**6):
        with pytest.raises((MemoryError, TypeError)):
            in_child(gone)
