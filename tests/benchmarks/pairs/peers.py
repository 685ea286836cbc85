"""The peers' sides, on the tokens that our side trains on, configured as they document.

TRL: float32 on the CPU, fused AdamW as on our side, without its default of computing activations
again (our side keeps them too). `packing=True` is its way to rows without padding; without it,
batches are drawn at random and padded to their longest row. TRL measures entropy and the share of
tokens that are likeliest at every step and has no switch for it. DPO's reference reads each batch
beside the policy, as by default; precomputed logprobs TRL would find again in the next round. What
is timed is `train()` alone, not the preparation of the data.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import datasets
import torch
from transformers import AutoModelForCausalLM
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from reasoning_lab.data.corpus import read_rollouts
from reasoning_lab.models.policy import load_tokenizer
from reasoning_lab.models.tokenizer import prompt_texts, prompt_tokens, tokenize_rollouts

from .ours import BETA, LEARNING_RATE, answers, size_of
from .work import CHECK_STEPS, Clock, Work
from .workload import ENDING_POLICY, chance, ends

datasets.disable_progress_bars()


class Trained:
    """A TRL trainer over one epoch of a workload's documents."""

    def __init__(self, folder: Path, kind: str, batch_size: int, policy: str = "policy") -> None:
        self._folder, self._kind, self._batch_size = folder, kind, batch_size
        self._policy = folder / policy
        self._size = size_of(folder)
        self._tokenizer = load_tokenizer(folder / "policy", None, "policy")

    def check(self) -> Work:
        return self._run("-check", CHECK_STEPS)

    def round(self) -> Work:
        return self._run("", 1)

    def _run(self, suffix: str, epochs: int) -> Work:
        trainer, units, tokens = self._open(suffix, epochs)
        clock = Clock()
        trainer.train()
        elapsed = clock.read()
        self._history = trainer.state.log_history
        losses = self._logged("loss")
        return Work(units * epochs, *elapsed, tokens * epochs, tuple(losses))

    def _open(self, suffix: str, epochs: int) -> tuple[Any, int, int]:
        """A trainer, and its units and tokens of an epoch."""
        out = self._folder / "peer"
        shutil.rmtree(out, ignore_errors=True)
        model = AutoModelForCausalLM.from_pretrained(self._policy, dtype=torch.float32)
        options: dict[str, Any] = {
            "output_dir": str(out),
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "num_train_epochs": epochs,
            "per_device_train_batch_size": self._batch_size,
            "learning_rate": LEARNING_RATE,
            "lr_scheduler_type": "constant",
            "max_grad_norm": 1.0,
            "optim": "adamw_torch_fused",
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "seed": 0,
        }
        return self._trainer(model, self._folder / f"{self._kind}{suffix}", options)

    def _logged(self, key: str) -> list[float]:
        return [entry[key] for entry in self._history if key in entry]

    def _trainer(self, model: Any, data: Path, options: dict[str, Any]) -> tuple[Any, int, int]:
        raise NotImplementedError


class NextToken(Trained):
    """SFTTrainer, on token ids."""

    def __init__(self, folder: Path, kind: str, batch_size: int, packing: dict[str, Any]) -> None:
        super().__init__(folder, kind, batch_size)
        self._packing = packing

    def _trainer(self, model: Any, data: Path, options: dict[str, Any]) -> tuple[Any, int, int]:
        examples = tokenize_rollouts(self._tokenizer, read_rollouts(data / "accepted.parquet"))
        rows = [
            {
                "input_ids": [*example.prompt_ids, *example.completion_ids],
                "completion_mask": [0] * len(example.prompt_ids)
                + [1] * len(example.completion_ids),
            }
            for example in examples
        ]
        config = SFTConfig(**options, **self._packing, completion_only_loss=True)
        trainer = SFTTrainer(
            model=model,
            args=config,
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=self._tokenizer,
        )
        tokens = sum(example.length for example in examples)
        return trainer, tokens, tokens


class Preferences(Trained):
    """DPOTrainer, on the texts of prompts with their markup, and of completions."""

    def _trainer(self, model: Any, data: Path, options: dict[str, Any]) -> tuple[Any, int, int]:
        sides = [read_rollouts(data / f"{side}.parquet") for side in ("chosen", "rejected")]
        rows = [
            {
                "prompt": prompt,
                "chosen": chosen.completion.text,
                "rejected": rejected.completion.text,
            }
            for prompt, chosen, rejected in zip(
                prompt_texts(self._tokenizer, [rollout.problem.prompt for rollout in sides[0]]),
                *sides,
                strict=True,
            )
        ]
        trainer = DPOTrainer(
            model=model,
            args=DPOConfig(**options, beta=BETA),
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=self._tokenizer,
        )
        columns: Any = trainer.train_dataset
        tokens = sum(
            2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"])
            for row in columns
        )
        return trainer, len(rows), tokens


class PolicyGradient(Trained):
    """GRPOTrainer, generating with transformers; as ours, in micro-batches of 32 completions."""

    _sampling: Mapping[str, Any] = MappingProxyType({})

    def check(self) -> Work:
        return self._run("-check", 1)

    def _trainer(self, model: Any, data: Path, options: dict[str, Any]) -> tuple[Any, int, int]:
        size = self._size
        prompts = [
            json.loads(line)["prompt"]
            for line in (data / "problems.jsonl").read_text().splitlines()
        ]
        together = size.rl_prompts * size.group_size
        micro = min(32, together)
        arguments = {
            **options,
            **self._sampling,
            "per_device_train_batch_size": micro,
            "gradient_accumulation_steps": together // micro,
            "num_generations": size.group_size,
            "max_completion_length": size.max_new_tokens // 2,
        }

        def reward(completions: list[str], **_: Any) -> list[float | None]:
            return [chance(completion) for completion in completions]

        trainer = GRPOTrainer(
            model=model,
            args=GRPOConfig(**arguments),
            reward_funcs=reward,
            train_dataset=datasets.Dataset.from_dict(
                {"prompt": prompt_texts(self._tokenizer, prompts)}
            ),
            processing_class=self._tokenizer,
        )
        return trainer, len(prompts) * size.group_size, 0

    def _run(self, suffix: str, epochs: int) -> Work:
        work = super()._run(suffix, epochs)
        return replace(work, tokens=round(self._logged("num_tokens")[-1]), losses=())


def policy_gradient(folder: Path) -> Trained:
    return PolicyGradient(folder, "grpo", 0)


def policy_gradient_ending(folder: Path) -> Trained:
    return PolicyGradient(folder, "grpo", 0, ENDING_POLICY)


def packed(folder: Path) -> Trained:
    size = size_of(folder)
    options = {"packing": True, "max_length": size.row_tokens}
    return NextToken(folder, "midtrain", size.batch_rows, options)


def varied(folder: Path) -> Trained:
    return NextToken(folder, "sft", size_of(folder).batch_size, {})


def preferences(folder: Path) -> Trained:
    return Preferences(folder, "dpo", size_of(folder).batch_size)


class Generation:
    """`generate` on all prompts in one batch, padded on the left."""

    def __init__(self, folder: Path) -> None:
        self._size = size_of(folder)
        tokenizer = load_tokenizer(folder / "policy", None, "policy")
        self._model = AutoModelForCausalLM.from_pretrained(
            folder / "policy", dtype=torch.float32
        ).eval()
        prompts = prompt_tokens(tokenizer, json.loads((folder / "prompts.json").read_text()))
        padded = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
        self._inputs = {name: padded[name] for name in ("input_ids", "attention_mask")}
        self._options = {
            "do_sample": True,
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": 0,
            "max_new_tokens": self._size.max_new_tokens,
            "eos_token_id": ends(self._size),
            "pad_token_id": tokenizer.pad_token_id,
        }
        torch.manual_seed(0)

    def check(self) -> Work:
        return self.round()

    @torch.inference_mode()
    def round(self) -> Work:
        clock = Clock()
        sequences = self._model.generate(**self._inputs, **self._options)
        elapsed = clock.read()
        written = sequences[:, self._inputs["input_ids"].shape[1] :]
        ended = torch.isin(written, torch.tensor(self._options["eos_token_id"]))
        # A row's tokens up to its first end, that one too.
        tokens = int((ended.cumsum(1) - ended.long() == 0).sum())
        return Work(len(sequences), *elapsed, tokens)


def generation(folder: Path) -> Generation:
    return Generation(folder)


class Verification:
    """What math-verify's README shows, in a loop."""

    def __init__(self, folder: Path) -> None:
        self._golds, self._answers = answers(size_of(folder).answers)

    def check(self) -> Work:
        return self.round()

    def round(self) -> Work:
        from math_verify import parse, verify

        clock = Clock()
        right = 0
        for gold, answer in zip(self._golds, self._answers, strict=True):
            right += verify(parse(f"${gold}$"), parse(answer))
        elapsed = clock.read()
        return Work(len(self._golds), *elapsed, right)


def verification(folder: Path) -> Verification:
    return Verification(folder)
