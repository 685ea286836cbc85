"""Which panel of a dashboard draws which metric; without W&B, so that tests of stages read it.

A metric is in a panel, or in `WITHOUT_PANEL` with the reason. `is_placed` says so of any key.
"""

import re
from collections.abc import Mapping, Sequence

# Panel title to the metrics that the panel draws.
LOSSES: Mapping[str, Sequence[str]] = {
    "loss": ("train/loss",),
    "validation loss": ("val/loss",),
    "learning rate": ("train/learning_rate",),
    "gradient norm": ("train/gradient_norm",),
}
PREFERENCES: Mapping[str, Sequence[str]] = {
    "reward margin": ("train/margin",),
    "preference accuracy": ("train/accuracy",),
    "logprobs": ("train/chosen_logprobs", "train/rejected_logprobs"),
    "implicit rewards": ("train/chosen_reward", "train/rejected_reward"),
    "terms of the loss": ("train/dpo_loss", "train/sft_loss"),
    "beta": ("train/beta",),
    "length bias": ("train/length_bias",),
    "tokens by which the chosen is longer": ("train/chosen_longer_tokens",),
}
RL_HEALTH: Mapping[str, Sequence[str]] = {
    "reward": ("rollout/reward_mean",),
    "accuracy on validation problems": ("val/pass@1",),
    "verdicts": tuple(
        f"rollout/{verdict}_frac" for verdict in ("correct", "wrong", "unparseable", "timeout")
    ),
    "correct ones that a second verifier calls otherwise": (
        "rollout/second_verifier_disagreement",
    ),
    "entropy at temperature 1, nats a token": ("rollout/entropy",),
    "entropy of the tokens that train": ("train/entropy",),
    "divergence from the reference": ("train/kl_to_reference",),
    "divergence from the teacher": ("train/kl_to_teacher",),
    "tokens that the teacher raises": ("train/positive_advantage_frac",),
    "clipped": ("train/clip_low_frac", "train/clip_high_frac"),
    "tokens that do not train": ("train/outside_band_frac", "train/low_entropy_frac"),
    "engine against trainer": ("mismatch/kl", "mismatch/chi_square"),
    "engine against trainer, logprobs": (
        "mismatch/logprob_difference_mean",
        "mismatch/logprob_difference_max",
    ),
    "importance weights that count": ("mismatch/effective_sample_frac", "mismatch/outside_frac"),
    "age of tokens, updates": ("rollout/age_mean", "rollout/age_max", "rollout/staleness"),
    "rollouts of several policy versions": ("rollout/interrupted_frac",),
    "tokens of a completion": ("rollout/completion_tokens_mean", "rollout/completion_tokens_max"),
    "cut off": ("rollout/truncated_frac", "val/truncated_frac"),
    "prompts that train": ("rollout/groups_trained", "rollout/groups_without_signal"),
    "dropped by a filter": ("rollout/groups_too_easy", "rollout/groups_uneven"),
    "groups that cannot train": (
        "rollout/groups_unjudged",
        "rollout/groups_cut_off",
        "rollout/groups_stale",
    ),
    "rollouts left out": ("rollout/unjudged", "rollout/balanced_away", "rollout/cut_off"),
    "rollouts of a step": ("rollout/rollouts",),
    "prompts sampled more often, as they are hard": ("rollout/hard_prompts",),
    "temperature": ("rollout/temperature",),
    "prompts as likely as each other": ("curriculum/effective_prompts",),
    "pass rate of the drawn prompts, before": ("curriculum/pass_rate_mean",),
    "prompts that were never drawn": ("curriculum/never_drawn_frac",),
    "prompts that rest": ("curriculum/resting_solved", "curriculum/resting_failed"),
    "draws of resting prompts": ("curriculum/recalled",),
}
COST: Mapping[str, Sequence[str]] = {
    "seconds a step": ("time/step_s",),
    "sampling and training": ("time/generate_s", "time/train_s"),
    "giving the engine the weights": ("time/sync_weights_s",),
    "tokens a second": ("time/generate_tokens_per_s", "time/train_tokens_per_s"),
    "tokens a step": ("train/tokens",),
    "share of the device's peak": ("device/mfu",),
    "most memory, bytes": ("device/peak_memory_bytes",),
}
# Panel title to a regular expression of the whole metric: a part of its name is the user's.
BY_PART: Mapping[str, str] = {
    "reward, by term": r"^rollout/reward/.+_mean$",
    "reward, by domain": r"^rollout/[^/]+/reward_mean$",
    "correct, by domain": r"^rollout/[^/]+/correct_frac$",
    "accuracy on validation problems, by domain": r"^val/[^/]+/pass@1$",
}
# These have a value a stage, counted outside of any training.
LEDGER: Mapping[str, str] = {
    "in and out, by unit": r"^ledger/",
    "dropped, by unit and reason": r"^dropped/",
    "solutions of the teacher, by verdict": r"^distill/(verdict|judged)/",
    "solutions of the teacher": r"^distill/(rollouts|cut_off)$",
    "solutions of the teacher, accepted fraction": r"^distill/accepted_frac$",
    "solutions of the teacher a second": r"^distill/rollouts_per_s$",
    "preferences": r"^prefer/",
    "curated": r"^curate/",
}
# Regular expressions of the other metrics, each with the reason.
WITHOUT_PANEL: Mapping[str, str] = {
    r"^eval/": "the ladder has pass@1, the tables of completions and the report have the rest",
    r"^ladder/": "the ladder's panels are made of the benchmarks",
    r"^(trainer/global_step|epoch)$": "the axis, and Lightning's own counter",
    r"^time/generate_frac$": "the seconds of both halves are drawn",
    r"^rollout/policy_version$": "it is the step, less the staleness that is drawn",
    r"^rollout/second_verifier_read$": "how many were read; of them, what is drawn",
    r"^rollout/(screened|pool)": "the ledger's `problems` has these counts",
}
METRICS = frozenset(
    metric
    for group in (LOSSES, PREFERENCES, RL_HEALTH, COST)
    for metrics in group.values()
    for metric in metrics
)
_PATTERNS = tuple(map(re.compile, (*BY_PART.values(), *LEDGER.values(), *WITHOUT_PANEL)))


def is_placed(metric: str) -> bool:
    """Whether a panel draws the metric, or `WITHOUT_PANEL` says why none does."""
    return metric in METRICS or any(pattern.search(metric) for pattern in _PATTERNS)
