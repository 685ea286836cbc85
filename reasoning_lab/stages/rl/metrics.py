"""What a step of reinforcement learning logs of its rollouts, and warnings from it in words."""

import random
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence

from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.sampling.remote import is_here
from reasoning_lab.stages.rl.records import DropReason, RewardedRollout, StepRollouts
from reasoning_lab.system.ranks import Peers
from reasoning_lab.types import Rollout, Verdict
from reasoning_lab.verify import Verifier
from reasoning_lab.verify.second_verifier import read_again

_WINDOW_STEPS = 10
_COLLAPSED_ENTROPY_FRAC = 0.25
_RUNAWAY_LENGTH_RATIO = 2.0
_HIGH_TRUNCATED_FRAC = 0.5
# Nats a token: over a thousand tokens the two policies share little.
_HIGH_MISMATCH_KL = 0.01
_LOW_SAMPLE_FRAC = 0.5


def rollout_metrics(
    step_rollouts: StepRollouts, entropy: float, sampling: Sampling, policy_version: int
) -> dict[str, float]:
    """Metrics of all rollouts that a step sampled, logged under `rollout/`.

    Where they are of several domains, each has its mean reward and its fraction of correct ones.

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
    fresh = step_rollouts.fresh_rollouts
    oldest = min(record.rollout.policy_version for record in fresh)
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
        "groups_stale": dropped_groups[DropReason.STALE],
        "groups_trained": len(step_rollouts.trained_groups),
        "policy_version": oldest,
        "staleness": policy_version - oldest,
        **age_metrics([record.rollout for record in fresh], policy_version),
        **_domain_metrics(records),
    }


def age_metrics(rollouts: Sequence[Rollout], policy_version: int) -> dict[str, float]:
    """How many updates the policy has seen since the tokens of some rollouts were sampled.

    `interrupted_frac` is the fraction of rollouts with tokens of several versions.

    Args:
        rollouts: One at least.
        policy_version: Updates that the policy has seen.
    """
    tokens = Counter[int]()
    for rollout in rollouts:
        versions = rollout.token_versions
        tokens.update(versions or {rollout.policy_version: len(rollout.completion.token_ids)})
    ages = {policy_version - version: count for version, count in tokens.items() if count}
    total = sum(ages.values())
    mean = sum(age * count for age, count in ages.items()) / max(total, 1)
    interrupted = sum(len(set(rollout.token_versions)) > 1 for rollout in rollouts)
    return {
        "age_mean": mean,
        "age_max": max(ages, default=0),
        "interrupted_frac": interrupted / len(rollouts),
    }


def _domain_metrics(records: Sequence[RewardedRollout]) -> dict[str, float]:
    domains = sorted({record.rollout.problem.domain for record in records})
    metrics = {}
    for domain in domains if len(domains) > 1 else ():
        of_domain = [one for one in records if one.rollout.problem.domain == domain]
        correct = sum(record.rollout.correct for record in of_domain)
        metrics[f"{domain}/reward_mean"] = _reward_means(of_domain)["reward_mean"]
        metrics[f"{domain}/correct_frac"] = correct / len(of_domain)
    return metrics


def _reward_means(records: Sequence[RewardedRollout]) -> dict[str, float]:
    """Means over the rollouts that every term judged; a step without any has a mean of 0.

    A term of one domain alone has the mean of its rollouts.
    """
    rewards = [record.reward for record in records if record.reward is not None]
    terms: dict[str, list[float]] = {}
    for record in records:
        for name, value in record.reward_terms.items() if record.reward is not None else ():
            terms.setdefault(name, []).append(value)
    return {
        "reward_mean": sum(rewards) / max(len(rewards), 1),
        **{f"reward/{name}_mean": sum(values) / len(values) for name, values in terms.items()},
    }


def second_readings(
    rollouts: Sequence[Rollout],
    count: int,
    verifier: Verifier,
    thought_prefix: str,
    seed: str,
    peers: Peers,
) -> dict[str, float]:
    """What a second verifier says of `count` random correct rollouts, logged under `rollout/`.

    Each rank reads those that it drew, and every rank calls it.
    `second_verifier_disagreement` is the fraction that it calls otherwise, of those that it can
    read; there is none where it can read none.
    """
    correct = [rollout for rollout in rollouts if rollout.correct]
    sample = random.Random(seed).sample(correct, min(count, len(correct)))
    readings = peers.all_gather(read_again(list(filter(is_here, sample)), verifier, thought_prefix))
    read = sum(reading.read for reading in readings)
    metrics = {"rollout/second_verifier_read": float(read)}
    if read:
        disagreed = sum(reading.disagreed for reading in readings)
        metrics["rollout/second_verifier_disagreement"] = disagreed / read
    return metrics


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
                `groups_trained`; of a step that trained, those of `mismatch_metrics` under
                `mismatch/` too.
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
        if text := self._mismatch():
            warnings["mismatch"] = text
        return warnings

    def _mismatch(self) -> str:
        """What to say of the engine and the trainer in the last steps that trained; may be ""."""
        steps = [metrics for metrics in self._last if "mismatch/kl" in metrics]
        if not steps:
            return ""
        names = ("kl", "effective_sample_frac", "outside_frac")
        kl, counts, outside = (self._mean(steps, f"mismatch/{name}") for name in names)
        if kl <= _HIGH_MISMATCH_KL and counts >= _LOW_SAMPLE_FRAC:
            return ""
        return (
            f"the policy that samples is far from the one that trains: {kl:.3f} nats a token, "
            f"{counts:.0%} of the importance weights count, {outside:.0%} lie outside their band; "
            "set importance.mode=mask, sample in the trainer's precision, lower the learning rate "
            "or staleness"
        )

    @staticmethod
    def _mean(steps: Collection[Mapping[str, float]], key: str) -> float:
        return sum(metrics[key] for metrics in steps) / len(steps)
