"""Norms and rotations in fewer passes: their derivatives, and transformers' own results."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from transformers import PreTrainedModel

from reasoning_lab.kernels.binding import bind_kernels, reference_kernels
from reasoning_lab.kernels.fused_ops import RMSNorm, Rotation, bind_fused_ops, unbind_fused_ops
from reasoning_lab.models.policy import build_policy, load_policy
from reasoning_lab.training.context import StageContext
from tests.support.tiny import tiny_model

# Autograd functions have no types.
norm: Any = RMSNorm.apply
rotate: Any = Rotation.apply
OURS = {"RMSNormBackward", "RotationBackward"}


def drawn(*shape: int, learns: bool = True) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=learns)


def test_derivatives_are_those_of_differences() -> None:
    torch.manual_seed(0)
    assert gradcheck(lambda states, weight: norm(states, weight, 1e-2), (drawn(2, 3, 4), drawn(4)))
    # Of halves that are turned differently, too, as no model's are.
    angles = drawn(2, 1, 5, 4, learns=False), drawn(2, 1, 5, 4, learns=False)
    assert gradcheck(rotate, (drawn(2, 3, 5, 4), *angles))


def test_heads_in_bfloat16_turn_in_float32() -> None:
    """As beside autocast, whose angles are float32."""
    torch.manual_seed(0)
    heads, (cos, sin) = torch.randn(2, 3, 5, 4).bfloat16(), torch.randn(2, 2, 1, 5, 4)
    half, whole = heads.clone().requires_grad_(), heads.float().requires_grad_()
    rotated, expected = rotate(half, cos, sin), rotate(whole, cos, sin)
    assert rotated.dtype == torch.float32
    assert torch.equal(rotated, expected)
    rotated.square().sum().backward()
    expected.square().sum().backward()
    assert half.grad is not None
    assert whole.grad is not None
    assert torch.equal(half.grad, whole.grad.bfloat16())


def loss_and_graph(model: PreTrainedModel) -> tuple[Tensor, set[str]]:
    """Of two rows, and what its graph is made of."""
    tokens = torch.arange(3, 23).reshape(2, 10)
    loss = model(input_ids=tokens, labels=tokens).loss
    seen, pending = set(), [loss.grad_fn]
    while pending:
        node = pending.pop()
        if node is not None and node not in seen:
            seen.add(node)
            pending += [follower for follower, _ in node.next_functions]
    return loss, {node.name() for node in seen}


def gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    loss, _ = loss_and_graph(model)
    model.zero_grad()
    loss.backward()
    return {"loss": loss.detach()} | {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize(
    ("family", "options", "taken"),
    [
        ("llama", {"max_position_embeddings": 64}, OURS),
        ("mistral", {}, OURS),
        ("qwen2", {}, OURS),
        ("qwen3", {"head_dim": 16}, OURS),
        ("phi3", {}, OURS),
        ("phi3", {"partial_rotary_factor": 0.5}, {"RMSNormBackward"}),
    ],
)
def test_a_family_computes_what_transformers_alone_does(
    family: str, options: dict[str, Any], taken: set[str]
) -> None:
    model = tiny_model(family, 40, 0, 1, seed=0, **options)
    assert not loss_and_graph(model)[1] & OURS
    expected = gradients(model)
    bind_fused_ops(model)
    assert loss_and_graph(model)[1] & OURS == taken
    fused = gradients(model)
    assert fused.keys() == expected.keys()
    for name, values in expected.items():
        assert torch.allclose(fused[name], values, rtol=1e-4, atol=2e-6), name
    unbind_fused_ops(model)
    assert not loss_and_graph(model)[1] & OURS


def test_another_family_is_left_as_it_is() -> None:
    model = tiny_model("gemma", 40, 0, 1, seed=0, head_dim=16)
    bind_fused_ops(model)
    assert not loss_and_graph(model)[1] & OURS
    assert not any("forward" in vars(module) for module in model.modules())


def test_one_model_alone_is_changed() -> None:
    """Not a second one of its class, built before it or after; a copy of it has them too."""
    before = tiny_model("llama", 40, 0, 1, seed=0)
    model = tiny_model("llama", 40, 0, 1, seed=0)
    bind_kernels(model)
    after = tiny_model("llama", 40, 0, 1, seed=0)
    assert loss_and_graph(model)[1] & OURS == OURS
    for other in (before, after):
        assert not loss_and_graph(other)[1] & OURS
    copied = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.data.zero_()
    loss, graph = loss_and_graph(copied)
    assert graph & OURS == OURS
    # It computes with weights of its own.
    torch.testing.assert_close(loss, loss_and_graph(before)[0])
    with reference_kernels(copied):
        assert not loss_and_graph(copied)[1] & OURS
    assert loss_and_graph(copied)[1] & OURS == OURS


@pytest.mark.parametrize(("dtype", "taken"), [("float32", OURS), ("bfloat16", set())])
@pytest.mark.parametrize("kernels", ["fused", "reference"])
def test_a_policy_takes_them_in_float32(
    dtype: str, taken: set[str], kernels: str, context: StageContext
) -> None:
    loaded, tokenizer = load_policy(context.inputs["policy"].path, dtype, kernels=kernels)
    built = build_policy(context.model.architecture, tokenizer, dtype, 0, kernels)
    for model in (loaded, built):
        operations = loss_and_graph(model)[1] & OURS
        assert operations == (taken if kernels == "fused" else set())
