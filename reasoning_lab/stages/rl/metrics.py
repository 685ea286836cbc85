"""What a step of reinforcement learning logs of its rollouts, and warnings from it in words."""

from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence

from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.stages.rl.records import DropReason, RewardedRollout, StepRollouts
from reasoning_lab.types import Rollout, Verdict

_WINDOW_STEPS = 10
_COLLAPSED_ENTROPY_FRAC = 0.25
_RUNAWAY_LENGTH_RATIO = 2.0
_HIGH_TRUNCATED_FRAC = 0.5


def rollout_metrics(
    step_rollouts: StepRollouts, entropy: float, sampling: Sampling, policy_version: int
) -> dict[str, float]:
    """Metrics of all rollouts that a step sampled, logged under `rollout/`.

    Args:
        step_rollouts: At least one rollout.
        entropy: Of the policy at temperature 1, in nats a token.
        sampling: How the step sampled.
        policy_version: Updates that the policy has seen.
    """
    records = step_rollouts.rollouts
    rollouts = [record.rollout for record in records]
    verdicts = Counter(rollout.verdict for rollout in rollouts)
    lengths = [len(rollout.completion.token_ids) for rollout in rollouts]
    dropped, dropped_groups = step_rollouts.dropped_rollouts, step_rollouts.dropped_groups
    return {
        **_reward_means(records),
        **{f"{verdict}_frac": verdicts[verdict] / len(rollouts) for verdict in Verdict},
        "entropy": entropy,
        "completion_tokens_mean": sum(lengths) / len(lengths),
        "completion_tokens_max": max(lengths),
        "truncated_frac": _truncated_frac(rollouts),
        "temperature": sampling.temperature,
        "rollouts": len(rollouts),
        "unjudged": dropped[DropReason.UNJUDGED],
        "balanced_away": dropped[DropReason.BALANCED_AWAY],
        "cut_off": dropped[DropReason.CUT_OFF],
        "hard_prompts": sum(group.oversampled for group in step_rollouts.groups),
        "groups_without_signal": dropped_groups[DropReason.NO_SIGNAL],
        "groups_too_easy": dropped_groups[DropReason.EASY],
        "groups_uneven": dropped_groups[DropReason.UNEVEN],
        "groups_unjudged": dropped_groups[DropReason.UNJUDGED],
        "groups_cut_off": dropped_groups[DropReason.CUT_OFF],
        "groups_trained": len(step_rollouts.trained_groups),
        "policy_version": rollouts[0].policy_version,
        "staleness": policy_version - rollouts[0].policy_version,
    }


def _reward_means(records: Sequence[RewardedRollout]) -> dict[str, float]:
    """Means over the rollouts that every term judged; a step without any has a mean of 0."""
    rewards = [record.reward for record in records if record.reward is not None]
    terms = [record.reward_terms for record in records if record.reward is not None]
    names = terms[0] if terms else ()
    return {
        "reward_mean": sum(rewards) / max(len(rewards), 1),
        **{f"reward/{name}_mean": sum(term[name] for term in terms) / len(terms) for name in names},
    }


def time_metrics(
    step_rollouts: StepRollouts, generate_s: float, train_s: float, train_tokens: int
) -> dict[str, float]:
    """Seconds and throughput of a step's two halves, logged under `time/`."""
    sampled = [record.rollout for record in step_rollouts.rollouts]
    sampled += [rollout for group in step_rollouts.validation for rollout in group.rollouts]
    sampled_tokens = sum(len(rollout.completion.token_ids) for rollout in sampled)
    return {
        "time/generate_s": generate_s,
        "time/train_s": train_s,
        "time/generate_frac": generate_s / (generate_s + train_s),
        "time/generate_tokens_per_s": sampled_tokens / generate_s,
        "time/train_tokens_per_s": train_tokens / train_s,
    }


def _truncated_frac(rollouts: Sequence[Rollout]) -> float:
    return sum(rollout.completion.truncated for rollout in rollouts) / len(rollouts)


class Health:
    """Compares the last ten steps with this attempt's first ten; each warning is given once."""

    def __init__(self) -> None:
        self._first: list[Mapping[str, float]] = []
        self._last: deque[Mapping[str, float]] = deque(maxlen=_WINDOW_STEPS)
        self._warned: set[str] = set()

    def warnings(self, metrics: Mapping[str, float]) -> list[str]:
        """New warnings after a step.

        Args:
            metrics: `entropy` (at temperature 1 in every step, so that annealing the sampling
                temperature does not lower it), `completion_tokens_mean`, `truncated_frac` and
                `groups_trained`.
        """
        if len(self._first) < _WINDOW_STEPS:
            self._first.append(metrics)
        self._last.append(metrics)
        if len(self._last) < _WINDOW_STEPS:
            return []
        current = self._current_warnings()
        new = [text for name, text in current.items() if name not in self._warned]
        self._warned |= current.keys()
        return new

    def _current_warnings(self) -> dict[str, str]:
        warnings = {}
        before, now = self._mean(self._first, "entropy"), self._mean(self._last, "entropy")
        if now < _COLLAPSED_ENTROPY_FRAC * before:
            warnings["entropy"] = (
                f"entropy collapses: {now:.3f} nats a token, {before:.3f} in the first steps; "
                "raise temperature.end or clip_high, or lower the learning rate"
            )
        before = self._mean(self._first, "completion_tokens_mean")
        now = self._mean(self._last, "completion_tokens_mean")
        truncated = self._mean(self._last, "truncated_frac")
        if now > _RUNAWAY_LENGTH_RATIO * before or truncated > _HIGH_TRUNCATED_FRAC:
            warnings["length"] = (
                f"completions run away: {now:.0f} tokens, {before:.0f} in the first steps, "
                f"{truncated:.0%} cut off; add a length reward, overlong=mask, or max_new_tokens"
            )
        if not self._mean(self._last, "groups_trained"):
            warnings["signal"] = (
                f"no group of the last {_WINDOW_STEPS} steps had anything to learn from; choose "
                "prompts that are solved now and then, a larger group_size, or more "
                "dynamic_sampling_rounds"
            )
        return warnings

    @staticmethod
    def _mean(steps: Collection[Mapping[str, float]], key: str) -> float:
        return sum(metrics[key] for metrics in steps) / len(steps)
