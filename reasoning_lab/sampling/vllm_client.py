"""Generation by vLLM servers in other processes, which load the weights of a policy.

Where every server offers it, each rank sends the weights to its servers; see `weight_transfer.py`.
Else rank 0 writes the policy to a folder that the servers can read. `VLLM_SERVER_DEV_MODE=1` opens
the endpoints for both. A server that was restarted has the weights of its checkpoint.
vLLM's `instance_id` shows that, and the server gets the policy's weights and the requests again.
So every completion comes from the weights of the last `load`.
"""

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from reasoning_lab.config.hardware import SamplingHardwareConfig
from reasoning_lab.models.adapters import merged_policy
from reasoning_lab.models.chat import stop_token_ids
from reasoning_lab.models.policy import save_policy
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.sampling.engine import NOTHING_YET, Sampling
from reasoning_lab.sampling.vllm import (
    LOGPROBS_MODE,
    Extension,
    extended_completions,
    has_logprobs,
    planned_extensions,
)
from reasoning_lab.sampling.weight_transfer import (
    BACKEND,
    START_OPTION,
    WeightTransfer,
    can_transfer,
)
from reasoning_lab.system.files import flush_and_rename
from reasoning_lab.system.ranks import Peers, rank, rank_slice, world_size
from reasoning_lab.types import Completion, Prompt, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

_KEY = "hardware.sampling.rollout_urls"
_NOT_FOUND = 404
_BUSY = (408, 429, 502, 503, 504)
# A server that fails returns this, and also one that cannot serve the request.
_FAILED = 500
_LONGEST_PAUSE_S = 30.0
# These override the server's generation config.
_NEUTRAL_SAMPLING = {
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}


class VLLMClient:
    """Samples from a policy through servers that the ranks share; every rank builds a client.

    Args:
        policy: Unsharded on this rank; defines the tokens that end a completion. A server that is
            restarted gets the weights that it has then.
        tokenizer: The policy's.
        urls: Addresses of the servers.
        limits: Limits of the requests.
        folder: Folder in which rank 0 writes weights for the servers.

    Raises:
        UserError: A server does not respond, or was started with other options than required.
    """

    def __init__(
        self,
        policy: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        urls: Sequence[str],
        limits: SamplingHardwareConfig,
        folder: Path,
    ) -> None:
        self._policy, self._tokenizer = policy, tokenizer
        self._stop_ids = stop_token_ids(policy, tokenizer)
        self._dtype = str(policy.dtype)
        self._model_context_tokens: int = policy.config.max_position_embeddings
        self._limits = limits
        self._folder = folder.absolute()
        self._urls = [url.rstrip("/").removesuffix("/v1") for url in urls]
        # Each rank has separate servers, unless there are fewer servers than ranks.
        self._rank_urls = self._urls[rank() % len(self._urls) :: world_size()]
        self._client = httpx.Client(
            timeout=limits.request_timeout_s,
            limits=httpx.Limits(max_connections=limits.requests_in_flight),
        )
        self._threads = ThreadPoolExecutor(limits.requests_in_flight)
        self._peers = Peers()
        self._version: int | None = None
        # The instance id of the process that has the weights, by server.
        self._instances: dict[str, str] = {}
        configs = [self._checked_config(url) for url in self._urls]
        self._max_context_tokens = min(one["model_config"]["max_model_len"] for one in configs)
        self._transfers: dict[str, WeightTransfer] = {}
        # Two ranks that share a server cannot both be in its group.
        self._transfers_weights = (
            len(self._urls) >= world_size()
            and all(_offers_transfer(config) for config in configs)
            and can_transfer()
        )

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """Return one completion for each prompt, in order; see `VLLMEngine.generate`.

        Raises:
            UserError: A server refuses a request, fails for too long, or was started with less
                context than the model has and the completions need.
        """
        started = [NOTHING_YET] * len(prompts)
        return self.extend(prompts, started, sampling, seeds, sampling.max_new_tokens)

    def extend(
        self,
        prompts: Sequence[Prompt],
        started: Sequence[Completion],
        sampling: Sampling,
        seeds: Sequence[int],
        most_tokens: int,
    ) -> list[Completion]:
        """As `VLLMEngine.extend`.

        Raises:
            UserError: As in `generate`.
        """
        prompt_ids = prompt_tokens(self._tokenizer, prompts)
        self._require_context(prompt_ids, sampling)
        extensions = planned_extensions(
            prompt_ids, started, sampling, seeds, most_tokens, self._max_context_tokens
        )
        choices = self._choices(extensions, sampling)
        outputs = [
            (
                choice["token_ids"],
                choice["logprobs"]["token_logprobs"] if has_logprobs(sampling) else (),
                choice["finish_reason"] == "length",
            )
            for choice in choices
        ]
        return extended_completions(self._tokenizer, started, extensions, outputs)

    def _choices(self, extensions: Sequence[Extension], sampling: Sampling) -> list[Any]:
        """The servers' answer for each extension, also where one is restarted meanwhile."""
        choices: dict[int, Any] = {}
        numbers, count = range(len(extensions)), len(self._rank_urls)
        numbers_by_url = {url: numbers[start::count] for start, url in enumerate(self._rank_urls)}
        while numbers_by_url:
            futures = {
                number: self._threads.submit(self._complete, url, extensions[number], sampling)
                for url, of_url in numbers_by_url.items()
                for number in of_url
            }
            choices |= {number: future.result() for number, future in futures.items()}
            numbers_by_url = {
                url: of_url for url, of_url in numbers_by_url.items() if self._was_restarted(url)
            }
            self._instances |= self._load_weights(list(numbers_by_url))
        return [choices[number] for number in numbers]

    def _require_context(self, prompt_ids: Sequence[Sequence[int]], sampling: Sampling) -> None:
        """Raise UserError where servers have less context than the model, and it is needed."""
        needed_tokens = sampling.max_new_tokens + max(map(len, prompt_ids), default=0)
        if self._max_context_tokens < min(needed_tokens, self._model_context_tokens):
            raise UserError(
                f"{_KEY}: a prompt and its completion may take {needed_tokens} tokens, and the "
                f"servers have {self._max_context_tokens}; start them with "
                f"--max-model-len {needed_tokens} or more"
            )

    def load(self, policy: "PreTrainedModel", version: int) -> None:
        """Load the weights of `policy`, its adapter merged, on all servers; every rank calls it.

        Args:
            policy: Unsharded on rank 0.
            version: Equal versions have equal weights, which are loaded only once.

        Raises:
            UserError: A server cannot load the weights.
        """
        if version == self._version:
            return
        previous_version, self._version = self._version, version
        self._policy = policy
        if self._transfers_weights:
            self._instances |= self._load_weights(self._rank_urls)
            self._peers.all_gather(None)
            return
        if rank() == 0:
            self._write_snapshot()
        self._peers.all_gather(None)
        for instances in self._peers.all_gather(self._load_weights(rank_slice(self._urls))):
            self._instances |= instances
        if rank() == 0 and previous_version is not None:
            shutil.rmtree(self._folder / str(previous_version))

    def _write_snapshot(self) -> None:
        """Write the policy where the servers read it."""
        shutil.rmtree(self._snapshot, ignore_errors=True)  # Left by a killed job.
        draft = self._folder / "draft"
        shutil.rmtree(draft, ignore_errors=True)
        merged = merged_policy(self._policy)
        # Also the output head's where they are the embedding's: on a CPU vLLM's head would
        # otherwise keep a packed copy of those that came before.
        weights, seen = {}, set[int]()
        for name, weight in merged.state_dict().items():
            weights[name] = weight.clone() if weight.data_ptr() in seen else weight
            seen.add(weight.data_ptr())
        save_policy(merged, self._tokenizer, draft, weights)
        flush_and_rename(draft, self._snapshot)

    def close(self) -> None:
        """Close the connections and remove the weights; the servers keep running."""
        for transfer in self._transfers.values():
            transfer.close()
        self._threads.shutdown(cancel_futures=True)
        self._client.close()
        if rank() == 0:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _snapshot(self) -> Path:
        return self._folder / str(self._version)

    def _checked_config(self, url: str) -> Any:
        """Return a server's options, after a check of those that matter."""
        config = self._server_config(url)
        model = config["model_config"]
        for key, expected in (("logprobs_mode", LOGPROBS_MODE), ("dtype", self._dtype)):
            if model[key] != expected:
                raise UserError(
                    f"{_KEY}: '{url}' has {key}={model[key]}; start it as in {self._start_command}"
                )
        return config

    @property
    def _start_command(self) -> str:
        dtype = self._dtype.removeprefix("torch.")
        options = f"--dtype {dtype} --logprobs-mode {LOGPROBS_MODE}"
        options += f" {START_OPTION}" if can_transfer() else ""
        return f"VLLM_SERVER_DEV_MODE=1 vllm serve FOLDER {options}"

    def _server_config(self, url: str) -> Any:
        response = self._request(url, "GET", "/server_info?config_format=json", None)
        return response["vllm_config"]

    def _was_restarted(self, url: str) -> bool:
        """Return whether another process serves the address than the one with the weights."""
        if self._server_config(url)["instance_id"] == self._instances[url]:
            return False
        log.warning("'%s' was restarted: it gets the weights and the requests again.", url)
        return True

    def _load_weights(self, urls: Sequence[str]) -> dict[str, str]:
        """Load the weights on the servers and reset their caches; return their instance ids."""
        if self._transfers_weights:  # One after another, as they share this process's device.
            return {url: self._load_weights_on(url) for url in urls}
        instances = self._threads.map(self._load_weights_on, urls)
        return dict(zip(urls, instances, strict=True))

    def _load_weights_on(self, url: str) -> str:
        # This comes first, so that a restart in between shows in the next check.
        instance = str(self._server_config(url)["instance_id"])
        if self._transfers_weights:
            self._send_weights_to(url, instance)
        else:
            reload = {"method": "reload_weights", "kwargs": {"weights_path": str(self._snapshot)}}
            self._request(url, "POST", "/collective_rpc", reload)
        self._request(url, "POST", "/reset_prefix_cache?reset_running_requests=true", {})
        return instance

    def _send_weights_to(self, url: str, instance: str) -> None:
        """Send the policy's weights, in a new group if the server was restarted."""
        if url not in self._transfers or self._instances.get(url) != instance:
            self._transfers[url] = WeightTransfer(
                url,
                partial(self._request, url),
                self._policy.device,
                self._limits.request_timeout_s,
            )
        self._transfers[url].send(self._policy)

    def _complete(self, url: str, extension: Extension, sampling: Sampling) -> Any:
        body = {
            **_NEUTRAL_SAMPLING,
            "prompt": extension.text,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": extension.most_tokens,
            "seed": extension.seed,
            "stop_token_ids": self._stop_ids,
            "logprobs": 0,
            "return_token_ids": True,
        }
        response = self._request(url, "POST", "/v1/completions", body, (*_BUSY, _FAILED))
        return response["choices"][0]

    def _request(
        self,
        url: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        busy: Sequence[int] = _BUSY,
    ) -> Any:
        """Send a request and return the response; retry after a status in `busy`."""
        for attempt in range(self._limits.request_retries + 1):
            if attempt:
                time.sleep(min(2.0 ** (attempt - 2), _LONGEST_PAUSE_S))
            try:
                response = self._client.request(method, f"{url}{path}", json=body)
            except httpx.TransportError as error:
                reason = str(error) or type(error).__name__
                continue
            if response.is_success:
                return response.json()
            reason = f"{response.status_code} {' '.join(response.text.split())[:300]}"
            if response.status_code == _NOT_FOUND:
                raise UserError(
                    f"{_KEY}: '{url}' has no {path.partition('?')[0]}; "
                    f"start it as in {self._start_command}"
                )
            if response.status_code not in busy:
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
            f"start it as in {self._start_command}, and run the same command again to go on from "
            "the last checkpoint"
        )


def _offers_transfer(config: Mapping[str, Any]) -> bool:
    """Whether a server, by its options, takes weights over NCCL."""
    return (config.get("weight_transfer_config") or {}).get("backend") == BACKEND
