"""What the checks look at: a checkpoint, and the settings that it is to be trained with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.models.policy import (
    LoadReport,
    load_model,
    load_tokenizer,
    sampling_device,
    to_device,
)
from reasoning_lab.models.tokenizer import completion_tokens, prompt_tokens
from reasoning_lab.sampling.engine import Engine
from reasoning_lab.sampling.hf import HFEngine
from reasoning_lab.training.probe import Findings, compare_training
from reasoning_lab.types import Example, Problem
from reasoning_lab.verify import Verifier

QUESTION = "What is 3 + 4?"

# From a policy, its tokenizer and the hardware to the engine that samples from it.
OpenEngine = Callable[[PreTrainedModel, PreTrainedTokenizerBase, HardwareConfig], Engine]


def hf_engine(
    policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, hardware: HardwareConfig
) -> HFEngine:
    """The engine that samples in this process, as stages open it."""
    return HFEngine(
        policy, tokenizer, hardware.generation_batch_size, cache=hardware.sampling.cache
    )


@dataclass(frozen=True, slots=True)
class ContextDemand:
    """The tokens that a stage or a benchmark asks a context to hold.

    Attributes:
        key: The config key that asks for them.
        tokens: Of a row, or of a completion.
        after_prompt: True = a prompt stands before them.
    """

    key: str
    tokens: int
    after_prompt: bool


@dataclass
class ModelUnderTest:
    """A checkpoint with its settings; tokenizer and weights are loaded when first needed.

    Attributes:
        options: The checkpoint, its precision and its adapter.
        hardware: Where it runs, with which kernels.
        problems: A few of those that it is to be trained or evaluated on.
        demands: What it must be able to read.
        verifier: Checks its answers.
        open_engine: Opens what samples from it.
    """

    options: ModelConfig
    hardware: HardwareConfig
    problems: Sequence[Problem]
    demands: Sequence[ContextDemand]
    verifier: Verifier
    open_engine: OpenEngine = hf_engine

    @property
    def path(self) -> str:
        """The folder or hub id."""
        return str(self.options.path)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        options = self.options
        return load_tokenizer(self.path, options.revision, "model.path", options.system_prompt)

    @property
    def policy(self) -> PreTrainedModel:
        """The model, on the device that samples."""
        return self._loaded[0]

    @property
    def load_report(self) -> LoadReport:
        return self._loaded[1]

    @cached_property
    def _loaded(self) -> tuple[PreTrainedModel, LoadReport]:
        policy, report = load_model(
            self.path,
            self.options.dtype,
            self.options.revision,
            kernels=self.hardware.kernels,
        )
        return to_device(policy, sampling_device(self.hardware)), report

    @cached_property
    def training_findings(self) -> Findings:
        """How training's logprobs differ from the model's own forward."""
        return compare_training(self.policy, self.hardware)

    @property
    def engine(self) -> Engine:
        return self.open_engine(self.policy, self.tokenizer, self.hardware)

    @property
    def prompt_ids(self) -> list[int]:
        """Token ids of `QUESTION` as a user's turn."""
        return prompt_tokens(self.tokenizer, [QUESTION])[0]

    @property
    def example(self) -> Example:
        """`QUESTION` with an answer that ends as every trained completion does."""
        (ids,) = completion_tokens(self.tokenizer, ["It is 7: \\boxed{7}"])
        return Example(self.prompt_ids, ids)
