"""Options of the engines, and of the teacher and the judge that ask a model; no torch here."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Self

from omegaconf import MISSING

from reasoning_lab.config.components import (
    EngineConfig,
    JudgeConfig,
    TeacherConfig,
    register_component,
)
from reasoning_lab.config.fields import FREE_KEYS, number
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.targets import require_package
from reasoning_lab.data.teachers.teacher import Teacher
from reasoning_lab.sampling.engine import Engine
from reasoning_lab.sampling.judge import ModelJudge


@dataclass
class HFEngineConfig(EngineConfig):
    """A model in this process, through transformers.

    Attributes:
        model: A Hugging Face folder or hub id.
        revision: The hub commit; null = the newest.
        dtype: Precision of weights and arithmetic: float32 or bfloat16.
    """

    revision: str | None = None
    dtype: str = field(default="float32", metadata={"choices": ("float32", "bfloat16")})

    def open(self, hardware: HardwareConfig) -> Engine:
        from reasoning_lab.models.policy import load_policy
        from reasoning_lab.sampling.hf import checked_engine

        key = "engine.model"
        policy, tokenizer = load_policy(
            self.model, self.dtype, self.revision, key=key, kernels=hardware.kernels
        )
        return checked_engine(policy, tokenizer, hardware, key)

    def for_policy(self, model: str, revision: str | None, dtype: str) -> Self:
        return replace(self, model=model, revision=revision, dtype=dtype)


@dataclass
class VLLMEngineConfig(EngineConfig):
    """A model in this process, through vLLM; `hardware.sampling` says how wide.

    Attributes:
        model: A Hugging Face folder or hub id.
        revision: The hub commit; null = the newest.
        dtype: Precision of weights and arithmetic, by vLLM's names; auto = the checkpoint's.
        max_model_tokens: Most tokens of a prompt and its completion; null = the model's own limit.
    """

    revision: str | None = None
    dtype: str = field(
        default="auto",
        metadata={"choices": ("auto", "half", "float16", "bfloat16", "float", "float32")},
    )
    max_model_tokens: int | None = number(None, least=1)

    def check(self, key: str) -> None:
        super().check(key)
        require_package("vllm", key, "vllm")

    def open(self, hardware: HardwareConfig) -> Engine:
        from reasoning_lab.sampling.vllm import VLLMEngine, VLLMReplicas

        build = partial(VLLMEngine, **self.arguments(), hardware=hardware)
        limits = hardware.sampling
        if limits.data_parallel_size == 1:
            return build()
        return VLLMReplicas(build, limits.data_parallel_size, limits.tensor_parallel_size)

    def for_policy(self, model: str, revision: str | None, dtype: str) -> Self:
        return replace(self, model=model, revision=revision, dtype=dtype)


@dataclass
class OpenAIEngineConfig(EngineConfig):
    """A server with OpenAI's chat API; `hardware.sampling` says where it is and how fast to ask.

    Attributes:
        model: The model's name on the server.
        extra_body: Further fields of every request, e.g. `{top_k: 20}`.
    """

    loads_checkpoints: ClassVar[bool] = False

    extra_body: dict[str, Any] = field(default_factory=dict, metadata=FREE_KEYS)

    def check(self, key: str) -> None:
        super().check(key)
        require_package("openai", key, "openai")

    def open(self, hardware: HardwareConfig) -> Engine:
        from reasoning_lab.sampling.openai import OpenAIEngine

        return OpenAIEngine(**self.arguments(), hardware=hardware)


@dataclass
class ModelTeacherConfig(TeacherConfig):
    """A language model as teacher.

    Attributes:
        engine: What samples its completions.
        instruction: Appended to every problem, on a separate line.
        opening: The start of the completion that the chat template writes, such as `<think>` and a
            line break. It is put before the text. A text with only `</think>` gets `<think>` too.
        temperature: As in `Sampling`.
        top_p: As in `Sampling`.
        max_new_tokens: As in `Sampling`.
        answer_pattern: Regular expression of an answer in prose, for a model that boxes no answer;
            the answer is its only group that matches. If a completion was not truncated and has no
            box, the last match is boxed behind it. null = no box is added.
    """

    engine: EngineConfig = MISSING
    instruction: str = r"Please reason step by step, and put your final answer within \boxed{}."
    opening: str = ""
    temperature: float = number(0.6, least=0.0)
    top_p: float = number(0.95, least=0.001, most=1.0)
    max_new_tokens: int = number(4096, least=1)
    answer_pattern: str | None = None

    def check(self, key: str) -> None:
        self.engine.check(f"{key}.engine")
        self.build()

    def build(self) -> Teacher:
        from reasoning_lab.sampling.model_teacher import ModelTeacher

        return ModelTeacher(self)


@dataclass
class ModelJudgeConfig(JudgeConfig):
    """A language model as judge.

    Attributes:
        engine: What samples its replies.
        max_new_tokens: Most tokens of a reply.
    """

    engine: EngineConfig = MISSING
    max_new_tokens: int = number(256, least=1)

    def check(self, key: str) -> None:
        self.engine.check(f"{key}.engine")

    def build(self) -> ModelJudge:
        return ModelJudge(self.engine, self.max_new_tokens)


register_component("engine", "hf", HFEngineConfig)
register_component("engine", "vllm", VLLMEngineConfig)
register_component("engine", "openai", OpenAIEngineConfig)
register_component("teacher", "model", ModelTeacherConfig)
register_component("judge", "model", ModelJudgeConfig)
