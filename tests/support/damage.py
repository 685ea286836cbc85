"""Bugs of the field, put into a checkpoint's folder, its model or its engine; one each."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.sampling.engine import Sampling, completions_of
from reasoning_lab.sampling.hf import HFEngine
from reasoning_lab.types import Completion, Prompt

Damage = Callable[[Path], None]
WEIGHTS, TOKENIZER, CONFIG = "model.safetensors", "tokenizer.json", "config.json"


def edit(name: str, change: Callable[[Any], None]) -> Damage:
    """`change` a JSON file of the folder in place."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return damage


def rewrite_template(old: str, new: str) -> Damage:
    """Replace a part of the chat template; all of it if `old` is empty."""

    def damage(folder: Path) -> None:
        path = folder / "chat_template.jinja"
        template = path.read_text()
        assert old in template
        path.write_text(template.replace(old, new) if old else new)

    return damage


def change_weights(change: Callable[[dict[str, Tensor]], None]) -> Damage:
    def damage(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        change(weights)
        save_file(weights, folder / WEIGHTS, {"format": "pt"})

    return damage


def cut_off_weights(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


def point_to_weights(folder: Path) -> None:
    """As `git clone` without Git LFS leaves them."""
    (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\nsize 1024\n")


def mix_rows(model: PreTrainedModel) -> None:
    """Each row of a batch reads the one before it."""

    def mixed(module: nn.Module, inputs: object, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        moved = states + 0.1 * states.roll(1, 0) * (len(states) > 1)
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    model.get_submodule("model.layers.0").register_forward_hook(mixed)


def read_padding(model: PreTrainedModel) -> None:
    """Attention takes no notice of the mask."""

    def without_mask(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, "attention_mask": None}

    model.register_forward_pre_hook(without_mask, with_kwargs=True)


def break_gradient(model: PreTrainedModel) -> None:
    """The forward pass is right, and its gradient NaN: that of sqrt at 0, times 0."""

    def broken(module: nn.Module, inputs: object, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        moved = states + 0 * (states * 0).sqrt()
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    model.get_submodule("model.layers.0").register_forward_hook(broken)


class DamagedEngine(HFEngine):
    """An engine with `damage`, which changes how it is called and what it returns."""

    def __init__(
        self,
        policy: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        hardware: HardwareConfig,
    ) -> None:
        super().__init__(policy, tokenizer, hardware.generation_batch_size)
        self.calls = 0


class Ungoverned(DamagedEngine):
    """Samples at temperature 1, whatever it is asked."""

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        return super().generate(prompts, replace(sampling, temperature=1.0), seeds)


class Unseeded(DamagedEngine):
    """Takes other random numbers at each call."""

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        self.calls += 1
        return super().generate(prompts, sampling, [seed + 1000 * self.calls for seed in seeds])


class Unflagged(DamagedEngine):
    """Calls every completion ended."""

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        completions = super().generate(prompts, sampling, seeds)
        return [replace(completion, truncated=False) for completion in completions]


class Endless(DamagedEngine):
    """Leaves the end token out."""

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        return [
            c if c.truncated else replace(c, token_ids=c.token_ids[:-1], logprobs=c.logprobs[:-1])
            for c in super().generate(prompts, sampling, seeds)
        ]


def stale_engine(
    policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, hardware: HardwareConfig
) -> HFEngine:
    """Of other weights than the policy's, as before a step."""
    other = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.05)
    return HFEngine(other, tokenizer, hardware.generation_batch_size)


class BaseEngine:
    """Opens engines of the first policy that it is given, whatever the later ones."""

    def __init__(self) -> None:
        self._first: PreTrainedModel | None = None

    def __call__(
        self, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, hardware: HardwareConfig
    ) -> HFEngine:
        self._first = self._first or policy
        return HFEngine(self._first, tokenizer, hardware.generation_batch_size)


class GenerateEngine:
    """transformers' own `generate`, which obeys the folder's generation config."""

    def __init__(
        self, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, hardware: HardwareConfig
    ) -> None:
        self._policy, self._tokenizer = policy, tokenizer

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        outputs = [
            self._output(ids, sampling, seed)
            for ids, seed in zip(prompt_tokens(self._tokenizer, prompts), seeds, strict=True)
        ]
        return completions_of(self._tokenizer, outputs)

    def _output(
        self, prompt: Sequence[int], sampling: Sampling, seed: int
    ) -> tuple[list[int], list[float], bool]:
        policy: Any = self._policy
        defaults = policy.generation_config
        greedy = sampling.temperature == 0
        config = GenerationConfig(
            do_sample=not greedy,
            temperature=None if greedy else sampling.temperature,
            top_k=defaults.top_k,
            eos_token_id=defaults.eos_token_id,
            pad_token_id=0,
            max_new_tokens=sampling.max_new_tokens,
            return_dict_in_generate=True,
            output_logits=True,
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            drawn = policy.generate(torch.tensor([list(prompt)]), config)
        ids = drawn.sequences[0, len(prompt) :].tolist()
        logprobs = [
            float((logits[0].float() / (sampling.temperature or 1.0)).log_softmax(-1)[token])
            for logits, token in zip(drawn.logits, ids, strict=True)
        ]
        ends = (
            defaults.eos_token_id
            if isinstance(defaults.eos_token_id, list)
            else [defaults.eos_token_id]
        )
        return ids, logprobs, ids[-1] not in ends

    def close(self) -> None:
        del self._policy
