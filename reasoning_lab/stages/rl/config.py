"""Schema of the `rl` stage."""

from dataclasses import dataclass, field

from reasoning_lab.schema import (
    HardwareConfig,
    ProblemsConfig,
    TrainingConfig,
    at_least,
    choice,
    fraction,
    number,
    register_stage,
)


@dataclass
class TemperatureConfig:
    """Temperature annealing (paper, step 4).

    Attributes:
        start: Of the first step's rollouts.
        end: Reached linearly after `anneal_frac` of the steps, then kept.
        anneal_frac: Fraction of the steps; 0 = `end` from the first step on.
    """

    start: float = number(1.0, least=0.01)
    end: float = number(0.6, least=0.01)
    anneal_frac: float = fraction(0.5)


@dataclass
class FilterConfig:
    """Which prompts and rollouts train (paper, step 4).

    Attributes:
        max_length_variation: Drop prompts whose rollout lengths have a larger coefficient of
            variation; null = keep all.
        max_pass_rate: Drop prompts with a larger fraction of correct rollouts; 1 = keep all.
        balance: Keep each group's correct rollouts and equally many random incorrect ones;
            `all` keeps every rollout, `equal` balances.
    """

    max_length_variation: float | None = number(None, least=0.0)
    max_pass_rate: float = fraction(1.0)
    balance: str = choice("all", "equal")


@dataclass
class RLConfig(TrainingConfig):
    """GRPO with a verifiable reward.

    Attributes:
        problems: The pool, drawn from the training split.
        screen_group_size: Rollouts a problem before the first step, to keep only prompts that
            pass `filter` and are not solved or failed every time; 0 = no screening.
        group_size: Rollouts a prompt and step; `optimization.batch_size` counts prompts.
        max_new_tokens: Where a rollout is cut off.
        temperature: Of the rollouts, and of the logits in the loss.
        filter: Which prompts and rollouts train.
        advantage: grpo (reward minus group mean, over the group's standard deviation) or
            dr_grpo (without the division).
        clip_low: Lower clip of the probability ratio.
        clip_high: Upper clip.
        table_every_steps: How often a table of rollouts is logged.
    """

    problems: ProblemsConfig = field(default_factory=ProblemsConfig)
    screen_group_size: int = number(0, least=0)
    group_size: int = at_least(2)
    max_new_tokens: int = at_least(1)
    temperature: TemperatureConfig = field(default_factory=TemperatureConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    advantage: str = choice("grpo", "dr_grpo")
    clip_low: float = fraction(0.2)
    clip_high: float = number(0.2, least=0.0)
    table_every_steps: int = number(20, least=1, placement=True)

    def check(self, key: str, hardware: HardwareConfig) -> None:
        """Micro-batches hold rollouts, whose number differs from step to step: any size will do."""

    def rows(self) -> int | None:
        stepped = self.optimization.steps * self.optimization.batch_size * self.group_size
        return stepped + self.problems.count * self.screen_group_size


register_stage("rl", RLConfig)
