"""Weights that another process maps: here a second mapping in this process stands for its own."""

import os
from collections.abc import Iterator

import pytest
import torch

from reasoning_lab.sampling.shared_weights import InMemory, OnDevice, SharedWeights, read_weights


@pytest.fixture
def shared() -> Iterator[SharedWeights]:
    weights = SharedWeights()
    yield weights
    weights.close()


def test_what_is_read_is_what_was_written(shared: SharedWeights) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {
        "odd": torch.randn(3, 5, generator=generator).bfloat16(),
        "transposed": torch.randn(7, 3, generator=generator).T,
        "positions": torch.arange(5),
        "none": torch.empty(0, 4),
        "parameter": torch.nn.Parameter(torch.randn(2, 2, generator=generator)),
    }
    places = shared.write(weights)
    read = dict(read_weights(shared.fileno, places))
    assert list(read) == list(weights)
    for name, tensor in weights.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor.detach()), name


def test_tied_weights_are_there_once_and_equal_ones_twice(shared: SharedWeights) -> None:
    embedding = torch.ones(1000, 16)
    places = shared.write({"embed": embedding, "head": embedding, "other": embedding.clone()})
    assert places["embed"] == places["head"] != places["other"]
    assert os.fstat(shared.fileno).st_size == 2 * embedding.nbytes
    # A view of the same memory with another shape is another tensor.
    places = shared.write({"whole": embedding, "rows": embedding[:10]})
    read = dict(read_weights(shared.fileno, places))
    assert [tensor.shape for tensor in read.values()] == [(1000, 16), (10, 16)]


def test_later_weights_take_the_place_of_earlier_ones(shared: SharedWeights) -> None:
    shared.write({"a": torch.zeros(100)})
    size = os.fstat(shared.fileno).st_size
    places = shared.write({"a": torch.full((100,), 2.0)})
    assert os.fstat(shared.fileno).st_size == size
    assert dict(read_weights(shared.fileno, places))["a"].tolist() == [2.0] * 100
    more = shared.write({"a": torch.ones(100), "b": torch.arange(5000)})
    assert dict(read_weights(shared.fileno, more))["b"].tolist() == list(range(5000))


def test_a_gpus_tensor_is_rebuilt_on_the_readers_own_number_of_the_gpu() -> None:
    """The sender's third GPU may be the only one that the other process sees."""
    arguments = (torch.Tensor, (2, 3), (3, 1), 0, torch.UntypedStorage, torch.float32, 2, b"handle")

    def rebuild(*given: object) -> torch.Tensor:
        assert given == (*arguments[:6], 0, b"handle")
        return torch.ones(2, 3)

    assert OnDevice(rebuild, arguments).tensor(0).sum() == 6


@pytest.mark.gpu
def test_weights_on_a_gpu_are_shared_where_they_are(shared: SharedWeights) -> None:
    places = shared.write({"a": torch.ones(4, device="cuda"), "b": torch.ones(4)})
    assert isinstance(places["a"], OnDevice)
    assert isinstance(places["b"], InMemory)
