"""A real vLLM server gets weights by vLLM's own transfer, which a stand-in for NCCL carries."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.config.model import AdapterConfig, ModelConfig
from reasoning_lab.models.policy import load_policy
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.sampling.vllm import LOGPROBS_MODE, vllm_environment
from reasoning_lab.sampling.vllm_client import VLLMClient
from reasoning_lab.training.job import Job
from reasoning_lab.types import UserError
from tests.sampling.test_vllm import PROMPTS, random_policy, tiny  # noqa: F401 - a fixture
from tests.sampling.test_vllm_launcher import (
    HARDWARE,
    STEPS,
    job,  # noqa: F401 - a fixture
    same_training,
    trained_here,
    with_servers,
)
from tests.support import nccl_stand_in
from tests.support.sampled_weights import assert_sampled_by, move
from tests.support.vllm_servers import free_port, serving
from tests.support.vllm_stand_in import StandIn, running_stand_in

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
HOT = Sampling(0.9, 1.0, 20)


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy whose output head is its embedding, as that of most small models."""
    return random_policy(tmp_path_factory.mktemp("tied"), tie_word_embeddings=True)


@pytest.fixture(autouse=True)
def nccl(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has the stand-in, and a GPU by its own account."""
    for module, name in nccl_stand_in.places():
        monkeypatch.setattr(module, name, getattr(module, name))
    nccl_stand_in.install()
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)


@contextmanager
def receiving(policy: Path, port: int, folder: Path) -> Iterator[str]:
    """A server that takes weights over the stand-in for NCCL."""
    paths = os.pathsep.join([str(nccl_stand_in.plugin_folder(folder)), str(ROOT)])
    environment = {**vllm_environment(HARDWARE), "PYTHONPATH": paths, "VLLM_SERVER_DEV_MODE": "1"}
    options = ["--logprobs-mode", LOGPROBS_MODE, "--no-enable-chunked-prefill"]
    options += ["--kv-cache-memory-bytes", str(2**28)]
    options += ["--weight-transfer-config", '{"backend": "nccl"}']
    with serving(policy, port, options, environment, folder / "log") as url:
        yield url


def assert_samples_from(
    client: VLLMClient, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    drawn = client.generate(PROMPTS, HOT, range(len(PROMPTS)))
    assert_sampled_by(policy, tokenizer, PROMPTS, drawn, HOT.temperature)


def test_weights_go_to_a_server_without_a_folder_also_after_it_was_restarted(
    tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, tokenizer = load_policy(tied, "float32")
    port, shared = free_port(), tmp_path / "weights"
    with receiving(tied, port, tmp_path / "first") as url:
        client = VLLMClient(policy, tokenizer, [url], HARDWARE.sampling, shared)
        for version in range(3):
            client.load(policy, version)
            assert_samples_from(client, policy, tokenizer)
            move(policy, version)
        client.load(policy, 3)
    with receiving(tied, port, tmp_path / "second") as url:
        # It begins with other weights, draws with them, and is given these and the requests again.
        assert_samples_from(client, policy, tokenizer)
        move(policy, 4)
        client.load(policy, 4)
        assert_samples_from(client, policy, tokenizer)
        assert not shared.exists()
        # A trainer without a GPU has the same server read files.
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
        reading = VLLMClient(policy, tokenizer, [url], HARDWARE.sampling, shared)
        for version in range(2):
            move(policy, 5 + version)
            reading.load(policy, version)
            assert (shared / str(version)).is_dir()
            assert_samples_from(reading, policy, tokenizer)


@pytest.mark.parametrize(
    ("family", "adapter"),
    [
        pytest.param("qwen3", None, marks=pytest.mark.soak),
        ("llama", AdapterConfig(rank=8)),
    ],
)
def test_rl_learns_by_transfer_what_it_learns_by_files(
    family: str,
    adapter: AdapterConfig | None,
    job: Job,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    no_folder = tmp_path / "file"
    no_folder.touch()
    policy = random_policy(tmp_path / "policy", tie_word_embeddings=True, model_type=family)
    job = replace(job, inputs={"policy": Policy(policy)}, model=ModelConfig(adapter=adapter))
    with receiving(policy, free_port(), tmp_path / "server") as url:
        sent = with_servers(job, tmp_path / "sent", [url])
        sampling = replace(sent.hardware.sampling, weights_dir=str(no_folder))
        sent = replace(sent, hardware=replace(sent.hardware, sampling=sampling))
        curves = trained_here(sent)
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
        read = with_servers(job, tmp_path / "read", [url])
        trained_here(read)
    # The policy goes far, and the server with it.
    assert curves["train/kl_to_reference"][STEPS - 1] > 0.05
    assert max(curves["mismatch/logprob_difference_max"].values()) < 1e-4
    same_training(sent, read)


def refuses(path: str, before: int) -> tuple[int, dict[str, object]] | None:
    return (500, {"detail": "no"}) if path == "/init_weight_transfer_engine" else None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (refuses, r"/init_weight_transfer_engine' failed \(500 "),
        (lambda path, before: None, r"did not take the weights .*127\.0\.0\.1:\d+ \(nothing came"),
    ],
)
def test_a_server_that_does_not_come_is_told_in_time(
    override: Callable[[str, int], tuple[int, dict[str, object]] | None],
    message: str,
    tied: Path,
    tmp_path: Path,
) -> None:
    policy, tokenizer = load_policy(tied, "float32")
    server = StandIn(tied, override=override, config=nccl_stand_in.OFFERED)
    limits = replace(HARDWARE.sampling, request_timeout_s=3.0)
    with running_stand_in(server):
        client = VLLMClient(policy, tokenizer, [server.url], limits, tmp_path)
        with pytest.raises(UserError, match=message):
            client.load(policy, 0)
