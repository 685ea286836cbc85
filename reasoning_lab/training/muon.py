"""Muon for hidden matrices, AdamW for the rest, as one optimizer.

Muon (Jordan et al. 2024) replaces a matrix's momentum by the nearest semi-orthogonal matrix,
found by five Newton-Schulz steps; Liu et al. 2025 (arXiv:2502.16982, section 2.2) scale it to
the size of an AdamW update, so both parts share one learning rate. torch.optim.Muon computes
in bfloat16, which a CPU emulates; here it is the parameter's own precision.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import AdamW, Optimizer

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5
# Root mean square of an AdamW update, in units of the learning rate (arXiv:2502.16982).
_ADAMW_RMS = 0.2
_EMBEDDINGS = ("embed", "lm_head")


class MuonAdamW(Optimizer):
    """Muon where a parameter is a hidden matrix, AdamW elsewhere.

    Names of parameters tell embeddings, which AdamW updates, from hidden matrices. `lr` and the
    decoupled `weight_decay`, which takes embeddings and norms too, are of both; `momentum` is
    Muon's, and `betas` are AdamW's.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, Tensor]],
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
        weight_decay: float = 0.0,
    ) -> None:
        matrices: list[Tensor] = []
        rest: list[Tensor] = []
        for name, parameter in named_parameters:
            hidden = parameter.ndim == 2 and not any(part in name for part in _EMBEDDINGS)
            (matrices if hidden else rest).append(parameter)
        shared = {"lr": lr, "weight_decay": weight_decay}
        super().__init__(
            [
                {"params": matrices, "momentum": momentum, **shared},
                {"params": rest, "betas": tuple(betas), **shared},
            ],
            shared,
        )
        # As a group: alone, an empty list is refused, and an adapter has nothing but matrices.
        self._adamw = AdamW(
            [{"params": rest}], lr=lr, betas=(betas[0], betas[1]), weight_decay=weight_decay
        )
        self._link()

    def _link(self) -> None:
        """Let AdamW work on this optimizer's own group and state, so both are saved as one."""
        for key, value in self._adamw.defaults.items():
            self.param_groups[1].setdefault(key, value)
        self._adamw.param_groups = self.param_groups[1:]
        self._adamw.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._link()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        group = self.param_groups[0]
        alike: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                direction = self._direction(parameter, parameter.grad)
                alike[tuple(sorted(parameter.shape))].append((parameter, direction))
        for (_, longer), pairs in alike.items():
            updates = orthogonalized(torch.stack([direction for _, direction in pairs]))
            for (parameter, _), update in zip(pairs, updates, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(
                    update if _wide(parameter) else update.T,
                    alpha=-group["lr"] * _ADAMW_RMS * longer**0.5,
                )
        self._adamw.step()
        return loss

    def _direction(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        """Nesterov's momentum of a matrix, laid so that it is at least as wide as tall."""
        momentum = self.param_groups[0]["momentum"]
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1 - momentum)
        direction = gradient.lerp(state["momentum"], momentum)
        return direction if _wide(parameter) else direction.T


def _wide(matrix: Tensor) -> bool:
    return matrix.shape[0] <= matrix.shape[1]


def orthogonalized(matrices: Float[Tensor, "B M N"]) -> Float[Tensor, "B M N"]:
    """About U V^T of each U S V^T: singular values end between 0.7 and 1.2.

    Matrices of one shape go through together: one by one, such small products keep neither
    the cores nor the vector units busy. Cheapest where M <= N.
    """
    a, b, c = _NEWTON_SCHULZ
    x: Tensor = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = torch.bmm(x, x.mT)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x
