"""Next-token loss: the objective of pretraining, mid-training and SFT."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def next_token_loss(logits: Float[Tensor, "N V"], targets: Int[Tensor, " N"]) -> Float[Tensor, ""]:
    """Mean of -log p(target) over the N trained tokens; every token weighs the same.

    With no trained token in the batch the loss is 0 and still differentiable.
    """
    total = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    return total / max(targets.numel(), 1)
