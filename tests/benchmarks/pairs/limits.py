"""What the machine could do: products of a model's own shapes.

A training round's products are those that its tokens need, however they are computed: three for
each projection of each token, the vocabulary's only for tokens that carry loss. Attention's own
products, norms and the optimizer are left out, so a fraction of 1 cannot be reached.
"""

import statistics
import time
from typing import Any

import torch

from reasoning_lab.models.footprint import attention_widths

from .workload import Size

_REPETITIONS = 5


def projections(architecture: dict[str, Any]) -> list[tuple[int, int]]:
    """Numbers in and out of each projection of one layer."""
    hidden, inner = architecture["hidden_size"], architecture["intermediate_size"]
    queries, keys, _ = attention_widths(architecture)
    attention = [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden)]
    return [*attention, (hidden, inner), (hidden, inner), (inner, hidden)]


def training_products(size: Size, tokens: int, trained: int, passes: int) -> float:
    """Floating-point operations of a round; `passes` = 3, or 4 where a reference reads too."""
    found = size.architecture
    layer = sum(into * out for into, out in projections(found))
    body = tokens * found["num_hidden_layers"] * layer
    return 2.0 * passes * (body + trained * found["hidden_size"] * size.vocab_size)


def products_per_s(size: Size, tokens: int) -> float:
    """Operations a second of those products, forwards and backwards, with so many tokens each."""
    found = size.architecture
    shapes = projections(found) * found["num_hidden_layers"]
    shapes.append((found["hidden_size"], size.vocab_size))
    operands = [
        (torch.randn(tokens, into), torch.randn(out, into), torch.randn(tokens, out))
        for into, out in set(shapes)
    ]
    taken = dict.fromkeys(set(shapes), 0.0)
    for states, weight, gradient in operands:
        times = []
        for _ in range(_REPETITIONS):
            started = time.perf_counter()
            states @ weight.T
            gradient @ weight
            gradient.T @ states
            times.append(time.perf_counter() - started)
        taken[weight.shape[1], weight.shape[0]] = statistics.median(times)
    operations = sum(6.0 * tokens * into * out for into, out in shapes)
    return operations / sum(taken[shape] for shape in shapes)
