"""Generation by any server that speaks OpenAI's chat API: a hosted model, or `vllm serve`.

Many requests are in flight at once; the client library retries what a busy or failing server
refuses, with growing pauses or as long as the server asks. The key comes from the environment
alone. Whether a seed repeats a completion, and whether logprobs are those of the sampling
distribution, is the server's business: none is passed on.
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
from reasoning_lab.types import Completion, UserError

log = logging.getLogger(__name__)

_KEY = "OPENAI_API_KEY"
_URL = "OPENAI_BASE_URL"
# Other reasons are a limit, a filter or a failure; servers that say none are believed.
_COMPLETE = ("stop", "stop_sequence", "end_turn", "eos_token", None)
# <|end|> and its like in ASCII or full width, and what older families write.
_MARKUP = re.compile(
    r"<[|\uff5c][^\s<>]{1,40}[|\uff5c]>|</?s>|</?(?:bos|eos|pad|unk)>|<(?:start|end)_of_turn>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]|<</?SYS>>"
)


class OpenAIEngine:
    """Asks a server.

    Args:
        model: The model's name there.
        extra_body: Further fields of every request, e.g. `{top_k: 20}`.
        hardware: Where the server is, and how hard it may be driven.

    Raises:
        UserError: There is neither a key nor a server that could do without one.
    """

    def __init__(self, model: str, extra_body: Mapping[str, Any], hardware: HardwareConfig) -> None:
        self._url = hardware.sampling.url or os.environ.get(_URL)
        if self._url is None and _KEY not in os.environ:
            raise UserError(
                f"engine: neither a key nor a server is named; set {_KEY} in the environment, or "
                "hardware.sampling.url to an OpenAI-compatible server"
            )
        self._model = model
        self._extra_body = dict(extra_body)
        self._limits = hardware.sampling

    def generate(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """One completion a prompt, in order.

        Raises:
            UserError: The server refuses the key or the request, or does not answer.
        """
        return asyncio.run(self._generate(prompts, sampling, seeds))

    def close(self) -> None:
        """Nothing outlives a call."""

    async def _generate(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        import openai

        limits = self._limits
        pace = Pace(limits.requests_per_minute)
        places = asyncio.Semaphore(limits.requests_in_flight)
        client = openai.AsyncOpenAI(
            base_url=self._url,
            # A server of one's own needs none, the client library does.
            api_key=os.environ.get(_KEY, "none"),
            max_retries=limits.request_retries,
            timeout=limits.request_timeout_s,
        )

        async def ask(prompt: str, seed: int) -> Completion:
            async with places:
                await pace.wait()
                answer = await client.chat.completions.create(
                    model=self._model,
                    messages=[{"role": "user", "content": prompt}],
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    max_tokens=sampling.max_new_tokens,
                    seed=seed % 2**31,
                    extra_body=self._extra_body,
                )
            return completion_of(answer.choices[0].model_dump())

        try:
            async with client, asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(ask(prompt, seed))
                    for prompt, seed in zip(with_text_for_markup(prompts), seeds, strict=True)
                ]
        except* openai.AuthenticationError as errors:
            raise UserError(
                f"engine: {self._place} refuses the key ({_first(errors)}); set {_KEY} in the "
                "environment to a valid one"
            ) from None
        except* openai.OpenAIError as errors:
            raise UserError(
                f"engine: {self._place} failed for model '{self._model}' ({_first(errors)}); "
                "mend that and start again: finished shards are kept"
            ) from None
        return [task.result() for task in tasks]

    @property
    def _place(self) -> str:
        return f"'{self._url}'" if self._url else "OpenAI's server"


class Pace:
    """Spaces out the starts of requests, so that no minute has more than it may.

    Args:
        per_minute: None = no limit.
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


def completion_of(choice: Mapping[str, Any]) -> Completion:
    """A completion from one `choice` of an answer.

    A server that parses the thought gives it as `reasoning_content` or `reasoning`; it is put
    back before the rest. Without a rest it never ended, so its end is not written. Token ids are
    there if `return_token_ids` asked vLLM for them.
    """
    message = choice["message"]
    text = message.get("content") or ""
    thought = message.get("reasoning_content") or message.get("reasoning")
    if thought:
        text = text.lstrip()
        end = f"\n{THINK_CLOSE}\n{text}" if text else ""
        text = merge_thoughts(f"{THINK_OPEN}\n{thought.strip()}{end}")
    truncated = choice.get("finish_reason") not in _COMPLETE
    return Completion(choice.get("token_ids") or [], text, truncated=truncated)


def with_text_for_markup(prompts: Sequence[str]) -> list[str]:
    """The prompts with a space in each markup of a chat, as a chat API takes no token ids.

    Many servers make control tokens of markup in a message; with the space it is text to all.
    """
    changed = [
        _MARKUP.sub(lambda mark: f"{mark[0][0]} {mark[0][1:]}", prompt) for prompt in prompts
    ]
    count = sum(new != old for new, old in zip(changed, prompts, strict=True))
    if count:
        log.warning(
            "%d of %d prompts have markup of a chat, such as <|end|>; it is sent with a space in "
            "it, so that the server reads it as text.",
            count,
            len(prompts),
        )
    return changed


def _first(errors: BaseExceptionGroup[Any]) -> str:
    """The first message of a group, on one line and short."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(str(error).split())[:300]
