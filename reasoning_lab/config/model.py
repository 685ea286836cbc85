"""Schema of `model`: the student and its adapter. No torch here."""

from dataclasses import dataclass, field
from typing import Any

from reasoning_lab.config.fields import choice, fraction, number
from reasoning_lab.types import UserError


def check_system_prompt(text: str | None, key: str) -> None:
    """Raise UserError for a system prompt that says nothing, or that no file can hold.

    `key` is where it stands in the config.
    """
    if text is None:
        return
    if not text.strip():
        raise UserError(f"{key}: it is blank; write a text, or null to leave the template alone")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{key}: it is no Unicode text ({error}); correct it") from error


@dataclass
class AdapterConfig:
    """Low-rank adapters, trained in place of the weights and merged into what a stage writes.

    `pretrain`, whose weights are new, trains all of them.

    Attributes:
        kind: lora, or qlora = the frozen layers are kept in 4 bits.
        rank: Of an adapter's matrices.
        alpha: An adapter's product is multiplied by alpha / rank.
        dropout: Of what goes into an adapter.
        target_modules: Ends of the names of the layers that get one; null = every linear layer
            of the blocks.
    """

    kind: str = choice("lora", "qlora")
    rank: int = number(16, least=1)
    alpha: float = number(32.0, least=0.0)
    dropout: float = fraction(0.0)
    target_modules: list[str] | None = None


@dataclass
class ModelConfig:
    """The student: a checkpoint to start from, or an architecture to train from scratch.

    Attributes:
        path: A Hugging Face folder or hub id; null = a stage builds `architecture` anew.
        revision: The hub commit of `path`.
        architecture: Arguments of the transformers config; `model_type` names the family, and each
            family has keys of its own, so that no schema lists them. With a
            `path` only `plan` reads them, to estimate memory without the checkpoint.
        vocab_size: Size of the tokenizer that is trained with a model from scratch.
        dtype: Precision of weights and arithmetic; mixed = training takes products in bfloat16 from
            weights that stay float32, so that steps too small for bfloat16 add up, and what
            samples is their bfloat16 copy.
        adapter: What trains in place of the weights; null = the weights do.
        system_prompt: What the system says before each problem that brings no system message. It
            becomes part of the chat template, so every policy is saved with it. null = what the
            template writes by itself.
    """

    path: str | None = None
    revision: str | None = None
    architecture: dict[str, Any] = field(default_factory=dict)
    vocab_size: int = 512
    dtype: str = choice("float32", "bfloat16", "mixed")
    adapter: AdapterConfig | None = field(default=None, metadata={"when_set": True})
    system_prompt: str | None = field(default=None, metadata={"when_set": True})

    @property
    def sampling_dtype(self) -> str:
        """Of weights and arithmetic alike, as engines have it."""
        return "bfloat16" if self.dtype == "mixed" else self.dtype
