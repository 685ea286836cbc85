"""The client of vLLM servers, against a stand-in that fails, restarts and refuses."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from reasoning_lab.config.hardware import SamplingHardwareConfig
from reasoning_lab.models.policy import build_policy, load_policy, save_policy
from reasoning_lab.models.tokenizer import prompt_tokens, train_tokenizer
from reasoning_lab.sampling.engine import NOTHING_YET, Sampling
from reasoning_lab.sampling.hf import HFEngine
from reasoning_lab.sampling.vllm import planned_extensions
from reasoning_lab.sampling.vllm_client import VLLMClient
from reasoning_lab.types import Completion, UserError
from tests.support.vllm_stand_in import Reply, StandIn, running_stand_in

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
def engine(folder: Path, checkpoint: Path, *urls: str) -> Iterator[VLLMClient]:
    policy, tokenizer = load_policy(checkpoint, "float32")
    limits = SamplingHardwareConfig(request_retries=1)
    client = VLLMClient(policy, tokenizer, urls, limits, folder / "weights")
    try:
        yield client
    finally:
        client.close()


def perturbed(checkpoint: Path, scale: float) -> PreTrainedModel:
    policy, _ = load_policy(checkpoint, "float32")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(scale * torch.randn(parameter.shape))
    return policy


def expected(policy: PreTrainedModel, checkpoint: Path) -> list[Completion]:
    _, tokenizer = load_policy(checkpoint, "float32")
    return HFEngine(policy, tokenizer, 8).generate(PROMPTS, SAMPLING, SEEDS)


def assert_equal_completions(completions: list[Completion], expected: list[Completion]) -> None:
    for one, other in zip(completions, expected, strict=True):
        assert (list(one.token_ids), one.text) == (list(other.token_ids), other.text)
        assert one.truncated == other.truncated
        assert list(one.logprobs) == pytest.approx(list(other.logprobs), abs=1e-5)


def test_completions_are_those_of_the_weights_that_were_loaded_last(
    checkpoint: Path, tmp_path: Path
) -> None:
    first, second = perturbed(checkpoint, 0.1), perturbed(checkpoint, 0.2)
    assert expected(first, checkpoint) != expected(second, checkpoint)
    with running_stand_in(StandIn(checkpoint)) as server:
        with engine(tmp_path, checkpoint, f"{server.url}/v1/") as client:
            for version, policy in ((0, first), (0, first), (3, second)):
                client.load(policy, version)
                assert_equal_completions(
                    client.generate(PROMPTS, SAMPLING, SEEDS), expected(policy, checkpoint)
                )
            snapshots = sorted(path.name for path in (tmp_path / "weights").iterdir())
        loaded = [body["kwargs"]["weights_path"] for body in server.bodies["/collective_rpc"]]
    # An unchanged version is not loaded again, and old weights are removed.
    assert [Path(path).name for path in loaded] == ["0", "3"]
    assert len(server.bodies["/reset_prefix_cache"]) == 2
    assert snapshots == ["3"]
    assert not (tmp_path / "weights").exists()


def test_an_interrupted_completion_goes_on_by_the_weights_of_the_moment(
    checkpoint: Path, tmp_path: Path
) -> None:
    first, second = perturbed(checkpoint, 0.1), perturbed(checkpoint, 0.2)
    _, tokenizer = load_policy(checkpoint, "float32")
    ids = prompt_tokens(tokenizer, PROMPTS)
    with (
        running_stand_in(StandIn(checkpoint)) as server,
        engine(tmp_path, checkpoint, server.url) as client,
    ):
        client.load(first, 0)
        started = client.extend(PROMPTS, [NOTHING_YET] * 6, SAMPLING, SEEDS, 5)
        client.load(second, 1)
        whole = client.extend(PROMPTS, started, SAMPLING, SEEDS, 99)
        requests = server.bodies["/v1/completions"][6:]
    going_on = [row for row, completion in enumerate(started) if len(completion.token_ids) == 5]
    assert len(going_on) > 3
    texts = [[*ids[row], *started[row].token_ids] for row in going_on]
    # The prompt and the tokens so far are read again, other random numbers follow, and 7 of 12
    # tokens are left.
    assert sorted(request["prompt"] for request in requests) == sorted(texts)
    assert {request["max_tokens"] for request in requests} == {7}
    assert not {request["seed"] for request in requests} & set(SEEDS)
    by_prompt = {tuple(request["prompt"]): request["seed"] for request in requests}
    seeds = [by_prompt[tuple(text)] for text in texts]
    rest = HFEngine(second, tokenizer, 8).complete(texts, Sampling(0.9, 1.0, 7), seeds)
    for row, more in zip(going_on, rest, strict=True):
        before, after = started[row], whole[row]
        assert list(after.token_ids) == [*before.token_ids, *more.token_ids]
        logprobs = [*before.logprobs, *more.logprobs]
        assert list(after.logprobs) == pytest.approx(logprobs, abs=1e-5)
        assert after.truncated is more.truncated
        assert after.text.startswith(before.text)


def test_an_extension_has_the_room_that_its_completion_and_the_context_leave() -> None:
    prompts = [[1, 2, 3], [1] * 9, [1] * 8, [4], [5]]
    started = [Completion([7] * tokens, "", truncated=True) for tokens in (0, 0, 1, 4, 6)]
    extensions = planned_extensions(prompts, started, Sampling(1.0, 1.0, 6), range(5), 4, 10)
    # At most 4 of 6 new ones; 10 - 9; 10 - 8 - 1; 6 - 4; and the last has its 6 tokens.
    assert [(one.row, one.most_tokens) for one in extensions] == [(0, 4), (1, 1), (2, 1), (3, 2)]
    assert [one.text for one in extensions] == [[1, 2, 3], [1] * 9, [*[1] * 8, 7], [4, 7, 7, 7, 7]]
    seeds = [one.seed for one in extensions]
    assert seeds[:2] == [0, 1]
    assert len({*seeds, 2, 3}) == 6
    again = planned_extensions(prompts, started, Sampling(1.0, 1.0, 6), range(5), 4, 10)
    assert again == extensions


def test_each_of_several_servers_gets_its_share(checkpoint: Path, tmp_path: Path) -> None:
    policy = perturbed(checkpoint, 0.1)
    with (
        running_stand_in(StandIn(checkpoint)) as one,
        running_stand_in(StandIn(checkpoint)) as other,
        engine(tmp_path, checkpoint, one.url, other.url) as client,
    ):
        client.load(policy, 0)
        assert_equal_completions(
            client.generate(PROMPTS, SAMPLING, SEEDS), expected(policy, checkpoint)
        )
        shares = [{body["seed"] for body in s.bodies["/v1/completions"]} for s in (one, other)]
    assert shares == [set(SEEDS[::2]), set(SEEDS[1::2])]


def test_a_restarted_server_gets_the_weights_and_the_requests_again(
    checkpoint: Path, tmp_path: Path
) -> None:
    policy = perturbed(checkpoint, 0.1)
    server = StandIn(checkpoint)

    def restart(path: str, requests_before: int) -> Reply | None:
        if path == "/v1/completions" and requests_before == 2:
            server.restart()
            return 0, {}
        return None

    server.override = restart
    assert expected(policy, checkpoint) != expected(perturbed(checkpoint, 0.0), checkpoint)
    with running_stand_in(server), engine(tmp_path, checkpoint, server.url) as client:
        client.load(policy, 0)
        assert_equal_completions(
            client.generate(PROMPTS, SAMPLING, SEEDS), expected(policy, checkpoint)
        )
    assert server.instance == 2
    assert server.weights != checkpoint


def test_a_prompt_that_fills_the_context_gets_no_completion(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        running_stand_in(StandIn(checkpoint)) as server,
        engine(tmp_path, checkpoint, server.url) as client,
    ):
        client.load(perturbed(checkpoint, 0.0), 0)
        long, short = client.generate(["7 " * 200, "?"], Sampling(0.0, 1.0, 500), [0, 1])
    assert long == Completion([], "", truncated=True)
    assert short.token_ids
    assert "1 of 2 prompts" in caplog.text


def test_logprobs_of_a_truncated_distribution_are_left_out(
    checkpoint: Path, tmp_path: Path
) -> None:
    with (
        running_stand_in(StandIn(checkpoint)) as server,
        engine(tmp_path, checkpoint, server.url) as client,
    ):
        client.load(perturbed(checkpoint, 0.0), 0)
        assert client.generate(["?"], Sampling(0.6, 0.5, 4), [0])[0].logprobs == ()


def always(path: str, reply: Reply) -> Any:
    return lambda requested, requests_before: reply if requested == path else None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"override": always("/server_info", (404, {"detail": "Not Found"}))},
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
            {"override": always("/collective_rpc", (500, {"error": "no weights"}))},
            r"/collective_rpc' failed \(500 .*no weights.*same architecture.*weights_dir",
        ),
        (
            {"override": always("/v1/completions", (400, {"error": {"message": "too long"}}))},
            r"/v1/completions' failed \(400 .*too long",
        ),
        (
            {"override": always("/v1/completions", (0, {}))},
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
def test_a_server_that_cannot_serve_is_an_error_of_one_sentence(
    changes: dict[str, Any], message: str, checkpoint: Path, tmp_path: Path
) -> None:
    def sample(url: str) -> None:
        with engine(tmp_path, checkpoint, url) as client:
            client.load(perturbed(checkpoint, 0.1), 0)
            client.generate(PROMPTS[:1], SAMPLING, SEEDS[:1])

    with (
        running_stand_in(StandIn(checkpoint, **changes)) as server,
        pytest.raises(UserError, match=message) as error,
    ):
        sample(server.url)
    assert str(error.value).startswith("hardware.sampling.rollout_urls: ")
    assert "\n" not in str(error.value)


def test_an_address_without_a_server_is_an_error(checkpoint: Path, tmp_path: Path) -> None:
    message = "hardware.sampling.rollout_urls: 'http://127.0.0.1:9/server_info' failed"
    with (
        pytest.raises(UserError, match=message),
        engine(tmp_path, checkpoint, "http://127.0.0.1:9"),
    ):
        pass


def test_servers_that_load_at_once_leave_transformers_as_it_was(
    tmp_path: Path, checkpoint: Path
) -> None:
    before = PreTrainedModel.tie_weights
    with ExitStack() as stack:
        servers = [stack.enter_context(running_stand_in(StandIn(checkpoint))) for _ in range(6)]
        client = stack.enter_context(engine(tmp_path, checkpoint, *(one.url for one in servers)))
        for version in range(4):
            client.load(perturbed(checkpoint, 0.1), version)
    assert PreTrainedModel.tie_weights is before
