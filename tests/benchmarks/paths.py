"""What a fast path of `kernels` and `sampling` is worth: one step with it and without it, in turn.

    python -m tests.benchmarks.paths [--size tiny|30m] [--rounds N] [--threads N] [PATH…]

The models are those of `pairs`, with random weights; a step is what a stage spends its time on:
`sft`, `dpo`, `rl` and `packed` are a forward and a backward pass of such a batch, `generate` draws
completions. Prints the median ratio of CPU seconds without the path to those with it, and the
smallest and the largest: 1.10 = without the path a step takes 10% longer.
"""

import argparse
import copy
import random
import statistics
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from reasoning_lab.data.tokens.batches import completion_batch, step_batches, token_batch
from reasoning_lab.data.tokens.documents import TrainedPart, document_of
from reasoning_lab.kernels import decoding, fused_ops, logit_chunks, logprobs, rows
from reasoning_lab.kernels.batch import TokenBatch
from reasoning_lab.kernels.binding import bind_kernels
from reasoning_lab.sampling import hf
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.types import Example

from .pairs.workload import ENDS_ONE_IN, SIZES, Size, word_tokenizer

# What stands in the path's place, and the steps in which it counts.
PATHS: dict[str, tuple[tuple[Any, str, Any], list[str]]] = {
    "documents": ((rows, "pads_documents", lambda model: True), ["sft", "packed"]),
    "shared_prompts": ((rows, "MOST_REPEATED_FRAC", 2.0), ["dpo", "rl"]),
    "norms": ((fused_ops, "fused_norm", lambda plain: plain), ["sft", "rl"]),
    "rotations": ((fused_ops, "fused_rotation", lambda plain: plain), ["sft", "rl"]),
    "chunks": ((logit_chunks, "LOGITS_AT_ONCE", 2**60), ["sft"]),
    "linear_cross_entropy": ((logprobs, "is_plain", lambda head: False), ["sft", "dpo"]),
    "mean_at_once": ((logit_chunks, "FEW_LOGITS", 2**60), ["sft"]),
    "decoder": ((hf, "can_decode_fused", lambda model: False), ["generate"]),
    "cache": ((decoding, "BufferedLayer", DynamicLayer), ["generate"]),
    "compaction": ((hf, "COMPACT_BELOW_FRAC", 0.0), ["generate"]),
    "sampling_chunks": ((hf, "CHUNK_LOGITS_ON_CPU", 2**60), ["generate"]),
}


def built(size: Size) -> PreTrainedModel:
    options = dict(size.architecture)
    config = AutoConfig.for_model(options.pop("model_type"), vocab_size=size.vocab_size, **options)
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    model.generation_config.eos_token_id = list(range(100, size.vocab_size, ENDS_ONE_IN))
    return model


def batch_of(step: str, size: Size) -> TokenBatch:
    """Lengths as in the step's pair."""
    rng = random.Random(0)

    def ids(least: int, most: int) -> list[int]:
        count = round(least * (most / least) ** rng.random())
        return [rng.randrange(10, size.vocab_size) for _ in range(count)]

    if step == "packed":
        parts = [size.row_tokens // share for share in (2, 4, 8, 4) for _ in range(share)]
        examples = [Example([], ids(length, length)) for length in parts]
        return token_batch([document_of(one, trained=TrainedPart.SEQUENCE) for one in examples])
    count = {"sft": 1, "dpo": 2, "rl": size.group_size}[step]
    most = size.max_new_tokens // 2 if step == "rl" else size.row_tokens - 40
    batch_size = size.rl_prompts if step == "rl" else size.batch_size
    groups = []
    for _ in range(16 * batch_size):
        prompt = ids(8, 32)
        groups.append([Example(prompt, ids(16, most)) for _ in range(count)])
    chosen = range(batch_size)
    if step != "rl":  # Training reads documents of like lengths together.
        lengths = np.array([max(example.length for example in group) for group in groups])
        chosen = step_batches(lengths, batch_size, 1, 0)[0]
    return completion_batch([example for index in chosen for example in groups[index]])


def step_of(step: str, size: Size, model: PreTrainedModel) -> Callable[[], None]:
    if step == "generate":
        engine = hf.HFEngine(model, word_tokenizer(size.vocab_size), size.prompts)
        rng = random.Random(0)
        lengths = [rng.randint(8, 40) for _ in range(size.prompts)]
        prompts = [[rng.randrange(10, size.vocab_size) for _ in range(one)] for one in lengths]
        sampling = Sampling(1.0, 1.0, size.max_new_tokens)

        def generate() -> None:
            engine.complete(prompts, sampling, range(len(prompts)))

        return generate
    batch = batch_of(step, size)
    of_batch = logprobs.token_logprobs if step in ("dpo", "rl") else logprobs.mean_logprob

    def train() -> None:
        of_batch(model, batch).sum().backward()
        model.zero_grad()

    return train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", help="all by default")
    parser.add_argument("--size", choices=["tiny", "30m"], default="tiny")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size = SIZES[options.size]
    for name in options.paths or PATHS:
        replaced, steps = PATHS[name]
        for step in steps:
            whole = built(size)
            less = copy.deepcopy(whole)
            bind_kernels(whole)
            with patch.object(*replaced):
                bind_kernels(less)
            run_whole, run_less = (step_of(step, size, model) for model in (whole, less))
            ratios = []
            for _ in range(options.rounds + 1):
                start = time.process_time()
                run_whole()
                middle = time.process_time()
                with patch.object(*replaced):
                    run_less()
                ratios.append((time.process_time() - middle) / (middle - start))
            low, high = min(ratios[1:]), max(ratios[1:])
            ratio = statistics.median(ratios[1:])
            print(f"{name}, {step}/{options.size}: {ratio:.2f} ({low:.2f}–{high:.2f})", flush=True)


if __name__ == "__main__":
    main()
