"""A checkpoint that sharded trainers wrote is one model to transformers and to the real vLLM."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from reasoning_lab.config.hardware import SHARDED, HardwareConfig, SamplingHardwareConfig
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.sampling.vllm import VLLMEngine
from reasoning_lab.training.job import Job
from reasoning_lab.types import Completion
from tests.support.launches import train_together, with_placement

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

NEW_TOKENS = 24
PROMPTS = [f"What is {a} + {b}?" for a in range(3) for b in range(4)]


@torch.no_grad()
def greedy_in_transformers(folder: Path, prompts: Sequence[str]) -> list[Completion]:
    """Return transformers' greedy completions, with the logprob of each token."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    completions = []
    for prompt in prompts:
        inputs: Any = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        row = model.generate(**inputs, do_sample=False, max_new_tokens=NEW_TOKENS)
        prompt_length = inputs["input_ids"].shape[1]
        logprobs = model(row).logits[0, prompt_length - 1 : -1].log_softmax(-1)
        new_tokens = row[0, prompt_length:]
        token_logprobs = logprobs.gather(-1, new_tokens[:, None])[:, 0]
        completions.append(Completion(new_tokens.tolist(), "", token_logprobs.tolist()))
    return completions


@pytest.fixture(scope="module")
def trained(jobs: dict[str, Job], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each strategy that shards the weights."""
    root = tmp_path_factory.mktemp("shards")
    placed_jobs = {
        strategy: with_placement(jobs["pretrain"], root / "jobs" / strategy, strategy)
        for strategy in SHARDED
    }
    train_together(placed_jobs, root)
    return root


@pytest.mark.parametrize("strategy", SHARDED)
def test_whole_model_from_shards(strategy: str, trained: Path) -> None:
    folder = trained / strategy / "whole"
    hardware = HardwareConfig(sampling=SamplingHardwareConfig(kv_cache_gb=0.25))
    engine = VLLMEngine(str(folder), None, "float32", None, hardware)
    try:
        completions = engine.generate(PROMPTS, Sampling(0.0, 1.0, NEW_TOKENS), range(len(PROMPTS)))
    finally:
        engine.close()
    expected = greedy_in_transformers(folder, PROMPTS)
    assert [list(one.token_ids) for one in completions] == [list(one.token_ids) for one in expected]
    for one, other in zip(completions, expected, strict=True):
        assert list(one.logprobs) == pytest.approx(list(other.logprobs), abs=1e-4)
