"""Generation with vLLM in this process, or in one process for each replica.

Without a GPU this is vLLM's CPU build without compilation, which would take longer than a small
model takes to generate.
"""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.sampling.engine import Sampling, completions_of
from reasoning_lab.types import Completion, Prompt, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

# vLLM's logprobs are then of the distribution that a token was sampled from, with temperature.
LOGPROBS_MODE = "processed_logprobs"
# vLLM runs in this process, so that it takes new weights without a copy to another process.
_ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "WARNING"}


class VLLMEngine:
    """Samples from a causal language model.

    Its arguments are the fields of `VLLMEngineConfig`, which describes them, and the hardware.

    Raises:
        UserError: vLLM is not installed, or cannot load the model.
    """

    def __init__(
        self,
        model: str,
        revision: str | None,
        dtype: str,
        max_model_tokens: int | None,
        hardware: HardwareConfig,
        system_prompt: str | None = None,
    ) -> None:
        os.environ.update(_ENVIRONMENT)
        on_cpu = hardware.accelerator == "cpu"
        if on_cpu:
            os.environ["TORCHDYNAMO_DISABLE"] = "1"
            # Otherwise vLLM pins this process, which also trains, to one thread for each core.
            os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        try:
            import vllm
        except ImportError as error:
            raise UserError(
                f"engine: vLLM cannot be imported ({error}); install it as the README says, or "
                "choose another engine"
            ) from error
        from reasoning_lab.models.policy import load_tokenizer

        cache_gb = hardware.sampling.kv_cache_gb
        try:
            self._model = vllm.LLM(
                model=model,
                revision=revision,
                tokenizer_revision=revision,
                dtype=dtype,
                max_model_len=max_model_tokens,
                tensor_parallel_size=hardware.sampling.tensor_parallel_size,
                gpu_memory_utilization=hardware.sampling.memory_frac,
                kv_cache_memory_bytes=cache_gb and round(cache_gb * 2**30),
                enforce_eager=on_cpu,
                enable_sleep_mode=hardware.sampling.sleep,
                # On a CPU vLLM crashes on a seeded request with a chunked prompt.
                enable_chunked_prefill=False if on_cpu else None,
                logprobs_mode=LOGPROBS_MODE,
            )
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"engine.model: vLLM cannot load '{model}' ({reason}); give a Hugging Face folder "
                "or a hub id that this machine can reach, and the memory that it needs "
                "(hardware.sampling.memory_frac, or kv_cache_gb)"
            ) from error
        self._tokenizer = load_tokenizer(model, revision, "engine.model", system_prompt)
        self._max_context_tokens: int = self._model.llm_engine.model_config.max_model_len
        self._can_sleep, self._is_asleep = hardware.sampling.sleep, False

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """Return one completion for each prompt, in order.

        A prompt that fills the model's context gets an empty, truncated completion. With top-p
        below 1 there are no logprobs, since vLLM's are of the truncated distribution.
        """
        import vllm

        from reasoning_lab.models.tokenizer import prompt_tokens

        prompt_ids = prompt_tokens(self._tokenizer, prompts)
        rows = rows_within_context(prompt_ids, self._max_context_tokens)
        options = [
            vllm.SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=min(
                    sampling.max_new_tokens, self._max_context_tokens - len(prompt_ids[row])
                ),
                seed=seeds[row],
                # vLLM itself adds those of the model's generation config.
                stop_token_ids=[self._tokenizer.eos_token_id],
                logprobs=0 if has_logprobs(sampling) else None,
                # vLLM's incremental decoding drops a character that the limit cuts in two.
                detokenize=False,
            )
            for row in rows
        ]
        self._wake_up()
        request_outputs = self._model.generate(
            [vllm.TokensPrompt(prompt_token_ids=prompt_ids[row]) for row in rows],
            options,
            use_tqdm=False,
        )
        self._sleep()
        outputs = []
        for request in request_outputs:
            output: Any = request.outputs[0]
            logprobs: list[float] = []
            if has_logprobs(sampling):
                steps = zip(output.token_ids, output.logprobs, strict=True)
                logprobs = [step[token].logprob for token, step in steps]
            outputs.append((list(output.token_ids), logprobs, output.finish_reason == "length"))
        return with_empty(rows, completions_of(self._tokenizer, outputs), len(prompts))

    def load(self, policy: "PreTrainedModel") -> None:
        """Load the weights of `policy`, with its adapter merged, and reset the prefix cache.

        The policy must have the architecture of the engine's model.
        """
        self._wake_up()
        from reasoning_lab.models.adapters import merged_weights

        weights = iter(merged_weights(policy).items())
        self._model.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        self._model.reset_prefix_cache()

    def _sleep(self) -> None:
        """Free the device's memory; the weights move to the host's."""
        if self._can_sleep:
            self._model.sleep(level=1)
            self._is_asleep = True

    def _wake_up(self) -> None:
        if self._is_asleep:
            self._model.wake_up()
            self._is_asleep = False

    def close(self) -> None:
        """Free the model and its cache."""
        from reasoning_lab.models.policy import free_memory

        del self._model
        free_memory()


def rows_within_context(prompt_ids: Sequence[Sequence[int]], max_tokens: int) -> list[int]:
    """Return the rows whose prompts are shorter than the context; warn about the other rows."""
    rows = [row for row, ids in enumerate(prompt_ids) if len(ids) < max_tokens]
    if len(rows) < len(prompt_ids):
        log.warning(
            "%d of %d prompts fill vLLM's context of %d tokens and get no completion.",
            len(prompt_ids) - len(rows),
            len(prompt_ids),
            max_tokens,
        )
    return rows


def has_logprobs(sampling: Sampling) -> bool:
    """Return whether logprobs are requested and vLLM's are those of a loss, without top-p."""
    return sampling.logprobs and (sampling.top_p == 1 or sampling.temperature == 0)


def with_empty(
    rows: Sequence[int], completions: Sequence[Completion], count: int
) -> list[Completion]:
    """The completions of `rows`, and of the other of `count` prompts empty, truncated ones."""
    by_row = dict(zip(rows, completions, strict=True))
    return [by_row.get(row, Completion([], "", truncated=True)) for row in range(count)]


class VLLMReplicas:
    """Several vLLM engines, each in a process with separate devices; they share the prompts.

    Args:
        build: Builds each engine, in its process.
        count: Number of engines.
        devices: Number of devices of each engine.

    Raises:
        UserError: As in `VLLMEngine`.
    """

    def __init__(self, build: Callable[[], VLLMEngine], count: int, devices: int) -> None:
        with ExitStack() as stack:
            self._pools = [
                stack.enter_context(
                    ProcessPoolExecutor(
                        1, get_context("spawn"), _select_devices, (rank * devices, devices)
                    )
                )
                for rank in range(count)
            ]
            for future in [pool.submit(_load_replica, build) for pool in self._pools]:
                future.result()
            self._stack = stack.pop_all()

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """Return one completion for each prompt, in order; see `VLLMEngine.generate`."""
        count = len(self._pools)
        futures = [
            pool.submit(_generate_in_replica, prompts[rank::count], sampling, seeds[rank::count])
            for rank, pool in enumerate(self._pools)
        ]
        completions = [Completion([], "")] * len(prompts)
        for rank, future in enumerate(futures):
            completions[rank::count] = future.result()
        return completions

    def close(self) -> None:
        """End the processes."""
        self._stack.close()


# The engine of this process, if it is a replica.
_replica_engine: VLLMEngine | None = None


def _select_devices(first: int, count: int) -> None:
    """Make `count` of the parent's devices visible to this process."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(index) for index in range(first + count)]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices[first : first + count])


def _load_replica(build: Callable[[], VLLMEngine]) -> None:
    global _replica_engine
    _replica_engine = build()


def _generate_in_replica(
    prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
) -> list[Completion]:
    if _replica_engine is None:
        raise RuntimeError("a replica generates before it has loaded its model")
    return _replica_engine.generate(prompts, sampling, seeds)
