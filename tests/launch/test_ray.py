"""Errors before anything runs on a Ray cluster; runs are in test_distributed_ray."""

import socket
from pathlib import Path

import pytest

from tests.conftest import SMOKE, lab_here

HARDWARE = [
    *("hardware=ray", "hardware.accelerator=cpu", "hardware.strategy=ddp"),
    *("hardware.devices=1", "hardware.nodes=1"),
]


def test_cluster_that_does_not_answer_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:  # Nothing listens at the port.
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{closed.getsockname()[1]}")
        assert lab_here(*SMOKE, *HARDWARE, cwd=tmp_path) == 2
        error = capsys.readouterr().err
        assert "hardware.ray.address: no Ray cluster can be joined (" in error
        assert "start one with `ray start --head`" in error
        assert not (tmp_path / "runs" / "store").exists()
        # A plan needs no cluster.
        assert lab_here("plan", *SMOKE, *HARDWARE, cwd=tmp_path) == 0
