"""Padded batches and the order in which a stage reads its examples.

Between curated examples and the losses, for every stage that does not pack. The order is
planned ahead as a pure function of its arguments, so a resumed run reads what it would have.
"""

import random
from collections.abc import Sequence

import torch

from reasoning_lab.kernels.logprobs import TokenBatch, Unpadded
from reasoning_lab.types import Example

# Rows are sorted by length among this many batches: padding shrinks, order stays random.
_WINDOW_BATCHES = 16
# Of a batch's tokens. More padding is left out, at the price of more calls of attention; of the
# rest more repeated prompts are, at the price that each layer copies what attention reads.
_MOST_PADDING_FRAC = 0.05
_MOST_REPEATED_FRAC = 0.05


def padded_batch(examples: Sequence[Example], pad_id: int) -> TokenBatch:
    """One right-padded row an example; only completion tokens are trained."""
    return padded_rows([[example] for example in examples], pad_id)


def padded_rows(rows: Sequence[Sequence[Example]], pad_id: int) -> TokenBatch:
    """Right-padded rows, each one document of examples in a row.

    An example sees those before it; only completion tokens are trained.
    """
    lengths = [row_length(row) for row in rows]
    width = max(lengths)
    input_ids = torch.full((len(rows), width), pad_id)
    completion_mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for number, row in enumerate(rows):
        at = 0
        for example in row:
            start, end = at + len(example.prompt_ids), at + example.length
            input_ids[number, at:end] = torch.tensor([*example.prompt_ids, *example.completion_ids])
            completion_mask[number, start:end] = True
            at = end
    completion_mask[:, 0] = False  # Nothing stands before it that could predict it.
    return TokenBatch(input_ids, completion_mask, unpadded=_unpadded(rows, lengths, width))


def _unpadded(
    rows: Sequence[Sequence[Example]], lengths: Sequence[int], width: int
) -> Unpadded | None:
    firsts: dict[tuple[int, ...], int] = {}
    prompts = [tuple(row[0].prompt_ids) for row in rows]
    beginnings = [
        (firsts.setdefault(prompt, number), len(prompt)) for number, prompt in enumerate(prompts)
    ]
    repeated = sum(tokens for number, (first, tokens) in enumerate(beginnings) if first != number)
    shape, starts = (len(rows), width), range(0, len(rows) * width, width)
    rounded = [min(_rounded(length), width) for length in lengths]
    pays = sum(rounded) < (1 - _MOST_PADDING_FRAC) * len(rows) * width
    apart = sum(rounded) if pays else len(rows) * width
    if repeated > _MOST_REPEATED_FRAC * apart:
        return Unpadded.of(shape, starts, lengths, beginnings)
    return Unpadded.of(shape, starts, rounded) if pays else None


def _rounded(length: int) -> int:
    """Up to five binary digits: attention takes rows of one length at once."""
    unit = 1 << max(0, length.bit_length() - 5)
    return -(-length // unit) * unit


def row_length(row: Sequence[Example]) -> int:
    """Tokens of all examples of a row."""
    return sum(example.length for example in row)


def step_batches(lengths: Sequence[int], batch_size: int, steps: int, seed: int) -> list[list[int]]:
    """Plan which examples each step reads.

    Epochs follow each other without a gap, each in its own random order, so every batch is
    full and at no step has one example been read two times more than another. A longer plan
    with the same other arguments begins with the shorter one.

    Args:
        lengths: Tokens of each example.
        batch_size: Examples a step.
        steps: Batches to plan.
        seed: Fixes the order.

    Returns:
        `steps` lists of `batch_size` indices into `lengths`.

    Raises:
        ValueError: When there is no example.
    """
    if not lengths:
        raise ValueError("step_batches needs at least one example")
    rng = random.Random(seed)
    plan: list[list[int]] = []
    pending: list[int] = []
    while len(plan) < steps:
        # The batch that two epochs share comes first, alone: a window across them would
        # put copies of one example side by side.
        shared = bool(pending)
        pending += rng.sample(range(len(lengths)), len(lengths))
        start = 0
        while len(pending) - start >= batch_size:
            count = 1 if shared else min(_WINDOW_BATCHES, (len(pending) - start) // batch_size)
            shared = False
            end = start + count * batch_size
            window = sorted(pending[start:end], key=lambda index: lengths[index])
            batches = [window[at : at + batch_size] for at in range(0, len(window), batch_size)]
            rng.shuffle(batches)
            plan += batches
            start = end
        del pending[:start]
    return plan[:steps]
