"""Generation with vLLM in this process, or in one process for each replica.

Without a GPU this is vLLM's CPU build without compilation, which would take longer than a small
model takes to generate.
"""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, NamedTuple

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.sampling.engine import (
    NOTHING_YET,
    Sampling,
    completions_of,
    extended_outputs,
    extended_seed,
)
from reasoning_lab.sampling.engine_process import EngineProcess
from reasoning_lab.types import Completion, Prompt, UserError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

# vLLM's logprobs are then of the distribution that a token was sampled from, with temperature.
LOGPROBS_MODE = "processed_logprobs"
# vLLM runs in this process, so that it takes new weights without a copy to another process.
_ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "WARNING"}
# torchrun sets these for a trainer's ranks; another process of vLLM must not see them.
_TORCHRUN_PREFIXES = ("RANK", "LOCAL_", "ROLE_", "GROUP_", "WORLD_SIZE", "MASTER_", "TORCHELASTIC_")


class Extension(NamedTuple):
    """Tokens that vLLM adds to a text.

    Attributes:
        row: The place of the completion among those that are extended.
        text: Its prompt and the tokens that it has.
        seed: Of the new tokens.
        most_tokens: At least 1.
    """

    row: int
    text: list[int]
    seed: int
    most_tokens: int


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
        """As `InterruptibleEngine` has it; after an interruption a seed's random numbers differ."""
        from reasoning_lab.models.tokenizer import prompt_tokens

        extensions = planned_extensions(
            prompt_tokens(self._tokenizer, prompts),
            started,
            sampling,
            seeds,
            most_tokens,
            self._max_context_tokens,
        )
        outputs = self._generate(extensions, sampling)
        return extended_completions(self._tokenizer, started, extensions, outputs)

    def _generate(
        self, extensions: Sequence[Extension], sampling: Sampling
    ) -> list[tuple[list[int], Sequence[float], bool]]:
        """New tokens of each, their logprobs, and whether the limit ended them."""
        import vllm

        options = [
            vllm.SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=extension.most_tokens,
                seed=extension.seed,
                # vLLM itself adds those of the model's generation config.
                stop_token_ids=[self._tokenizer.eos_token_id],
                logprobs=0 if has_logprobs(sampling) else None,
                # vLLM's incremental decoding drops a character that the limit cuts in two.
                detokenize=False,
            )
            for extension in extensions
        ]
        self._wake_up()
        request_outputs = self._model.generate(
            [vllm.TokensPrompt(prompt_token_ids=extension.text) for extension in extensions],
            options,
            use_tqdm=False,
        )
        self._sleep()
        outputs: list[tuple[list[int], Sequence[float], bool]] = []
        for request in request_outputs:
            output: Any = request.outputs[0]
            logprobs: list[float] = []
            if has_logprobs(sampling):
                steps = zip(output.token_ids, output.logprobs, strict=True)
                logprobs = [step[token].logprob for token, step in steps]
            outputs.append((list(output.token_ids), logprobs, output.finish_reason == "length"))
        return outputs

    def load_weights(self, weights: "Iterable[tuple[str, Tensor]]") -> None:
        """Load weights of the model's architecture, by name, and reset the prefix cache."""
        self._wake_up()
        self._model.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
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


def planned_extensions(
    prompt_ids: Sequence[Sequence[int]],
    started: Sequence[Completion],
    sampling: Sampling,
    seeds: Sequence[int],
    most_tokens: int,
    max_context_tokens: int,
) -> list[Extension]:
    """What `InterruptibleEngine.extend` asks of vLLM; the log warns of prompts without room.

    Args:
        prompt_ids: Of each prompt.
        started, sampling, seeds, most_tokens: As in `InterruptibleEngine.extend`.
        max_context_tokens: Most tokens of a prompt and its completion.
    """
    extensions = []
    for row, (ids, before) in enumerate(zip(prompt_ids, started, strict=True)):
        tokens = len(before.token_ids)
        room = min(sampling.max_new_tokens, max_context_tokens - len(ids)) - tokens
        if room > 0:
            seed = extended_seed(seeds[row], tokens)
            text = [*ids, *before.token_ids]
            extensions.append(Extension(row, text, seed, min(most_tokens, room)))
    full = sum(len(ids) >= max_context_tokens for ids in prompt_ids)
    if full:
        log.warning(
            "%d of %d prompts fill vLLM's context of %d tokens and get no completion.",
            full,
            len(prompt_ids),
            max_context_tokens,
        )
    return extensions


def extended_completions(
    tokenizer: "PreTrainedTokenizerBase",
    started: Sequence[Completion],
    extensions: Sequence[Extension],
    outputs: Sequence[tuple[list[int], Sequence[float], bool]],
) -> list[Completion]:
    """Whole completions from the new tokens of each extension; the others are as they were."""
    whole = extended_outputs([started[one.row] for one in extensions], outputs)
    completions = completions_of(tokenizer, whole)
    by_row = {one.row: new for one, new in zip(extensions, completions, strict=True)}
    return [by_row.get(row, before) for row, before in enumerate(started)]


def has_logprobs(sampling: Sampling) -> bool:
    """Return whether logprobs are requested and vLLM's are those of a loss, without top-p."""
    return sampling.logprobs and (sampling.top_p == 1 or sampling.temperature == 0)


class VLLMReplicas:
    """Several vLLM engines, each in a process with separate devices; they share the prompts.

    Args:
        build: Builds each engine, in its process.
        hardware: Says how many, and how many devices each has.

    Raises:
        UserError: As in `VLLMEngine`.
    """

    def __init__(self, build: Callable[[], VLLMEngine], hardware: HardwareConfig) -> None:
        count = hardware.sampling.data_parallel_size
        devices = hardware.sampling.tensor_parallel_size
        self._threads = ThreadPoolExecutor(count)

        def replica(number: int) -> EngineProcess:
            environment = vllm_environment(hardware, (number * devices, devices))
            return EngineProcess(build, environment, None, f"copy {number} of vLLM")

        with ExitStack() as stack:
            stack.callback(self._threads.shutdown)
            futures = [self._threads.submit(replica, number) for number in range(count)]
            wait(futures)
            for future in futures:
                if future.exception() is None:
                    stack.enter_context(closing(future.result()))
            self._replicas = [future.result() for future in futures]
            self._stack = stack.pop_all()

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """Return one completion for each prompt, in order; see `VLLMEngine.generate`."""
        count = len(self._replicas)
        futures = [
            self._threads.submit(
                replica.generate, prompts[number::count], sampling, seeds[number::count]
            )
            for number, replica in enumerate(self._replicas)
        ]
        completions = [Completion([], "")] * len(prompts)
        for number, future in enumerate(futures):
            completions[number::count] = future.result()
        return completions

    def close(self) -> None:
        """End the processes."""
        self._stack.close()


def vllm_environment(
    hardware: HardwareConfig, devices: tuple[int, int] | None = None
) -> dict[str, str]:
    """The environment of a process with a vLLM, beside trainers or other vLLMs.

    Args:
        hardware: Its threads, or else this process's, are those of the other.
        devices: The first GPU of those that this process sees, and how many it gets; None = all.
    """
    import torch

    environment = {k: v for k, v in os.environ.items() if not k.startswith(_TORCHRUN_PREFIXES)}
    if hardware.accelerator == "cpu":
        threads = hardware.threads or torch.get_num_threads()
        environment |= {"TORCHDYNAMO_DISABLE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        return environment | {"OMP_NUM_THREADS": str(threads)}
    if devices is not None:
        first, count = devices
        seen = environment.get("CUDA_VISIBLE_DEVICES")
        names = seen.split(",") if seen else [str(number) for number in range(first + count)]
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(names[first : first + count])
    return environment
