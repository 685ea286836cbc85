"""Generation by vLLM servers apart from this process, whose weights follow a policy's.

Rank 0 writes the policy into a folder that the servers see, and each server reads it from there;
`VLLM_SERVER_DEV_MODE=1` opens the endpoints for that. A server that was started again holds the
weights of its own checkpoint: it is told by vLLM's `instance_id`, gets the policy's weights and is
asked anew, so no completion comes from other weights than those of the last `load`.
"""

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from reasoning_lab.config.hardware import SamplingHardwareConfig
from reasoning_lab.models.chat import stop_token_ids
from reasoning_lab.models.policy import save_policy
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.sampling.vllm import LOGPROBS_MODE, fitting, has_logprobs
from reasoning_lab.system.files import flush_and_rename
from reasoning_lab.system.ranks import Peers, rank, rank_slice, world_size
from reasoning_lab.types import Completion, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

_KEY = "hardware.sampling.rollout_urls"
_NOT_FOUND = 404
_BUSY = (408, 429, 502, 503, 504)
# What a dying server says, and also one that cannot do what it is asked.
_FAILED = 500
_LONGEST_PAUSE_S = 30.0
# What a server's own generation config would otherwise decide.
_UNTOUCHED = {
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}


class VLLMServers:
    """Samples from a policy through servers that the ranks share; every rank makes it.

    Args:
        policy: Whole on this rank; gives the tokens that end a completion.
        tokenizer: The policy's.
        urls: Where the servers are.
        limits: How hard they may be driven.
        folder: Where rank 0 writes weights for the servers.

    Raises:
        UserError: A server does not answer, or was not started as it must be.
    """

    def __init__(
        self,
        policy: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        urls: Sequence[str],
        limits: SamplingHardwareConfig,
        folder: Path,
    ) -> None:
        self._tokenizer = tokenizer
        self._ends = stop_token_ids(policy, tokenizer)
        self._dtype = str(policy.dtype)
        self._own_limit: int = policy.config.max_position_embeddings
        self._limits = limits
        self._folder = folder.absolute()
        self._urls = [url.rstrip("/").removesuffix("/v1") for url in urls]
        # As many servers as ranks, or more: each has its own. Fewer: ranks share them.
        self._own = self._urls[rank() % len(self._urls) :: world_size()]
        self._client = httpx.Client(
            timeout=limits.request_timeout_s,
            limits=httpx.Limits(max_connections=limits.requests_in_flight),
        )
        self._places = ThreadPoolExecutor(limits.requests_in_flight)
        self._peers = Peers()
        self._version: int | None = None
        # By server, the process that has the weights.
        self._instances: dict[str, str] = {}
        self._limit = min(self._checked_limit(url) for url in self._urls)

    def generate(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """One completion a prompt, in order; see `VLLMEngine.generate`.

        Raises:
            UserError: A server refuses a request, fails for longer than it may, or was started with
                less context than the model has and a completion needs.
        """
        ids = prompt_tokens(self._tokenizer, prompts)
        needed = sampling.max_new_tokens + max(map(len, ids), default=0)
        if self._limit < min(needed, self._own_limit):
            raise UserError(
                f"{_KEY}: a prompt and its completion may take {needed} tokens, and the servers "
                f"have {self._limit}; start them with --max-model-len {needed} or more"
            )
        asked = fitting(ids, self._limit)
        choices: dict[int, Any] = {}
        by_server = {url: asked[turn :: len(self._own)] for turn, url in enumerate(self._own)}
        while by_server:
            pending = [
                (row, self._places.submit(self._ask, url, ids[row], sampling, seeds[row]))
                for url, rows in by_server.items()
                for row in rows
            ]
            choices |= {row: choice.result() for row, choice in pending}
            by_server = {url: rows for url, rows in by_server.items() if self._restarted(url)}
            self._instances |= self._push(list(by_server))
        texts = self._tokenizer.batch_decode(
            [choices[row]["token_ids"] for row in asked], skip_special_tokens=True
        )
        completions = [Completion([], "", truncated=True) for _ in prompts]
        for row, text in zip(asked, texts, strict=True):
            completions[row] = _completion(choices[row], str(text), sampling)
        return completions

    def load(self, policy: "PreTrainedModel", version: int) -> None:
        """Give every server the weights of `policy`, its adapter merged; every rank calls it.

        Args:
            policy: Whole on rank 0.
            version: Equal versions have equal weights: they are not sent twice.

        Raises:
            UserError: A server cannot take them.
        """
        if version == self._version:
            return
        before, self._version = self._version, version
        if rank() == 0:
            shutil.rmtree(self._snapshot, ignore_errors=True)  # Of a job that was killed.
            draft = self._folder / "draft"
            shutil.rmtree(draft, ignore_errors=True)
            save_policy(policy, self._tokenizer, draft)
            flush_and_rename(draft, self._snapshot)
        self._peers.all_gather(None)
        for pushed in self._peers.all_gather(self._push(rank_slice(self._urls))):
            self._instances |= pushed
        if rank() == 0 and before is not None:
            shutil.rmtree(self._folder / str(before))

    def close(self) -> None:
        """End the connections, and remove the weights; the servers stay."""
        self._places.shutdown(cancel_futures=True)
        self._client.close()
        if rank() == 0:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _snapshot(self) -> Path:
        return self._folder / str(self._version)

    def _checked_limit(self, url: str) -> int:
        """The longest text of a server that computes what vLLM in this process would."""
        config = self._config_of(url)["model_config"]
        for key, wanted in (("logprobs_mode", LOGPROBS_MODE), ("dtype", self._dtype)):
            if config[key] != wanted:
                raise UserError(
                    f"{_KEY}: '{url}' has {key}={config[key]}; start it as in {self._start}"
                )
        return int(config["max_model_len"])

    @property
    def _start(self) -> str:
        dtype = self._dtype.removeprefix("torch.")
        options = f"--dtype {dtype} --logprobs-mode {LOGPROBS_MODE}"
        return f"VLLM_SERVER_DEV_MODE=1 vllm serve FOLDER {options}"

    def _config_of(self, url: str) -> Any:
        answer = self._answer(url, "GET", "/server_info?config_format=json", None, _BUSY)
        return answer["vllm_config"]

    def _restarted(self, url: str) -> bool:
        """Whether the process is gone that was given the weights."""
        same = self._config_of(url)["instance_id"] == self._instances[url]
        if not same:
            log.warning("'%s' was started again: it gets the weights and is asked anew.", url)
        return not same

    def _push(self, urls: Sequence[str]) -> dict[str, str]:
        """Have the servers read the snapshot and forget what they computed; their processes."""
        pushed = self._places.map(self._push_to, urls)
        return dict(zip(urls, pushed, strict=True))

    def _push_to(self, url: str) -> str:
        # Before: if it is started again meanwhile, the next look at it will tell.
        instance = str(self._config_of(url)["instance_id"])
        reload = {"method": "reload_weights", "kwargs": {"weights_path": str(self._snapshot)}}
        self._answer(url, "POST", "/collective_rpc", reload, _BUSY)
        self._answer(url, "POST", "/reset_prefix_cache?reset_running_requests=true", {}, _BUSY)
        return instance

    def _ask(self, url: str, prompt: Sequence[int], sampling: Sampling, seed: int) -> Any:
        body = {
            **_UNTOUCHED,
            "prompt": prompt,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": min(sampling.max_new_tokens, self._limit - len(prompt)),
            "seed": seed,
            "stop_token_ids": self._ends,
            "logprobs": 0,
            "return_token_ids": True,
        }
        answer = self._answer(url, "POST", "/v1/completions", body, (*_BUSY, _FAILED))
        return answer["choices"][0]

    def _answer(
        self, url: str, method: str, path: str, body: Mapping[str, Any] | None, busy: Sequence[int]
    ) -> Any:
        """What the server answers; it is asked again when it fails with a status of `busy`."""
        for attempt in range(self._limits.request_retries + 1):
            if attempt:
                time.sleep(min(2.0 ** (attempt - 2), _LONGEST_PAUSE_S))
            try:
                answer = self._client.request(method, f"{url}{path}", json=body)
            except httpx.TransportError as error:
                reason = str(error) or type(error).__name__
                continue
            if answer.is_success:
                return answer.json()
            reason = f"{answer.status_code} {' '.join(answer.text.split())[:300]}"
            if answer.status_code == _NOT_FOUND:
                raise UserError(
                    f"{_KEY}: '{url}' has no {path.partition('?')[0]}; start it as in {self._start}"
                )
            if answer.status_code not in busy:
                break
        raise UserError(
            f"{_KEY}: '{url}{path.partition('?')[0]}' failed ({reason}); {self._remedy(path)}"
        )

    def _remedy(self, path: str) -> str:
        if path == "/collective_rpc":
            return (
                f"start it on a policy of the same architecture, and let it see {self._folder} "
                "(hardware.sampling.weights_dir)"
            )
        return (
            f"start it as in {self._start}, and run the same command again to go on from the last "
            "checkpoint"
        )


def _completion(choice: Mapping[str, Any], text: str, sampling: Sampling) -> Completion:
    return Completion(
        choice["token_ids"],
        text,
        choice["logprobs"]["token_logprobs"] if has_logprobs(sampling) else (),
        truncated=choice["finish_reason"] == "length",
    )
