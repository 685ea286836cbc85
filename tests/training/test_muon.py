"""Muon orthogonalizes hidden matrices, and leaves all else to AdamW."""

import copy

import pytest
import torch
from torch.optim import AdamW

from reasoning_lab.training.muon import MuonAdamW, orthogonalized
from tests.support.tensors import gradient_of


def _model() -> torch.nn.ModuleDict:
    torch.manual_seed(0)
    return torch.nn.ModuleDict({"embed": torch.nn.Embedding(7, 4), "hidden": torch.nn.Linear(4, 6)})


def _backward(model: torch.nn.ModuleDict, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 7, (5,), generator=generator)
    target = torch.randn(5, 6, generator=generator)
    model.zero_grad()
    (model["hidden"](model["embed"](tokens)) - target).pow(2).mean().backward()


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6)])
def test_orthogonalized_keeps_the_singular_vectors_and_levels_the_values(
    shape: tuple[int, int],
) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    matrix = matrices[1]
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    result = orthogonalized(matrices)[1]
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.5
    assert values.max() < 1.3
    # In the singular basis the result is diagonal: same vectors, only the values changed.
    core = left.T @ result @ right.T
    assert (core - torch.diag(core.diagonal())).abs().max() < 1e-4


def test_everything_but_hidden_matrices_moves_as_with_adamw() -> None:
    ours, theirs = _model(), _model()
    optimizer = MuonAdamW(ours.named_parameters(), lr=0.01, weight_decay=0.1)
    adamw = AdamW(theirs.parameters(), lr=0.01, betas=(0.9, 0.98), weight_decay=0.1)
    _backward(ours, 0)
    _backward(theirs, 0)
    optimizer.step()
    adamw.step()
    for name in ("embed.weight", "hidden.bias"):
        torch.testing.assert_close(ours.get_parameter(name), theirs.get_parameter(name))
    assert not torch.equal(
        ours.get_parameter("hidden.weight"), theirs.get_parameter("hidden.weight")
    )


def test_first_step_of_a_hidden_matrix_by_hand() -> None:
    model = _model()
    hidden = model.get_parameter("hidden.weight")
    before = hidden.detach().clone()
    optimizer = MuonAdamW(model.named_parameters(), lr=0.01)
    _backward(model, 0)
    gradient = gradient_of(hidden).clone()
    optimizer.step()
    # momentum m = 0.05 g, Nesterov: 0.05 g + 0.95 m, a multiple of g, so the direction is g's.
    expected = before - 0.01 * 0.2 * 6**0.5 * orthogonalized(gradient.T[None])[0].T
    torch.testing.assert_close(hidden.detach(), expected, rtol=1e-4, atol=1e-6)


def test_matrices_that_share_a_batch_move_as_each_would_alone() -> None:
    shapes = {"tall": (6, 4), "wide": (4, 6), "square": (4, 4), "tall_too": (6, 4)}
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
    gradients = {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}

    def moved(names: list[str]) -> dict[str, torch.nn.Parameter]:
        parameters = {name: torch.nn.Parameter(weights[name].clone()) for name in names}
        for name, parameter in parameters.items():
            parameter.grad = gradients[name].clone()
        bias = torch.nn.Parameter(torch.zeros(2))  # AdamW's share may not be empty.
        MuonAdamW([*parameters.items(), ("bias", bias)], lr=0.1).step()
        return parameters

    together = moved(list(shapes))
    for name in shapes:
        torch.testing.assert_close(together[name], moved([name])[name])


def test_a_saved_optimizer_goes_on_where_it_was() -> None:
    straight = _model()
    optimizer = MuonAdamW(straight.named_parameters(), lr=0.01)
    for step in range(2):
        _backward(straight, step)
        optimizer.step()
    resumed = copy.deepcopy(straight)
    saved = copy.deepcopy(optimizer.state_dict())
    again = MuonAdamW(resumed.named_parameters(), lr=0.01)
    again.load_state_dict(saved)
    for model, one in ((straight, optimizer), (resumed, again)):
        for step in range(2, 4):
            _backward(model, step)
            one.step()
    for left, right in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(left, right)


def test_a_schedule_reaches_both_parts() -> None:
    model = _model()
    optimizer = MuonAdamW(model.named_parameters(), lr=0.01)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    _backward(model, 0)
    optimizer.step()
    for left, right in zip(before, model.parameters(), strict=True):
        assert torch.equal(left, right)
