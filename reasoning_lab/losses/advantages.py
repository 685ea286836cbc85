"""Advantages of an update's rollouts, from their rewards.

Every estimator takes all groups of the update, which may differ in size, and gives each the
advantages of its rollouts in the same order. Groups without a signal, which do not train, belong to
what is taken over the update:

- `grpo`: Shao et al. 2024 (arXiv:2402.03300), section 4.1.2;
- `dr_grpo`: Liu et al. 2025 (arXiv:2503.20783), which leaves out the division that makes nearly
  solved and nearly hopeless prompts count more;
- `rloo`: Ahmadian et al. 2024 (arXiv:2402.14740), equation 6, the mean of the *others* as baseline;
- `reinforce_pp`: Hu 2025 (arXiv:2501.03262), no group: over the whole update, less its mean and
  over its deviation;
- `reinforce_pp_baseline`: the same paper's variant with the group's mean as baseline.

A group whose rewards are all equal gets exactly 0 from all but `reinforce_pp`, whose baseline is
the mean of the whole update: such a group teaches it as much as any other.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Groups = Sequence[Float[Tensor, " N"]]

# Rewards are about 1 in size, so this only keeps groups without any spread from dividing by 0.
_EPSILON = 1e-4


def grpo(groups: Groups) -> list[Tensor]:
    """(reward - mean) / (standard deviation + 1e-4); the population's deviation (over N)."""
    return [_centered(group) / (group.std(correction=0) + _EPSILON) for group in groups]


def dr_grpo(groups: Groups) -> list[Tensor]:
    """Reward - mean."""
    return [_centered(group) for group in groups]


def rloo(groups: Groups) -> list[Tensor]:
    """Reward - mean of the other rollouts; 0 for a group of one."""
    return [_centered(group) * len(group) / max(len(group) - 1, 1) for group in groups]


def reinforce_pp(groups: Groups) -> list[Tensor]:
    """(reward - mean) / (standard deviation + 1e-4), both over all rollouts."""
    return _normalized(groups)


def reinforce_pp_baseline(groups: Groups) -> list[Tensor]:
    """Reward - the group's mean, then as `reinforce_pp`."""
    return _normalized(dr_grpo(groups))


def _centered(group: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    # A mean of equal floats can round, and dividing by the tiny deviation would blow that up.
    if bool((group == group[0]).all()):
        return torch.zeros_like(group)
    return group - group.mean()


def _normalized(groups: Groups) -> list[Tensor]:
    together = torch.cat(list(groups))
    values = _centered(together) / (together.std(correction=0) + _EPSILON)
    return list(values.split([len(group) for group in groups]))


ADVANTAGES: Mapping[str, Callable[[Groups], list[Tensor]]] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "rloo": rloo,
    "reinforce_pp": reinforce_pp,
    "reinforce_pp_baseline": reinforce_pp_baseline,
}
