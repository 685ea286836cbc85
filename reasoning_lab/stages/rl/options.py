"""Options of reinforcement learning that have keys of their own. No torch here."""

from dataclasses import dataclass, field, replace
from typing import Any, Self

from reasoning_lab.config.fields import FREE_KEYS, choice, fraction, number


@dataclass
class TemperatureConfig:
    """Temperature annealing (paper, step 4).

    Attributes:
        start: Temperature of the first step's rollouts.
        end: Temperature reached linearly after `anneal_frac` of the steps, then constant.
        anneal_frac: Fraction of the steps that anneal; 0 = `end` from the first step on.
    """

    start: float = number(1.0, least=0.01)
    end: float = number(0.6, least=0.01)
    anneal_frac: float = fraction(0.5)

    def at(self, step: int, steps: int) -> float:
        """Linear from `start` at step 0 to `end` at `anneal_frac * steps`, then constant."""
        anneal_steps = self.anneal_frac * steps
        if step >= anneal_steps:
            return self.end
        return self.start + (self.end - self.start) * step / anneal_steps


@dataclass
class FilterConfig:
    """Which prompts and rollouts train (paper, step 4).

    All but `hard_pass_rate` and `hard_rollouts` look at one group, so they are refused for an
    estimator whose baseline is the whole update's (`advantage=reinforce_pp`).

    Attributes:
        max_length_variation: Drop prompts whose rollout lengths have a larger coefficient of
            variation; null = keep all.
        hard_pass_rate: A prompt is hard if at most this fraction of its sampled rollouts is
            correct.
        hard_rollouts: Additional rollouts of a hard prompt, before anything is dropped; 0 = none.
        max_pass_rate: Drop prompts with a larger fraction of correct rollouts, of those that the
            rewards can judge; 1 = keep all.
        balance: Keep each group's correct rollouts and equally many random incorrect ones, of
            those that the rewards can judge; `all` keeps every rollout, `equal` balances.
    """

    max_length_variation: float | None = number(None, least=0.0)
    hard_pass_rate: float = fraction(0.25)
    hard_rollouts: int = number(0, least=0)
    max_pass_rate: float = fraction(1.0)
    balance: str = choice("all", "equal")


@dataclass
class DomainConfig:
    """What is otherwise for the prompts of one domain, such as one source of a mixture.

    Attributes:
        group_size: In place of the stage's `group_size`; null = the stage's.
        rewards: In place of the stage's `rewards`; empty = the stage's.
    """

    group_size: int | None = number(None, least=2)
    rewards: dict[str, Any] = field(default_factory=dict, metadata=FREE_KEYS)


@dataclass
class CurriculumConfig:
    """Which prompts of the pool a step draws, by their recent pass rates.

    Attributes:
        draw: `epochs` = every prompt once before any comes again, without a look at rates;
            `learnability` = a prompt is as likely as p (1 - p), p being its pass rate; `uniform` =
            all prompts that do not rest are as likely. See `reasoning_lab.stages.rl.curriculum`.
        half_life_steps: Steps after which a rollout counts half in its prompt's pass rate.
        prior_rollouts: Rollouts, half of them correct, that stand in every pass rate for what is
            not known.
        rest_steps: Steps for which a prompt is not drawn that is always solved or always failed;
            0 = none rests.
        rest_rollouts: How many of a prompt's last rollouts must agree for that.
    """

    draw: str = choice("epochs", "learnability", "uniform")
    half_life_steps: float = number(50.0, least=0.01)
    prior_rollouts: float = number(2.0, least=0.001)
    rest_steps: int = number(0, least=0)
    rest_rollouts: int = number(16, least=1)


@dataclass
class KLConfig:
    """Divergence from the reference, which is the policy that came in.

    Attributes:
        weight: Weight of the divergence in each token's loss; 0 = it is not in the loss.
        estimator: k3, k2 or k1; see `reasoning_lab.losses.policy_gradient`.
        log_every_steps: How often the divergence is measured where its weight is 0; 0 = never, and
            no reference is kept in memory.
    """

    weight: float = number(0.0, least=0.0)
    estimator: str = choice("k3", "k2", "k1")
    log_every_steps: int = number(10, least=0, placement=True)


@dataclass
class SecondVerifierConfig:
    """A second verifier reads a sample of the rollouts that are correct by the first.

    It changes no reward. Disagreement is where reward hacking shows first; see
    `reasoning_lab.verify.second_verifier`.

    Attributes:
        count: Rollouts that it reads; 0 = it reads none.
        every_steps: How often.
    """

    count: int = number(16, least=0, placement=True)
    every_steps: int = number(10, least=1, placement=True)


@dataclass
class ImportanceConfig:
    """Importance weights between the trainer's policy and the one that the engine sampled from.

    Attributes:
        mode: truncate = weights outside the band are cut to its bounds; mask = tokens outside it
            do not train; none = no weights, and the engine's logprobs are the behavior policy's;
            auto = truncate where vLLM samples, or a copy of the policy in bfloat16 or with
            `rollout_noise`, else none.
        level: token, or sequence = one weight for all tokens of a rollout, the product of theirs.
        low: Lower bound of the band; 0 = none. What lies outside is measured in any mode.
        high: Upper bound.
    """

    mode: str = choice("auto", "truncate", "mask", "none")
    level: str = choice("token", "sequence")
    low: float = fraction(0.0)
    high: float = number(2.0, least=1.0)

    def resolved(self, sampled_elsewhere: bool) -> Self:
        """With a mode that is not `auto`; whether other arithmetic than the trainer's sampled."""
        if self.mode != "auto":
            return self
        return replace(self, mode="truncate" if sampled_elsewhere else "none")


@dataclass
class EntropyConfig:
    """What the entropy of a token's distribution does, at the temperature that samples.

    Attributes:
        bonus: Weight in the loss of minus the mean entropy, in nats, of the tokens that train.
        top_frac: Fraction of an update's tokens, those with the highest entropy, whose policy loss
            trains; the others still count in `aggregation`. 1 = all. Less costs a forward pass.
    """

    bonus: float = number(0.0, least=0.0)
    top_frac: float = number(1.0, least=0.001, most=1.0)
