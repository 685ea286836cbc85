"""The `rl` stage: policy-gradient training with verifiable rewards (paper, step 4)."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from reasoning_lab.config.components import require_package
from reasoning_lab.config.fields import AUTO, at_least, choice, fraction, number
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.problems import CountProblems, ProblemDraw, ProblemsConfig
from reasoning_lab.config.validation import ValidationConfig
from reasoning_lab.graph.stage import Workload
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.rewards.weighted import WeightedRewards
from reasoning_lab.training.stage import TrainingStage
from reasoning_lab.types import Sequences, Split, UserError

# Rows sorted by length and cut into such micro-batches hold little padding.
MICRO_BATCH_ROWS = 32
# Estimators whose baseline is the mean of the update, not of the group.
_GLOBAL_BASELINE = ("reinforce_pp",)


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


def _correctness() -> dict[str, Any]:
    return {"correctness": {"_target_": "reasoning_lab.rewards.correctness", "weight": 1.0}}


@dataclass
class RLStage(TrainingStage):
    """Policy-gradient training with verifiable rewards: GRPO and its variants.

    Attributes:
        problems: The pool, drawn from the training split.
        screen_group_size: Rollouts a problem before the first step, to keep only prompts that
            pass `filter` and, for `signal=correctness`, are not solved or failed every time; 0 =
            no screening. There is none for `reinforce_pp`, which learns from such prompts too.
        group_size: Rollouts a prompt and step; `optimization.batch_size` counts prompts.
        max_new_tokens: Token limit at which a rollout is truncated; `auto` = see
            `reasoning_lab.training.completion_limit`.
        rollout_engine: Engine that samples the rollouts: hf, or vllm, which gets the policy's
            weights before each step. vLLM runs in the process of a single trainer, else in a
            server that rank 0 starts, or in those of `hardware.sampling.rollout_urls`.
        staleness: Updates that the policy has seen and its rollouts have not; 1 = a copy of the
            policy samples them while the step before trains.
        temperature: Sampling temperature; it divides the logits of the loss too.
        filter: Which prompts and rollouts train.
        dynamic_sampling_rounds: Most times that a step samples further prompts of the pool in
            place of dropped ones (DAPO); 0 = never.
        signal: What must differ within a group, or within the whole update for `reinforce_pp`, for
            it to train: `correctness` = some rollouts are correct and some are not, so that a
            group that is wrong throughout does not learn to be short; `reward` = rewards differ.
        rewards: By name, `_target_`, `weight` and options; see `reasoning_lab.rewards.weighted`.
        overlong: `mask` = a truncated rollout is in its group's baseline and does not train; `keep`
            = it trains like the others.
        advantage: How rewards become advantages; see `reasoning_lab.losses.advantages`.
        aggregation: Weight of a token in the loss: token, sequence or constant; see
            `reasoning_lab.losses.policy_gradient.token_weights`.
        clip_low: Lower clip of the probability ratio.
        clip_high: Upper clip.
        kl: Divergence from the reference.
        epochs: Optimizer steps over the same rollouts.
        importance_cap: Largest importance weight between the trainer's and the engine's logprobs;
            null = no correction, the engine's are taken as the old policy's.
        table_every_steps: How often a table of rollouts is logged.
    """

    name = "rl"
    implementation = "reasoning_lab.stages.rl.module.run"
    consumes = (Policy,)
    produces = Policy
    reads = ("model", "data")
    version = 3
    samples_rollouts = True

    problems: ProblemsConfig = field(default_factory=ProblemsConfig)
    screen_group_size: int = number(0, least=0)
    group_size: int = at_least(2)
    max_new_tokens: int | str = at_least(1, AUTO)
    rollout_engine: str = choice("hf", "vllm")
    staleness: int = number(0, least=0, most=1)
    temperature: TemperatureConfig = field(default_factory=TemperatureConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    dynamic_sampling_rounds: int = number(0, least=0)
    signal: str = choice("correctness", "reward")
    rewards: dict[str, Any] = field(default_factory=_correctness)
    overlong: str = choice("keep", "mask")
    advantage: str = choice("grpo", "dr_grpo", "rloo", "reinforce_pp", "reinforce_pp_baseline")
    aggregation: str = choice("token", "sequence", "constant")
    clip_low: float = fraction(0.2)
    clip_high: float = number(0.2, least=0.0)
    kl: KLConfig = field(default_factory=KLConfig)
    epochs: int = number(1, least=1)
    importance_cap: float | None = number(None, least=1.0)
    # Identity also where nothing is validated, as it was before the other stages had it.
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    table_every_steps: int = number(20, least=1, placement=True)

    def check(self, key: str, hardware: HardwareConfig) -> None:
        """Refuse impossible rewards, filters and engines; any micro-batch size is possible."""
        self.check_optimizer(key, hardware)
        self.problems.check(f"{key}.problems")
        self.check_validation(key)
        if self.weights != "last" and self.staleness:
            raise UserError(
                f"{key}.weights={self.weights}: with staleness={self.staleness} a copy is "
                f"validated that is an update behind; set {key}.staleness=0, or {key}.weights=last"
            )
        # What `auto` is gets known later; then the rewards are checked again.
        tokens = self.max_new_tokens if isinstance(self.max_new_tokens, int) else sys.maxsize
        WeightedRewards(self.rewards, tokens, f"{key}.rewards")
        if not self.has_group_baseline:
            self._check_group_filters(key)
        if self.rollout_engine == "vllm":
            _check_vllm(f"{key}.rollout_engine", hardware)

    @property
    def has_group_baseline(self) -> bool:
        """Whether a rollout is compared with its group; False = with the whole update."""
        return self.advantage not in _GLOBAL_BASELINE

    @property
    def completion_tokens(self) -> int:
        """Most tokens of a rollout, once `auto` is a number.

        Raises:
            ValueError: It is none yet.
        """
        if isinstance(self.max_new_tokens, str):
            raise ValueError(f"how many tokens are {self.max_new_tokens}? ask completion_limit")
        return self.max_new_tokens

    def _check_group_filters(self, key: str) -> None:
        defaults = FilterConfig()
        for name in ("max_length_variation", "max_pass_rate", "balance"):
            value = getattr(self.filter, name)
            if value != getattr(defaults, name):
                raise UserError(
                    f"{key}.filter.{name}={value}: it filters within a group, and {self.advantage} "
                    f"compares with the whole update; leave it out, or change {key}.advantage"
                )

    def problem_draws(self, key: str) -> list[ProblemDraw]:
        levels, weights = self.problems.levels, self.problems.level_weights
        count = self.problems.known_count
        draw = ProblemDraw(f"{key}.problems", Split.TRAIN, levels, count, level_weights=weights)
        return [draw, *super().problem_draws(key)]

    @property
    def validation_levels(self) -> Sequence[int] | None:
        return self.validation.levels or self.problems.levels

    @property
    def validation_max_new_tokens(self) -> int | None:
        own = None if isinstance(self.max_new_tokens, str) else self.max_new_tokens
        return self.validation.max_new_tokens or own

    @property
    def validation_level_weights(self) -> Mapping[int, float]:
        return {} if self.validation.levels else self.problems.level_weights

    def with_counts(self, key: str, count: CountProblems) -> Self:
        return replace(self, problems=self.problems.with_counts(f"{key}.problems", count))

    def frozen_copies(self) -> int:
        return int(bool(self.kl.weight or self.kl.log_every_steps)) + self.staleness

    def workload(self) -> Workload:
        """As if no prompt were dropped or replaced, and every rollout trained."""
        steps, validation = self.optimization.planned_steps, self.validation
        pool = self.problems.known_count
        if steps is None or pool is None:
            return Workload()
        prompts = steps * self.optimization.batch_size
        validated = -(-steps // validation.every_steps) * validation.count * validation.samples
        screened = pool * self.screen_group_size if self.has_group_baseline else 0
        rows = prompts * self.group_size + screened + validated
        hard = prompts * self.filter.hard_rollouts
        trained = (prompts * self.group_size + hard) * self.epochs
        of_step = self.optimization.batch_size * (self.group_size + self.filter.hard_rollouts)
        if isinstance(self.max_new_tokens, str):
            return Workload(rows=rows, engine=self.rollout_engine)
        in_memory = max(screened, of_step + validation.count * validation.samples)
        return Workload(
            rows=rows,
            trained=Sequences(trained, self.max_new_tokens, MICRO_BATCH_ROWS),
            written=Sequences(rows + hard, self.max_new_tokens, rows_in_memory=in_memory),
            engine=self.rollout_engine,
        )

    def epoch_rows(self, input_rows: Mapping[str, int | None]) -> int | None:
        """Screening may leave fewer prompts."""
        return self.problems.known_count

    def row_tokens_at_most(self) -> int | None:
        """Of a group whose rollouts are all as long as they may be."""
        tokens = self.max_new_tokens
        return None if isinstance(tokens, str) else self.group_size * tokens


def _check_vllm(key: str, hardware: HardwareConfig) -> None:
    """Refuse options of vLLM that do not fit where it runs: in this process or in servers."""
    limits = hardware.sampling
    served = hardware.strategy != "single" or bool(limits.rollout_urls)
    if served and limits.sleep:
        raise UserError(
            "hardware.sampling.sleep: only vLLM in the trainer's own process gives its memory "
            f"back; leave it out, or use {key}=vllm with hardware.strategy=single"
        )
    for url in limits.rollout_urls:
        if not re.fullmatch(r"https?://[^/]+(/v1)?/?", url):
            raise UserError(
                f"hardware.sampling.rollout_urls: '{url}' is not a server's address; give one like "
                "http://10.0.0.2:8000"
            )
    if limits.rollout_urls:
        return
    otherwise = "name vLLM servers elsewhere by hardware.sampling.rollout_urls, or choose hf"
    require_package("vllm", key, "vllm", f", {otherwise}")
    if not served and max(limits.tensor_parallel_size, limits.data_parallel_size) > 1:
        raise UserError(
            f"{key}=vllm shares its process and its device with the trainer; set "
            "hardware.sampling.tensor_parallel_size and data_parallel_size to 1"
        )
