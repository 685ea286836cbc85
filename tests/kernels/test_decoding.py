"""The cache of keys and values that decoding appends to."""

import torch

from reasoning_lab.kernels.decoding import BufferedLayer


def test_a_cache_has_little_room_and_is_seldom_copied() -> None:
    layer = BufferedLayer()  # type: ignore[no-untyped-call]  # transformers' own has no types.
    layer.update(torch.ones(2, 1, 40, 8), torch.ones(2, 1, 40, 8))
    strides = set()
    for tokens in range(41, 2001):
        keys, _ = layer.update(torch.ones(2, 1, 1, 8), torch.ones(2, 1, 1, 8))
        strides.add(keys.stride(0))  # The stride of a row is the buffer's size.
        assert tokens <= keys.stride(0) // 8 <= max(tokens + 16, 1.25 * tokens)
    assert len(strides) < 25
