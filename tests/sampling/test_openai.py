"""The engine for OpenAI-compatible servers, against one on loopback that refuses and fails."""

import asyncio
from importlib.util import find_spec
from typing import Any

import pytest

from reasoning_lab.config.hardware import HardwareConfig, SamplingHardwareConfig
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.sampling.openai import (
    OpenAIEngine,
    RateLimiter,
    escape_chat_markup,
    parse_completion,
)
from reasoning_lab.types import Completion, Message, Prompt, UserError
from tests.support.openai_server import Reply, Server, chat_reply, serving

pytestmark = pytest.mark.skipif(find_spec("openai") is None, reason="needs the package openai")

SAMPLING = Sampling(0.7, 0.9, 32)


def engine(server: Server, **limits: Any) -> OpenAIEngine:
    hardware = HardwareConfig(sampling=SamplingHardwareConfig(url=server.url, **limits))
    return OpenAIEngine("teacher", {"top_k": 5}, hardware)


def echo(body: dict[str, Any], number: int) -> Reply:
    return chat_reply(f"re: {body['messages'][0]['content']}, seed {body['seed']}")


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def test_completions_come_in_order_with_few_requests_in_flight() -> None:
    with serving(Server(echo, pause_s=0.02)) as server:
        completions = engine(server, requests_in_flight=3).generate(
            [f"p{number}" for number in range(12)], SAMPLING, range(12)
        )
    assert [one.text for one in completions] == [f"re: p{n}, seed {n}" for n in range(12)]
    assert 2 <= server.most_in_flight <= 3


def test_a_request_has_the_configured_fields() -> None:
    with serving(Server(echo)) as server:
        engine(server).generate(["p"], SAMPLING, [2**62 + 5])
    (body,) = server.bodies
    assert body == {
        "model": "teacher",
        "messages": [{"role": "user", "content": "p"}],
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 32,
        "seed": (2**62 + 5) % 2**31,
        "top_k": 5,
    }


def test_a_request_has_the_conversation_and_the_system_prompt() -> None:
    own = Message("system", "Be brief. <|im_end|>")
    turns = Message("user", "1 + 1?"), Message("assistant", "2"), Message("user", "p")
    prompts: list[Prompt] = ["p", turns, (own, *turns)]
    with serving(Server(echo)) as server:
        hardware = HardwareConfig(sampling=SamplingHardwareConfig(url=server.url))
        engine = OpenAIEngine("teacher", {}, hardware, "Think. <|think|>")
        completions = engine.generate(prompts, SAMPLING, [0, 1, 2])
    roles = ["user", "assistant", "user"]
    system = {"role": "system", "content": "Think. <|think|>"}
    sent = {body["seed"]: body["messages"] for body in server.bodies}
    assert [message["role"] for message in sent[1]] == ["system", *roles]
    assert [message["content"] for message in sent[1][1:]] == ["1 + 1?", "2", "p"]
    assert sent[0] == [system, {"role": "user", "content": "p"}]
    # What the data brings counts before it, and its markup is text.
    assert sent[2] == [{"role": "system", "content": "Be brief. < |im_end|>"}, *sent[1][1:]]
    assert [one.text.rpartition(" ")[2] for one in completions] == ["0", "1", "2"]


def test_a_request_to_a_busy_server_is_repeated() -> None:
    def busy(body: dict[str, Any], number: int) -> Reply:
        return (429, {"error": {"message": "slow down"}}) if number < 3 else echo(body, number)

    with serving(Server(busy)) as server:
        (completion,) = engine(server, request_retries=5).generate(["p"], SAMPLING, [1])
    assert completion.text == "re: p, seed 1"
    assert len(server.bodies) == 4


def test_a_server_that_goes_on_failing_ends_in_one_sentence() -> None:
    def broken(body: dict[str, Any], number: int) -> Reply:
        return 500, {"error": {"message": "out of memory"}}

    with serving(Server(broken)) as server, pytest.raises(UserError) as error:
        engine(server, request_retries=2).generate(["p"], SAMPLING, [1])
    assert "out of memory" in str(error.value)
    assert "'teacher'" in str(error.value)
    assert len(server.bodies) == 3


def test_a_refused_key_is_named_by_its_variable_not_its_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")

    def refuse(body: dict[str, Any], number: int) -> Reply:
        return 401, {"error": {"message": "no such key"}}

    with serving(Server(refuse)) as server, pytest.raises(UserError) as error:
        engine(server).generate(["p"], SAMPLING, [1])
    assert "OPENAI_API_KEY" in str(error.value)
    assert "sk-secret" not in str(error.value)
    assert server.keys == ["Bearer sk-secret"]


def test_without_key_and_server_there_is_an_error_before_any_request() -> None:
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        OpenAIEngine("teacher", {}, HardwareConfig())


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_a_thought_that_the_server_parsed_is_put_back(field: str) -> None:
    choice = {"message": {"content": "\n\\boxed{4}", field: "2 + 2\n"}, "finish_reason": "stop"}
    assert parse_completion(choice).text == "<think>\n2 + 2\n</think>\n\\boxed{4}"


def test_truncation_and_token_ids_are_parsed() -> None:
    choice = {"message": {"content": "a"}, "finish_reason": "length", "token_ids": [5, 6]}
    assert parse_completion(choice) == Completion([5, 6], "a", truncated=True)
    empty = {"message": {"content": None}, "finish_reason": "stop"}
    assert parse_completion(empty) == Completion([], "")


def test_a_thought_without_an_answer_behind_it_never_ended() -> None:
    message = {"content": None, "reasoning_content": "2 + 2 is \\boxed{4}, but wait"}
    completion = parse_completion({"message": message, "finish_reason": "length"})
    assert completion.text == "<think>\n2 + 2 is \\boxed{4}, but wait"
    assert completion.truncated


def test_think_tags_that_the_server_left_in_place_are_not_doubled() -> None:
    message = {"content": "</think>\n4", "reasoning": "<think>\n2 + 2"}
    text = parse_completion({"message": message, "finish_reason": "stop"}).text
    assert (text.count("<think>"), text.count("</think>")) == (1, 1)
    assert text.startswith("<think>")
    assert text.endswith("</think>\n4")


@pytest.mark.parametrize(
    ("reason", "truncated"),
    [("stop", False), (None, False), ("content_filter", True), ("abort", True)],
)
def test_only_a_completion_that_its_author_ended_is_complete(
    reason: str | None, truncated: bool
) -> None:
    choice = {"message": {"content": "a"}, "finish_reason": reason}
    assert parse_completion(choice).truncated is truncated


@pytest.mark.parametrize(
    ("prompt", "sent"),
    [
        ("Say <|im_end|>\n<|im_start|>", "Say < |im_end|>\n< |im_start|>"),
        (
            "<\uff5cUser\uff5c>[INST]</s><start_of_turn>",
            "< \uff5cUser\uff5c>[ INST]< /s>< start_of_turn>",
        ),
        ("Is |x| < 3 and a<b>c for x in [1]? Use <think>.", None),
    ],
)
def test_markup_in_a_message_is_sent_as_text(prompt: str, sent: str | None) -> None:
    assert escape_chat_markup([prompt]) == [prompt if sent is None else sent]


@pytest.mark.parametrize(("per_minute", "waits_s"), [(3000, [0.02, 0.04, 0.06, 0.08]), (None, [])])
def test_starts_are_spaced_out(
    per_minute: float | None, waits_s: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeps_s: list[float] = []

    async def sleep(seconds: float) -> None:
        sleeps_s.append(seconds)

    async def wait_five_times(rate_limiter: RateLimiter) -> None:
        for _ in range(5):
            await rate_limiter.wait()

    # The clock stands still: the first starts at once, the others one gap after another.
    monkeypatch.setattr("reasoning_lab.sampling.openai.time.monotonic", lambda: 100.0)
    monkeypatch.setattr("reasoning_lab.sampling.openai.asyncio.sleep", sleep)
    asyncio.run(wait_five_times(RateLimiter(per_minute)))
    assert sleeps_s == pytest.approx(waits_s)
