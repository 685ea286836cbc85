"""Advantages of single tokens, from a teacher that grades what the policy sampled.

The loss of on-policy distillation is the reverse KL divergence, KL(policy, teacher), over texts
that the policy samples: Agarwal et al. 2023 (GKD, arXiv:2306.13649), Gu et al. 2023 (MiniLLM,
arXiv:2306.08543). Its policy gradient with a discount of 0 takes a token's own log ratio as the
reward of that token alone (Lu et al. 2025, "On-Policy Distillation"). What later tokens cost does
not reach it, which MiniLLM counts in. One token estimates the divergence at its place; GKD and the
Qwen3 report (arXiv:2505.09388, section 4.5) take the whole vocabulary there.
"""

from jaxtyping import Float
from torch import Tensor


def teacher_advantages(
    policy_logprobs: Float[Tensor, " K"], teacher_logprobs: Float[Tensor, " K"]
) -> Float[Tensor, " K"]:
    """Minus the log ratio of policy and teacher at each token, `[K]`, without gradient.

    Args:
        policy_logprobs: Of the policy before the update, at the temperature that sampled.
        teacher_logprobs: Of the teacher, at the same temperature.
    """
    return (teacher_logprobs - policy_logprobs).detach()
