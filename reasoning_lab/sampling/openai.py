"""Generation by any server with OpenAI's chat API: a hosted model, or `vllm serve`.

Many requests are in flight at once. The client library retries the requests that a busy or failing
server refuses, after growing pauses or the pause that the server names. The key comes only from the
environment. The server decides whether a seed repeats a completion. Its logprobs may be of another
distribution than the sampled one, so they are not used.
"""

import asyncio
import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.models.think_tags import THINK_CLOSE, THINK_OPEN, merge_thoughts
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.types import Completion, Message, Prompt, UserError, messages_of

log = logging.getLogger(__name__)

_KEY_VARIABLE = "OPENAI_API_KEY"
_URL_VARIABLE = "OPENAI_BASE_URL"
# Other reasons are a limit, a filter or a failure. Some servers give no reason.
_COMPLETE_REASONS = ("stop", "stop_sequence", "end_turn", "eos_token", None)
# Chat markup: `<|end|>` and similar in ASCII or full width, and that of older families.
_CHAT_MARKUP = re.compile(
    r"<[|\uff5c][^\s<>]{1,40}[|\uff5c]>|</?s>|</?(?:bos|eos|pad|unk)>|<(?:start|end)_of_turn>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]|<</?SYS>>"
)


class OpenAIEngine:
    """Samples from a model through a server.

    Its arguments are the fields of `OpenAIEngineConfig`, which describes them, and the hardware.

    Raises:
        UserError: There is neither a key nor the address of a server.
    """

    def __init__(
        self,
        model: str,
        extra_body: Mapping[str, Any],
        hardware: HardwareConfig,
        system_prompt: str | None = None,
    ) -> None:
        self._url = hardware.sampling.url or os.environ.get(_URL_VARIABLE)
        if self._url is None and _KEY_VARIABLE not in os.environ:
            raise UserError(
                f"engine: there is neither a key nor a server; set {_KEY_VARIABLE} in the "
                "environment, or hardware.sampling.url to an OpenAI-compatible server"
            )
        self._model = model
        self._extra_body = dict(extra_body)
        self._system_prompt = system_prompt
        self._limits = hardware.sampling

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """Return one completion for each prompt, in order.

        Raises:
            UserError: The server refuses the key or the request, or does not respond.
        """
        return asyncio.run(self._generate(prompts, sampling, seeds))

    def close(self) -> None:
        """Do nothing: no resource outlives a call."""

    async def _generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        import openai

        chats = self._chats(prompts)
        limits = self._limits
        rate_limiter = RateLimiter(limits.requests_per_minute)
        slots = asyncio.Semaphore(limits.requests_in_flight)
        client = openai.AsyncOpenAI(
            base_url=self._url,
            # A local server needs no key, but the client library does.
            api_key=os.environ.get(_KEY_VARIABLE, "none"),
            max_retries=limits.request_retries,
            timeout=limits.request_timeout_s,
        )

        async def complete(messages: Any, seed: int) -> Completion:
            async with slots:
                await rate_limiter.wait()
                response = await client.chat.completions.create(
                    model=self._model,
                    messages=messages,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    max_tokens=sampling.max_new_tokens,
                    seed=seed % 2**31,
                    extra_body=self._extra_body,
                )
            return parse_completion(response.choices[0].model_dump())

        try:
            async with client, asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(complete(messages, seed))
                    for messages, seed in zip(chats, seeds, strict=True)
                ]
        except* openai.AuthenticationError as errors:
            raise UserError(
                f"engine: {self._server_name} refuses the key ({_first_message(errors)}); "
                f"set {_KEY_VARIABLE} in the environment to a valid one"
            ) from None
        except* openai.OpenAIError as errors:
            raise UserError(
                f"engine: {self._server_name} failed for model '{self._model}' "
                f"({_first_message(errors)}); correct this and start again: "
                "finished shards are reused"
            ) from None
        return [task.result() for task in tasks]

    def _chats(self, prompts: Sequence[Prompt]) -> list[Any]:
        """The messages of each request; only what data brings is escaped."""
        conversations = [messages_of(prompt) for prompt in prompts]
        escaped = iter(
            escape_chat_markup([turn.content for turns in conversations for turn in turns])
        )
        chats = [[Message(turn.role, next(escaped)) for turn in turns] for turns in conversations]
        if self._system_prompt is not None:
            system = Message("system", self._system_prompt)
            chats = [chat if chat[0].role == "system" else [system, *chat] for chat in chats]
        return [[{"role": m.role, "content": m.content} for m in chat] for chat in chats]

    @property
    def _server_name(self) -> str:
        return f"'{self._url}'" if self._url else "OpenAI's server"


class RateLimiter:
    """Spaces the starts of requests evenly, so that no minute has too many.

    Args:
        per_minute: Most requests in a minute; None = no limit.
    """

    def __init__(self, per_minute: float | None) -> None:
        self._gap_s = 60 / per_minute if per_minute else 0.0
        self._next_s = 0.0

    async def wait(self) -> None:
        """Return when the caller may start."""
        now = time.monotonic()
        start = max(now, self._next_s)
        self._next_s = start + self._gap_s
        if start > now:
            await asyncio.sleep(start - now)


def parse_completion(choice: Mapping[str, Any]) -> Completion:
    """Return the completion in one `choice` of a response.

    Some servers return the thought apart, as `reasoning_content` or `reasoning`. It is put back
    before the content. Without content the thought did not end, so it gets no closing tag. There
    are token ids if the request had vLLM's option `return_token_ids`.
    """
    message = choice["message"]
    text = message.get("content") or ""
    thought = message.get("reasoning_content") or message.get("reasoning")
    if thought:
        text = text.lstrip()
        rest = f"\n{THINK_CLOSE}\n{text}" if text else ""
        text = merge_thoughts(f"{THINK_OPEN}\n{thought.strip()}{rest}")
    truncated = choice.get("finish_reason") not in _COMPLETE_REASONS
    return Completion(choice.get("token_ids") or [], text, truncated=truncated)


def escape_chat_markup(contents: Sequence[str]) -> list[str]:
    """Return the contents of messages with a space inside each chat markup.

    A chat API takes text, and many servers turn markup in it into control tokens. With the space
    every server reads it as text.
    """
    escaped = [
        _CHAT_MARKUP.sub(lambda match: f"{match[0][0]} {match[0][1:]}", content)
        for content in contents
    ]
    count = sum(new != old for new, old in zip(escaped, contents, strict=True))
    if count:
        log.warning(
            "%d of %d messages contain chat markup, such as <|end|>; a space is added to it, so "
            "that the server reads it as text.",
            count,
            len(contents),
        )
    return escaped


def _first_message(errors: BaseExceptionGroup[Any]) -> str:
    """Return the first message of a group, shortened and on one line."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(str(error).split())[:300]
