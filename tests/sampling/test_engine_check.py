"""How far two ways of computing logprobs may differ: as rounding moves them, over some forwards."""

import pytest
import torch

from reasoning_lab.sampling.engine_check import alone_logprobs, excess_of, rounded_logprobs
from reasoning_lab.types import Example
from tests.support.tiny import tiny_model


def test_what_one_of_four_forwards_moves_is_tolerated() -> None:
    expected = torch.zeros(2)
    rounded = torch.tensor([[0.0, 0.0], [0.0, 0.4], [0.0, 0.0], [0.0, 0.0]])
    # The root of the mean of eight squares, of which one is 0.16; eight times that, and 1e-5.
    tolerance = 8 * (0.16 / 8) ** 0.5 + 1e-5
    # The distance of a single difference among two tokens.
    logprobs = torch.tensor([0.0, 2**0.5 * tolerance])
    assert excess_of(logprobs, expected, rounded) == pytest.approx(1.0)


def test_a_token_that_is_impossible_somewhere_is_not_compared() -> None:
    impossible = float("-inf")
    expected = torch.tensor([-1.0, impossible, -2.0])
    rounded = torch.tensor([[-1.0, -1.0, impossible], [-1.5, -1.0, -2.0]])
    logprobs = torch.tensor([-1.0, -9.0, -9.0])
    assert excess_of(logprobs, expected, rounded) == 0.0


def test_each_forward_is_rounded_anew_and_the_model_is_left_alone() -> None:
    model = tiny_model("qwen3", 32, 0, 1, seed=0)
    documents = [Example([5, 6], [7, 8, 9])]
    with torch.no_grad():
        expected = alone_logprobs(model, documents)
        rounded = rounded_logprobs(model, lambda: alone_logprobs(model, documents))
        again = rounded_logprobs(model, lambda: alone_logprobs(model, documents))
        afterwards = alone_logprobs(model, documents)
    assert len({tuple(row.tolist()) for row in rounded}) == len(rounded) > 1
    assert rounded.tolist() == again.tolist()
    assert (rounded - expected).abs().max() < 1e-3
    assert afterwards.tolist() == expected.tolist()
