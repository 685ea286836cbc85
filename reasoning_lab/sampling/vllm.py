"""Generation with vLLM in this process, or in one process a replica.

Without a GPU it runs vLLM's CPU build, without compilation, which takes longer to warm up
than a small model takes to answer.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.types import Completion, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

# In the process that asks: a model of its own would need its weights sent there.
# Of the distribution that a token was drawn from, temperature and all.
LOGPROBS_MODE = "processed_logprobs"
_ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "WARNING"}


class VLLMEngine:
    """Samples from a causal language model.

    Args:
        model: A Hugging Face folder or hub id.
        revision: The hub commit.
        dtype: float32, bfloat16, or auto for the checkpoint's own.
        max_model_tokens: Longest prompt and completion together; null = the model's own.
        hardware: Its devices, and their share of memory.

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
    ) -> None:
        os.environ.update(_ENVIRONMENT)
        on_cpu = hardware.accelerator == "cpu"
        if on_cpu:
            os.environ["TORCHDYNAMO_DISABLE"] = "1"
            # It would pin this process, which goes on to train, to one thread a core.
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
                # On a CPU a seeded request whose prompt is read in pieces brings vLLM down.
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
        self._tokenizer = load_tokenizer(model, revision, "engine.model")
        self._limit = self._model.llm_engine.model_config.max_model_len
        self._sleeps, self._asleep = hardware.sampling.sleep, False

    def generate(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """One completion a prompt, in order.

        A prompt that fills the model's context is answered by nothing, as truncated. With
        top-p at a temperature that is not 1 there are no logprobs: vLLM's are of the
        truncated distribution.
        """
        import vllm

        from reasoning_lab.models.tokenizer import prompt_tokens

        ids = prompt_tokens(self._tokenizer, prompts)
        asked = fitting(ids, self._limit)
        options = [
            vllm.SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=min(sampling.max_new_tokens, self._limit - len(ids[row])),
                seed=seeds[row],
                # Beside those of the model's generation config, which vLLM reads itself.
                stop_token_ids=[self._tokenizer.eos_token_id],
                logprobs=0 if has_logprobs(sampling) else None,
                # Its own decoding, token by token, drops a character that a limit cut in two.
                detokenize=False,
            )
            for row in asked
        ]
        self._wake()
        found = self._model.generate(
            [vllm.TokensPrompt(prompt_token_ids=ids[row]) for row in asked],
            options,
            use_tqdm=False,
        )
        self._doze()
        outputs = [request.outputs[0] for request in found]
        texts = self._tokenizer.batch_decode(
            [output.token_ids for output in outputs], skip_special_tokens=True
        )
        completions = [Completion([], "", truncated=True) for _ in prompts]
        for row, output, text in zip(asked, outputs, texts, strict=True):
            completions[row] = _completion(output, text, sampling)
        return completions

    def load(self, policy: "PreTrainedModel") -> None:
        """Take over the weights of `policy`, its adapter merged; the architecture is the model's.

        What was read under the old weights is forgotten.
        """
        self._wake()
        from reasoning_lab.models.adapters import merged_weights

        weights = iter(merged_weights(policy).items())
        self._model.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        self._model.reset_prefix_cache()

    def _doze(self) -> None:
        """Give the device's memory back; the weights wait in the host's."""
        if self._sleeps:
            self._model.sleep(level=1)
            self._asleep = True

    def _wake(self) -> None:
        if self._asleep:
            self._model.wake_up()
            self._asleep = False

    def close(self) -> None:
        """Free the model and its cache."""
        from reasoning_lab.models.policy import free_memory

        del self._model
        free_memory()


def fitting(prompt_ids: Sequence[Sequence[int]], limit: int) -> list[int]:
    """The rows whose prompts leave room in a context of `limit` tokens; warns of the others."""
    rows = [row for row, ids in enumerate(prompt_ids) if len(ids) < limit]
    if len(rows) < len(prompt_ids):
        log.warning(
            "%d of %d prompts fill vLLM's %d tokens and are not answered.",
            len(prompt_ids) - len(rows),
            len(prompt_ids),
            limit,
        )
    return rows


def has_logprobs(sampling: Sampling) -> bool:
    """Whether they are wanted and vLLM's are a loss's, which knows no truncation to top-p."""
    return sampling.logprobs and (sampling.top_p == 1 or sampling.temperature == 0)


def _completion(output: Any, text: str, sampling: Sampling) -> Completion:
    token_ids = list(output.token_ids)
    logprobs: list[float] = []
    if has_logprobs(sampling):
        steps = zip(token_ids, output.logprobs, strict=True)
        logprobs = [step[token].logprob for token, step in steps]
    return Completion(token_ids, text, logprobs, truncated=output.finish_reason == "length")


class Replicas:
    """Several vLLM engines, each in a process with devices of its own; they share the prompts.

    Args:
        options: Arguments of each `VLLMEngine`, `hardware` among them.
        count: Their number.

    Raises:
        UserError: As `VLLMEngine` does.
    """

    def __init__(self, options: Mapping[str, Any], count: int) -> None:
        devices = options["hardware"].sampling.tensor_parallel_size
        with ExitStack() as stack:
            self._pools = [
                stack.enter_context(
                    ProcessPoolExecutor(
                        1, get_context("spawn"), _own_devices, (rank * devices, devices)
                    )
                )
                for rank in range(count)
            ]
            for loading in [pool.submit(_load, options) for pool in self._pools]:
                loading.result()
            self._stack = stack.pop_all()

    def generate(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """One completion a prompt, in order; see `VLLMEngine.generate`."""
        count = len(self._pools)
        shares = [
            pool.submit(_generate, prompts[rank::count], sampling, seeds[rank::count])
            for rank, pool in enumerate(self._pools)
        ]
        completions = [Completion([], "")] * len(prompts)
        for rank, share in enumerate(shares):
            completions[rank::count] = share.result()
        return completions

    def close(self) -> None:
        """End the processes."""
        self._stack.close()


def engine_of(
    model: str,
    revision: str | None,
    dtype: str,
    max_model_tokens: int | None,
    hardware: HardwareConfig,
) -> VLLMEngine | Replicas:
    """One engine in this process, or the configured number of replicas; see `VLLMEngine`."""
    count = hardware.sampling.data_parallel_size
    if count == 1:
        return VLLMEngine(model, revision, dtype, max_model_tokens, hardware)
    options = {
        "model": model,
        "revision": revision,
        "dtype": dtype,
        "max_model_tokens": max_model_tokens,
        "hardware": hardware,
    }
    return Replicas(options, count)


# A replica's own engine, in its process.
_engine: VLLMEngine | None = None


def _own_devices(first: int, count: int) -> None:
    """Show this process `count` of the devices that the parent sees."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(first + count)]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names[first : first + count])


def _load(options: Mapping[str, Any]) -> None:
    global _engine
    _engine = VLLMEngine(**options)


def _generate(prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
    if _engine is None:
        raise RuntimeError("a replica generates before it has loaded its model")
    return _engine.generate(prompts, sampling, seeds)
