"""Advantages of an update's rollouts, from their rewards.

Every estimator takes the rewards of all groups of the update, one `[G]` float tensor a group, whose
sizes may differ. It returns the advantages in the same shapes and order. Groups without a signal
are included, as they are part of what the global estimators average.

A group whose rewards are all equal gets exactly 0 from every estimator but `reinforce_pp`, whose
baseline is the mean of the whole update: such a group teaches it as much as any other.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Groups = Sequence[Float[Tensor, " G"]]

# Rewards are about 1 in size, so this only keeps groups without any spread from dividing by 0.
_EPSILON = 1e-4


def grpo(groups: Groups) -> list[Tensor]:
    """(reward - mean) / (std + 1e-4), both of the group; std over G, not G - 1.

    GRPO, Shao et al. 2024 (arXiv:2402.03300), section 4.1.2.
    """
    return [_subtract_mean(rewards) / (rewards.std(correction=0) + _EPSILON) for rewards in groups]


def dr_grpo(groups: Groups) -> list[Tensor]:
    """Reward - mean of the group.

    Dr. GRPO, Liu et al. 2025 (arXiv:2503.20783), section 3.2: without the division by std, which
    makes nearly solved and nearly hopeless prompts count more.
    """
    return [_subtract_mean(rewards) for rewards in groups]


def rloo(groups: Groups) -> list[Tensor]:
    """Reward - mean of the *other* rollouts of the group; 0 for a group of one.

    REINFORCE leave-one-out, Ahmadian et al. 2024 (arXiv:2402.14740), equation 6. It equals
    (reward - mean of the group) * G / (G - 1).
    """
    return [_subtract_mean(rewards) * len(rewards) / max(len(rewards) - 1, 1) for rewards in groups]


def reinforce_pp(groups: Groups) -> list[Tensor]:
    """(reward - mean) / (std + 1e-4), both over all rollouts of the update.

    REINFORCE++, Hu 2025 (arXiv:2501.03262), without a group baseline.
    """
    return _standardize_update(groups)


def reinforce_pp_baseline(groups: Groups) -> list[Tensor]:
    """Reward - mean of the group, then standardized over the update as in `reinforce_pp`.

    REINFORCE++-baseline, Hu 2025 (arXiv:2501.03262).
    """
    return _standardize_update(dr_grpo(groups))


def _subtract_mean(values: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    # The mean of equal floats can round, and dividing by the tiny std would blow that up.
    if bool((values == values[0]).all()):
        return torch.zeros_like(values)
    return values - values.mean()


def _standardize_update(groups: Groups) -> list[Tensor]:
    values = torch.cat(list(groups))
    standardized = _subtract_mean(values) / (values.std(correction=0) + _EPSILON)
    return list(standardized.split([len(group) for group in groups]))


ADVANTAGES: Mapping[str, Callable[[Groups], list[Tensor]]] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "rloo": rloo,
    "reinforce_pp": reinforce_pp,
    "reinforce_pp_baseline": reinforce_pp_baseline,
}
