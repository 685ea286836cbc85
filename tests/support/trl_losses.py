"""TRL's own loss code on tensors of ours: its trainers' methods, called without a trainer.

Its import takes seconds, so that collecting the tests leaves it to the first call.
"""

from collections import defaultdict
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor


def padded_rollouts(seed: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Policy, behavior and reference logprobs, advantages, mask of six rollouts of 1 to 8 tokens.

    `[6, 8]`, as TRL has them, and `[6]` advantages.
    """
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(8) < torch.tensor([8, 3, 1, 6, 5, 2])[:, None]
    old = -3 * torch.rand(6, 8, generator=generator)
    policy, reference = (
        (old + 0.4 * torch.randn(6, 8, generator=generator)).clamp(max=-0.01) for _ in range(2)
    )
    return policy, old, reference, torch.randn(6, generator=generator), mask


def of_tokens(of_rollouts: Tensor, mask: Tensor) -> Tensor:
    """`[K]`, each token's is its rollout's."""
    return of_rollouts[:, None].expand(mask.shape)[mask]


def _accelerator() -> SimpleNamespace:
    def same(value: Tensor, **_: Any) -> Tensor:
        return value

    return SimpleNamespace(
        device="cpu",
        gather=same,
        gather_for_metrics=same,
        reduce=same,
        pad_across_processes=same,
        num_processes=1,
        sync_gradients=True,
    )


def trl_dpo(
    kind: str,
    logprobs: Tensor,
    reference: Tensor,
    completion_mask: Tensor,
    beta: float,
) -> tuple[Tensor, dict[str, float]]:
    """TRL's loss and metrics for a batch of pairs.

    Args:
        kind: TRL's loss_type.
        logprobs: `[2 B, T - 1]` of each next token, 0 where it carries no loss; chosen first.
        reference: `[2 B]`, summed.
        completion_mask: `[2 B, T]`.
        beta: TRL's beta.
    """
    from trl import DPOTrainer

    shape = logprobs.shape
    outputs = SimpleNamespace(
        log_probs=logprobs,
        entropy=torch.zeros(shape),
        mean_logits=torch.zeros(shape),
        is_top1=torch.zeros(shape, dtype=torch.bool),
        log_sum_sq_probs=torch.zeros(shape),
    )
    trainer = SimpleNamespace(
        accelerator=_accelerator(),
        model=SimpleNamespace(training=True),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[kind],
        loss_weights=[1.0],
        beta=beta,
        label_smoothing=0.0,
        use_weighting=False,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    chosen, rejected = reference.chunk(2)
    inputs = {
        "input_ids": torch.zeros(completion_mask.shape, dtype=torch.long),
        "attention_mask": torch.ones(completion_mask.shape, dtype=torch.long),
        "completion_mask": completion_mask.long(),
        "ref_chosen_logps": chosen,
        "ref_rejected_logps": rejected,
    }
    compute_loss: Any = DPOTrainer._compute_loss  # TRL's own method has no types.
    loss = compute_loss(trainer, lambda **_: outputs, inputs, False)
    return loss, {key: values[-1] for key, values in trainer._metrics["train"].items()}


def trl_grpo(
    kind: str,
    logprobs: Tensor,
    old: Tensor,
    advantages: Tensor,
    completion_mask: Tensor,
    clip: tuple[float, float],
    max_new_tokens: int,
    kl_weight: float = 0.0,
    reference: Tensor | None = None,
    correction: Tensor | None = None,
    *,
    level: str = "token",
    temperatures: tuple[float, float] = (1.0, 1.05),
    entropies: Tensor | None = None,
    top_entropy_frac: float = 1.0,
    entropy_bonus: float = 0.0,
) -> tuple[Tensor, dict[str, float]]:
    """TRL's loss and metrics for a batch of rollouts; all but `advantages`, `[B]`, are `[B, T]`.

    Args:
        kind: TRL's loss_type.
        clip: TRL's epsilon and epsilon_high.
        correction: Importance weights, or `[B, 1]` of whole rollouts.
        level: Of the ratio: token or sequence.
        temperatures: Of SAPO's positive and other advantages.
        entropies: Of each token; None = 0.
    """
    from trl import GRPOTrainer

    def per_token(*_: Any, **__: Any) -> tuple[Tensor, Tensor, None]:
        return logprobs, torch.zeros(logprobs.shape) if entropies is None else entropies, None

    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=per_token,
        accelerator=_accelerator(),
        model=SimpleNamespace(training=True),
        args=SimpleNamespace(
            use_bias_correction_kl=False,
            delta=None,
            steps_per_generation=1,
            sapo_temperature_pos=temperatures[0],
            sapo_temperature_neg=temperatures[1],
        ),
        aux_loss_enabled=False,
        top_entropy_quantile=top_entropy_frac,
        off_policy_mask_threshold=None,
        importance_sampling_level=level,
        beta=kl_weight,
        loss_type=kind,
        epsilon_low=clip[0],
        epsilon_high=clip[1],
        use_vllm=correction is not None,
        vllm_importance_sampling_correction=True,
        current_gradient_accumulation_steps=1,
        max_completion_length=max_new_tokens,
        _entropy_bonus_enabled=entropy_bonus > 0,
        entropy_coef=entropy_bonus,
        use_adaptive_entropy=False,
        _metrics={"train": defaultdict(list)},
    )
    mask = completion_mask.to(logprobs.dtype)
    inputs = {
        "prompt_ids": torch.zeros(len(mask), 1),
        "prompt_mask": torch.ones(len(mask), 1),
        "completion_ids": torch.zeros(mask.shape),
        "completion_mask": mask,
        "advantages": advantages,
        "old_per_token_logps": old,
        "ref_per_token_logps": reference,
        "importance_sampling_ratio": correction,
        "num_items_in_batch": mask.sum(),
    }
    high_entropy_mask: Any = GRPOTrainer.get_high_entropy_mask
    trainer.get_high_entropy_mask = partial(high_entropy_mask, trainer)
    compute_loss: Any = GRPOTrainer._compute_loss
    loss = compute_loss(trainer, None, inputs)
    return loss, {key: values[-1] for key, values in trainer._metrics["train"].items()}


def trl_opd(
    logits: Tensor,
    tokens: Tensor,
    completion_mask: Tensor,
    teacher: Tensor,
    rollout: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """TRL's loss of on-policy distillation, without the weights by place that it can add.

    Args:
        logits: `[B, T, V]`, that predict each completion token.
        tokens, completion_mask: `[B, T]`.
        teacher: `[B, T]` logprobs of the tokens.
        rollout: `[B, T]`, the policy's when it sampled; None = it is that one.
        temperature: Divides the logits.
    """
    from trl.experimental.iw_opd import IWOPDTrainer

    trainer = SimpleNamespace(
        temperature=temperature,
        iw_opd_gamma=0.0,
        iw_opd_epsilon=1e-8,
        model=SimpleNamespace(training=True),
        _metrics={"train": defaultdict(list)},
    )
    labels = tokens.masked_fill(~completion_mask, -100)
    compute_loss: Any = IWOPDTrainer._compute_iw_opd_loss
    loss: Tensor = compute_loss(trainer, logits, tokens, labels, teacher, rollout)
    return loss
