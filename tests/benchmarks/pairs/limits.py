"""What the machine could do: products of a model's own shapes, and reading memory.

A round's products are those that its tokens need, however they are computed: for each projection
of each token three in training, one in decoding; the vocabulary's only for tokens that carry loss
or follow a drawn one. Attention's own products, norms and the optimizer are left out, so a fraction
of 1 cannot be reached. Decoding also has to read: all weights once a position, and every
living row's keys and values. A model that fits into the caches can pass the memory's bandwidth.
"""

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

from reasoning_lab.models.footprint import attention_widths

from .workload import Size

_REPETITIONS = 5
_MATRIX = 16_384, 8_192  # Half a GiB of float32: no cache holds it.
_FLOAT_BYTES = 4


def projections(architecture: dict[str, Any]) -> list[tuple[int, int]]:
    """Numbers in and out of each projection of one layer."""
    hidden, inner = architecture["hidden_size"], architecture["intermediate_size"]
    queries, keys, _ = attention_widths(architecture)
    attention = [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden)]
    return [*attention, (hidden, inner), (hidden, inner), (inner, hidden)]


def training_products(size: Size, tokens: int, trained: int, passes: int) -> float:
    """Floating-point operations of a round; `passes` = 3, or 4 where a reference reads too."""
    layers: int = size.architecture["num_hidden_layers"]
    hidden: int = size.architecture["hidden_size"]
    layer = sum(into * out for into, out in projections(size.architecture))
    return 2.0 * passes * (tokens * layers * layer + trained * hidden * size.vocab_size)


def decoding_products(
    size: Size, prompts: Sequence[int], completion_lengths: Sequence[int]
) -> float:
    """Floating-point operations of sampling completions of these lengths behind their prompts."""
    # Nothing reads a row's last token.
    read = sum(prompts) + sum(completion_lengths) - len(completion_lengths)
    return training_products(size, read, sum(completion_lengths), passes=1)


def decoding_bytes(size: Size, prompts: Sequence[int], completion_lengths: Sequence[int]) -> float:
    """Bytes that sampling reads in float32, if all rows advance together by one position."""
    # A token multiplies and adds once with each weight.
    weights = training_products(size, 1, 1, passes=1) / 2
    _, keys, _ = attention_widths(size.architecture)
    layers: int = size.architecture["num_hidden_layers"]
    cached = sum(
        count * prompt + count * (count + 1) // 2
        for prompt, count in zip(prompts, (count - 1 for count in completion_lengths), strict=True)
    )
    return _FLOAT_BYTES * (max(completion_lengths) * weights + cached * layers * 2 * keys)


def bytes_per_s() -> float:
    """Bytes a second that a product of a large matrix with one vector reads."""
    weight, states = torch.ones(_MATRIX), torch.ones(_MATRIX[1])
    times = []
    for _ in range(_REPETITIONS):
        started = time.perf_counter()
        weight @ states
        times.append(time.perf_counter() - started)
    return weight.numel() * _FLOAT_BYTES / statistics.median(times)


def products_per_s(size: Size, tokens: int) -> float:
    """Operations a second of those products, forwards and backwards, with so many tokens each."""
    layers: int = size.architecture["num_hidden_layers"]
    shapes = projections(size.architecture) * layers
    shapes.append((size.architecture["hidden_size"], size.vocab_size))
    operands = [
        (torch.randn(tokens, into), torch.randn(out, into), torch.randn(tokens, out))
        for into, out in set(shapes)
    ]
    seconds_by_shape = dict.fromkeys(set(shapes), 0.0)
    for states, weight, gradient in operands:
        times = []
        for _ in range(_REPETITIONS):
            started = time.perf_counter()
            states @ weight.T
            gradient @ weight
            gradient.T @ states
            times.append(time.perf_counter() - started)
        seconds_by_shape[weight.shape[1], weight.shape[0]] = statistics.median(times)
    operations = sum(6.0 * tokens * into * out for into, out in shapes)
    return operations / sum(seconds_by_shape[shape] for shape in shapes)
