"""Curves of the model's work: training steps, packing, generation, the losses of an update."""

import functools
import random
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.data.tokens.batches import step_batches, token_batch
from reasoning_lab.data.tokens.documents import TrainedPart, document_of
from reasoning_lab.data.tokens.packing import pack
from reasoning_lab.data.tokens.table import TokenTable
from reasoning_lab.kernels.batch import TokenBatch
from reasoning_lab.kernels.logprobs import mean_logprob
from reasoning_lab.losses.advantages import ADVANTAGES
from reasoning_lab.losses.policy_gradient import kl_to_reference, token_weights, weighted_loss
from reasoning_lab.losses.policy_losses import clip
from reasoning_lab.models.policy import load_policy
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.sampling.hf import HFEngine
from reasoning_lab.training.next_token_training import rows_batch
from reasoning_lab.types import Example

from ..pairs.workload import SIZES, write_workload
from .curve import Curve, doublings

_VOCAB = SIZES["tiny"].vocab_size
_DOCUMENT_TOKENS = 64
_ROW_TOKENS = 256
_PROMPTS, _COMPLETION_TOKENS = 8, 64


@functools.cache
def _policy() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The tiny architecture with random weights, whose end token is never the likeliest."""
    with tempfile.TemporaryDirectory() as folder:
        write_workload(replace(SIZES["tiny"], steps={}, prompts=0), Path(folder))
        model, tokenizer = load_policy(Path(folder) / "policy", "float32")
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer.eos_token_id] = 0.0  # type: ignore[operator]
    return model, tokenizer


def _step(batch: TokenBatch) -> Callable[[], object]:
    model, _ = _policy()
    # No learning rate, so that generation has the same weights, whatever trained before.
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0, fused=True)

    def step() -> None:
        model.train()
        loss = -mean_logprob(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _plain_step(rows: int, tokens: int) -> Callable[[], object]:
    ids = torch.randint(10, _VOCAB, (rows, tokens), generator=torch.Generator().manual_seed(0))
    return _step(_whole([Example([], row) for row in ids.tolist()]))


def _whole(examples: Sequence[Example]) -> TokenBatch:
    part = TrainedPart.SEQUENCE
    return token_batch([document_of(example, trained=part) for example in examples])


def train_tokens(size: int, stack: ExitStack) -> Callable[[], object]:
    return _plain_step(2, size)


def train_rows(size: int, stack: ExitStack) -> Callable[[], object]:
    return _plain_step(size, 128)


def _documents(lengths: Sequence[int]) -> list[Example]:
    rng = random.Random(0)
    return [
        Example(rng.choices(range(10, _VOCAB), k=8), rng.choices(range(10, _VOCAB), k=length - 8))
        for length in lengths
    ]


def train_packed(size: int, stack: ExitStack) -> Callable[[], object]:
    documents = _documents([_DOCUMENT_TOKENS] * (size // _DOCUMENT_TOKENS))
    return _step(_whole(documents))


def packing(size: int, stack: ExitStack) -> Callable[[], object]:
    rng = random.Random(0)
    documents = _documents([rng.randint(16, 200) for _ in range(size)])
    table = TokenTable.of_documents([document_of(document) for document in documents])

    def work() -> None:
        rows = pack(table.lengths, _ROW_TOKENS)
        for start in range(0, len(rows), 4):
            rows_batch(table, rows, np.arange(start, min(start + 4, len(rows))))

    return work


def plan(size: int, stack: ExitStack) -> Callable[[], object]:
    lengths = np.random.default_rng(0).integers(16, 200, size)
    return partial(step_batches, lengths, 8, size // 8, 0)


def _generation(prompts: Sequence[Sequence[int]], max_new_tokens: int) -> Callable[[], object]:
    engine = HFEngine(*_policy(), batch_size=len(prompts))
    sampling = Sampling(0.0, 1.0, max_new_tokens)  # Greedy: no row ends before the others.
    return partial(engine.complete, prompts, sampling, list(range(len(prompts))))


def _prompts(count: int) -> list[list[int]]:
    return [list(document.completion_ids) for document in _documents([32] * count)]


def generate_rows(size: int, stack: ExitStack) -> Callable[[], object]:
    return _generation(_prompts(size), 32)


def generate_tokens(size: int, stack: ExitStack) -> Callable[[], object]:
    return _generation(_prompts(16), size)


def generate_group(size: int, stack: ExitStack) -> Callable[[], object]:
    return _generation(_prompts(1) * size, 32)


def update(size: int, stack: ExitStack) -> Callable[[], object]:
    generator = torch.Generator().manual_seed(0)
    rewards = [torch.rand(size, generator=generator) for _ in range(_PROMPTS)]
    rollouts, tokens = _PROMPTS * size, _COMPLETION_TOKENS
    count = rollouts * tokens
    policy, behavior, reference = (-torch.rand(count, generator=generator) for _ in range(3))
    policy.requires_grad_()
    lengths = torch.full((rollouts,), tokens)

    def work() -> None:
        for estimate in ADVANTAGES.values():
            weights = token_weights(
                "sequence", [tokens] * rollouts, [rollouts] * rollouts, 1, rollouts, tokens
            )
            advantages = torch.cat(estimate(rewards)).repeat_interleave(tokens)
            token_weight = torch.tensor(weights).repeat_interleave(tokens)
            losses = clip(policy, behavior, advantages, lengths).losses
            divergences = kl_to_reference("k3", policy, reference)
            weighted_loss(losses, token_weight, None, divergences, 0.1).backward()

    return work


_TRAIN = "forward, backward and AdamW of the tiny model"
_GENERATE = "HFEngine, greedy, the tiny model, 32-token prompts"
CURVES = {
    "train/tokens": Curve(
        "tokens of a row", f"{_TRAIN}, 2 rows", doublings(128, 2048), 2, train_tokens
    ),
    "train/rows": Curve("rows", f"{_TRAIN}, 128 tokens each", doublings(4, 64), 1, train_rows),
    "train/packed": Curve(
        "tokens of a packed row",
        f"{_TRAIN}, one row of 64-token documents",
        doublings(128, 2048),
        1,
        train_packed,
    ),
    "pack/documents": Curve(
        "documents", "rows of 256 tokens chosen and collated", doublings(256, 8192), 1, packing
    ),
    "plan/examples": Curve(
        "examples", "one epoch of batches of 8 planned", doublings(2**11, 2**18), 1, plan
    ),
    "generate/rows": Curve(
        "rows", f"{_GENERATE}, 32 new tokens", doublings(16, 512), 1, generate_rows
    ),
    "generate/tokens": Curve(
        "new tokens", f"{_GENERATE}, 16 rows", doublings(32, 1024), 2, generate_tokens
    ),
    "generate/group": Curve(
        "group size",
        f"{_GENERATE}, one prompt, 32 new tokens",
        doublings(16, 512),
        1,
        generate_group,
    ),
    "update/group": Curve(
        "group size",
        "every advantage and its clipped loss, 8 prompts of 64-token rollouts",
        doublings(16, 1024),
        1,
        update,
    ),
}
