"""The engine that vLLM servers serve, against one that falls, restarts, refuses and forgets."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from reasoning_lab.config.hardware import SamplingHardwareConfig
from reasoning_lab.models.policy import build_policy, load_policy, save_policy
from reasoning_lab.models.tokenizer import train_tokenizer
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.sampling.hf import HFEngine
from reasoning_lab.sampling.vllm_server import VLLMServers
from reasoning_lab.types import Completion, UserError
from tests.support.vllm_stand_in import Reply, StandIn, standing_in

PROMPTS = [f"What is {number}?" for number in range(6)]
SAMPLING = Sampling(0.9, 1.0, 12)
SEEDS = [2**62 + number for number in range(6)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = train_tokenizer(PROMPTS, 300)
    architecture = {
        "model_type": "qwen3",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
    }
    save_policy(build_policy(architecture, tokenizer, "float32", 1), tokenizer, folder)
    return folder


@contextmanager
def engine(folder: Path, checkpoint: Path, *urls: str) -> Iterator[VLLMServers]:
    policy, tokenizer = load_policy(checkpoint, "float32")
    limits = SamplingHardwareConfig(request_retries=1)
    made = VLLMServers(policy, tokenizer, urls, limits, folder / "weights")
    try:
        yield made
    finally:
        made.close()


def moved(checkpoint: Path, by: float) -> PreTrainedModel:
    policy, _ = load_policy(checkpoint, "float32")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += by * torch.randn(parameter.shape)
    return policy


def expected(policy: PreTrainedModel, checkpoint: Path) -> list[Completion]:
    _, tokenizer = load_policy(checkpoint, "float32")
    return HFEngine(policy, tokenizer, 8).generate(PROMPTS, SAMPLING, SEEDS)


def same(found: list[Completion], wanted: list[Completion]) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert (list(one.token_ids), one.text) == (list(other.token_ids), other.text)
        assert one.truncated == other.truncated
        assert list(one.logprobs) == pytest.approx(list(other.logprobs), abs=1e-5)


def test_completions_are_those_of_the_weights_that_were_loaded_last(
    checkpoint: Path, tmp_path: Path
) -> None:
    first, second = moved(checkpoint, 0.1), moved(checkpoint, 0.2)
    assert expected(first, checkpoint) != expected(second, checkpoint)
    with standing_in(StandIn(checkpoint)) as server:
        with engine(tmp_path, checkpoint, f"{server.url}/v1/") as asked:
            for version, policy in ((0, first), (0, first), (3, second)):
                asked.load(policy, version)
                same(asked.generate(PROMPTS, SAMPLING, SEEDS), expected(policy, checkpoint))
            kept = sorted(path.name for path in (tmp_path / "weights").iterdir())
        pushed = [body["kwargs"]["weights_path"] for body in server.bodies["/collective_rpc"]]
    # An unchanged version is not sent again, and no old weights are left.
    assert [Path(path).name for path in pushed] == ["0", "3"]
    assert len(server.bodies["/reset_prefix_cache"]) == 2
    assert kept == ["3"]
    assert not (tmp_path / "weights").exists()


def test_a_server_of_several_gets_its_share(checkpoint: Path, tmp_path: Path) -> None:
    policy = moved(checkpoint, 0.1)
    with (
        standing_in(StandIn(checkpoint)) as one,
        standing_in(StandIn(checkpoint)) as other,
        engine(tmp_path, checkpoint, one.url, other.url) as asked,
    ):
        asked.load(policy, 0)
        same(asked.generate(PROMPTS, SAMPLING, SEEDS), expected(policy, checkpoint))
        shares = [{body["seed"] for body in s.bodies["/v1/completions"]} for s in (one, other)]
    assert shares == [set(SEEDS[::2]), set(SEEDS[1::2])]


def test_a_server_that_starts_again_is_given_the_weights_and_asked_anew(
    checkpoint: Path, tmp_path: Path
) -> None:
    policy = moved(checkpoint, 0.1)
    server = StandIn(checkpoint)

    def fall(path: str, before: int) -> Reply | None:
        if path == "/v1/completions" and before == 2:
            server.restart()
            return 0, {}
        return None

    server.instead = fall
    assert expected(policy, checkpoint) != expected(moved(checkpoint, 0.0), checkpoint)
    with standing_in(server), engine(tmp_path, checkpoint, server.url) as asked:
        asked.load(policy, 0)
        same(asked.generate(PROMPTS, SAMPLING, SEEDS), expected(policy, checkpoint))
    assert server.instance == 2
    assert server.weights != checkpoint


def test_a_prompt_that_fills_the_context_is_not_answered(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        standing_in(StandIn(checkpoint)) as server,
        engine(tmp_path, checkpoint, server.url) as asked,
    ):
        asked.load(moved(checkpoint, 0.0), 0)
        long, short = asked.generate(["7 " * 200, "?"], Sampling(0.0, 1.0, 500), [0, 1])
    assert long == Completion([], "", truncated=True)
    assert short.token_ids
    assert "1 of 2 prompts" in caplog.text


def test_logprobs_of_a_truncated_distribution_are_left_out(
    checkpoint: Path, tmp_path: Path
) -> None:
    with (
        standing_in(StandIn(checkpoint)) as server,
        engine(tmp_path, checkpoint, server.url) as asked,
    ):
        asked.load(moved(checkpoint, 0.0), 0)
        assert asked.generate(["?"], Sampling(0.6, 0.5, 4), [0])[0].logprobs == ()


def _always(path: str, reply: Reply) -> Any:
    return lambda asked, before: reply if asked == path else None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"instead": _always("/server_info", (404, {"detail": "Not Found"}))},
            r"has no /server_info; start it as in VLLM_SERVER_DEV_MODE=1 vllm serve",
        ),
        (
            {"model": {"logprobs_mode": "raw_logprobs"}},
            r"has logprobs_mode=raw_logprobs; start it .* --logprobs-mode processed_logprobs$",
        ),
        ({"model": {"dtype": "torch.bfloat16"}}, r"has dtype=.*; start it .* --dtype float32"),
        (
            {"model": {"max_model_len": 12}},
            r"may take [0-9]+ tokens, and the servers have 12; start them with --max-model-len",
        ),
        (
            {"instead": _always("/collective_rpc", (500, {"error": "no weights"}))},
            r"/collective_rpc' failed \(500 .*no weights.*same architecture.*weights_dir",
        ),
        (
            {"instead": _always("/v1/completions", (400, {"error": {"message": "too long"}}))},
            r"/v1/completions' failed \(400 .*too long",
        ),
        (
            {"instead": _always("/v1/completions", (0, {}))},
            r"/v1/completions' failed \(.*disconnected.*run the same command again to go on",
        ),
    ],
    ids=[
        "no dev mode",
        "raw logprobs",
        "dtype",
        "context",
        "weights refused",
        "request refused",
        "outage",
    ],
)
def test_what_a_server_does_not_do_is_told_in_one_sentence(
    changes: dict[str, Any], told: str, checkpoint: Path, tmp_path: Path
) -> None:
    def sample(url: str) -> None:
        with engine(tmp_path, checkpoint, url) as asked:
            asked.load(moved(checkpoint, 0.1), 0)
            asked.generate(PROMPTS[:1], SAMPLING, SEEDS[:1])

    with (
        standing_in(StandIn(checkpoint, **changes)) as server,
        pytest.raises(UserError, match=told) as caught,
    ):
        sample(server.url)
    assert str(caught.value).startswith("hardware.sampling.rollout_urls: ")
    assert "\n" not in str(caught.value)


def test_where_no_server_is_it_says_so(checkpoint: Path, tmp_path: Path) -> None:
    told = "hardware.sampling.rollout_urls: 'http://127.0.0.1:9/server_info' failed"
    with pytest.raises(UserError, match=told), engine(tmp_path, checkpoint, "http://127.0.0.1:9"):
        pass


def test_servers_that_load_at_once_leave_transformers_as_it_was(
    tmp_path: Path, checkpoint: Path
) -> None:
    before = PreTrainedModel.tie_weights
    with ExitStack() as stack:
        servers = [stack.enter_context(standing_in(StandIn(checkpoint))) for _ in range(6)]
        made = stack.enter_context(engine(tmp_path, checkpoint, *(one.url for one in servers)))
        for version in range(4):
            made.load(moved(checkpoint, 0.1), version)
    assert PreTrainedModel.tie_weights is before
