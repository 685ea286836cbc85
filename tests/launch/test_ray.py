"""Errors before anything runs on a Ray cluster; runs are in test_distributed_ray."""

import logging
import socket
from pathlib import Path

import pytest

from reasoning_lab.launch.ray import variables_of_tasks
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


SECRETS = {
    "HF_TOKEN": "a",
    "GITHUB_PAT": "a",
    "AWS_ACCESS_KEY_ID": "a",
    "AWS_SECRET_ACCESS_KEY": "a",
    "AWS_SESSION_TOKEN": "a",
    "OPENAI_APIKEY": "a",
    "PGPASSWORD": "a",
    "MYSQL_PWD": "a",
    "DOCKER_AUTH_CONFIG": "a",
    "GOOGLE_APPLICATION_CREDENTIALS": "a",
    "SENTRY_DSN": "a",
    "HTTPS_PROXY": "http://me:hunter2@proxy:3128",
    "PIP_INDEX_URL": "https://hunter2@index/simple",
}
SETTINGS = {
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONPATH": "/a:/b",
    "PWD": "/a",
    "HTTP_PROXY": "http://proxy:3128",
    "WANDB_ENTITY": "a@b",
    "NCCL_SOCKET_IFNAME": "eth0",
}


def test_no_secret_is_an_argument_of_a_task(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name, value in {**SECRETS, **SETTINGS}.items():
        monkeypatch.setenv(name, value)
    variables = variables_of_tasks("sft")
    assert not SECRETS.keys() & variables.keys()
    assert SETTINGS.items() <= variables.items()
    assert all(name in caplog.text for name in SECRETS)
    assert "hunter2" not in caplog.text
