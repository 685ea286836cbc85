"""The stages `rl`, step 4 of the paper, and `opd`, whose rollouts a teacher grades too."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from reasoning_lab.config.fields import AUTO, FREE_KEYS_WHEN_SET, at_least, choice, number
from reasoning_lab.config.frozen_policy import FrozenPolicyConfig
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.config.policy_loss import PolicyLossConfig
from reasoning_lab.config.problems import CountProblems, DrawWeights, ProblemDraw, ProblemsConfig
from reasoning_lab.config.rollout_engine import check_vllm
from reasoning_lab.config.validation import ValidationConfig
from reasoning_lab.graph.stage import Workload
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.rewards.weighted import WeightedRewards
from reasoning_lab.stages.rl.options import (
    CurriculumConfig,
    DomainConfig,
    EntropyConfig,
    FilterConfig,
    ImportanceConfig,
    KLConfig,
    SecondVerifierConfig,
    TemperatureConfig,
)
from reasoning_lab.training.stage import TrainingStage
from reasoning_lab.types import Problem, Sequences, UserError

# Rows sorted by length and cut into such micro-batches hold little padding.
MICRO_BATCH_ROWS = 32
# Estimators whose baseline is the mean of the update, not of the group.
_GLOBAL_BASELINE = ("reinforce_pp",)
# Estimators that divide by the standard deviation of the update.
_STANDARDIZE_UPDATE = ("reinforce_pp", "reinforce_pp_baseline")


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
            weights before each step. vLLM runs in the process of a single trainer, else beside
            each rank in a process of its own, or in the servers of
            `hardware.sampling.rollout_urls`.
        staleness: Most steps that the policy has trained since a rollout began; 1 = a copy of the
            policy samples rollouts while the step before trains. More lets sampling run further
            ahead. What is older is dropped.
        partial_rollouts: What becomes of rollouts that are unfinished at an update: `finish` =
            whole steps are sampled by the weights `staleness` steps earlier; `continue` = they go
            on under the new weights, so that no update waits for the longest.
        rollout_noise: Relative standard deviation of Gaussian noise on the weights that sample,
            drawn anew for each update: an engine that is not the trainer, on purpose, to try what
            a policy loss bears. 0 = none.
        rollout_dtype: Precision of the policy that samples: auto = the policy's, bfloat16 where it
            trains in mixed precision; bfloat16 = that, whatever trains.
        temperature: Sampling temperature; it divides the logits of the loss too.
        filter: Which prompts and rollouts train.
        curriculum: Which prompts of the pool a step draws.
        dynamic_sampling_rounds: Most times that a step samples further prompts of the pool in
            place of dropped ones (DAPO); 0 = never.
        signal: What must differ within a group, or within the whole update for `reinforce_pp`, for
            it to train: `correctness` = some rollouts are correct and some are not, so that a
            group that is wrong throughout does not learn to be short; `reward` = rewards differ.
        rewards: By name, `_target_`, `weight` and options; see `reasoning_lab.rewards.weighted`.
        domains: By the domain of the prompts, `group_size` and `rewards` in place of the stage's.
        overlong: `mask` = a truncated rollout is in its group's baseline and does not train; `keep`
            = it trains like the others.
        advantage: How rewards become advantages; see `reasoning_lab.losses.advantages`.
        standardize_over: What the mean and the standard deviation of `reinforce_pp`, and the
            standard deviation of `reinforce_pp_baseline`, are of: the whole `update`, or the
            rollouts of one `domain` in it.
        aggregation: Weight of a token in the loss: token, sequence or constant; see
            `reasoning_lab.losses.policy_gradient.token_weights`.
        policy_loss: One of the group `policy_loss`.
        entropy: A bonus for entropy, and which tokens train by theirs.
        kl: Divergence from the reference.
        epochs: Optimizer steps over the same rollouts.
        importance: Importance weights between the trainer's policy and the engine's.
        second_verifier: What a second verifier reads of the rollouts.
        table_every_steps: How often a table of rollouts is logged.
    """

    name = "rl"
    implementation = "reasoning_lab.stages.rl.module.run"
    consumes = (Policy,)
    produces = Policy
    reads = ("model", "data")
    version = 4
    samples_rollouts = True

    problems: ProblemsConfig = field(default_factory=ProblemsConfig)
    screen_group_size: int = number(0, least=0)
    group_size: int = at_least(2)
    max_new_tokens: int | str = at_least(1, AUTO)
    rollout_engine: str = choice("hf", "vllm")
    staleness: int = number(0, least=0)
    partial_rollouts: str = choice("finish", "continue", when_set=True)
    rollout_noise: float = number(0.0, least=0.0, when_set=True)
    rollout_dtype: str = choice("auto", "bfloat16", when_set=True)
    temperature: TemperatureConfig = field(default_factory=TemperatureConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    curriculum: CurriculumConfig = field(
        default_factory=CurriculumConfig, metadata={"when_set": True}
    )
    dynamic_sampling_rounds: int = number(0, least=0)
    signal: str = choice("correctness", "reward")
    rewards: dict[str, Any] = field(default_factory=_correctness)
    domains: dict[str, DomainConfig] = field(default_factory=dict, metadata=FREE_KEYS_WHEN_SET)
    overlong: str = choice("keep", "mask")
    advantage: str = choice("grpo", "dr_grpo", "rloo", "reinforce_pp", "reinforce_pp_baseline")
    standardize_over: str = choice("update", "domain", when_set=True)
    aggregation: str = choice("token", "sequence", "constant")
    # Of the general class, as OmegaConf lets the class of an option take its place only so.
    policy_loss: PolicyLossConfig = field(
        default_factory=lambda: PolicyLossConfig("reasoning_lab.losses.policy_losses.clip")
    )
    entropy: EntropyConfig = field(default_factory=EntropyConfig)
    kl: KLConfig = field(default_factory=KLConfig)
    epochs: int = number(1, least=1)
    importance: ImportanceConfig = field(default_factory=ImportanceConfig)
    # Identity also where nothing is validated, as it was before the other stages had it.
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    second_verifier: SecondVerifierConfig = field(default_factory=SecondVerifierConfig)
    table_every_steps: int = number(20, least=1, placement=True)

    def check(self, key: str, hardware: HardwareConfig) -> None:
        """Refuse impossible rewards, filters and engines; any micro-batch size is possible."""
        self.check_optimizer(key, hardware)
        self.problems.check(f"{key}.problems")
        self.check_validation(key)
        self.policy_loss.check(f"{key}.policy_loss")
        if self.weights != "last" and self.staleness:
            raise UserError(
                f"{key}.weights={self.weights}: with staleness={self.staleness} a copy is "
                f"validated that is an update behind; set {key}.staleness=0, or {key}.weights=last"
            )
        self._check_partial_rollouts(key)
        self._check_curriculum(key)
        # What `auto` is gets known later; then the rewards are checked again.
        tokens = self.max_new_tokens if isinstance(self.max_new_tokens, int) else sys.maxsize
        WeightedRewards(self.rewards, tokens, f"{key}.rewards")
        self._check_domains(key, tokens)
        if not self.has_group_baseline:
            self._check_group_filters(key)
        if self.standardize_over != "update" and self.advantage not in _STANDARDIZE_UPDATE:
            raise UserError(
                f"{key}.standardize_over={self.standardize_over}: advantage={self.advantage} "
                f"compares within a group alone; set {key}.advantage to "
                f"{' or '.join(_STANDARDIZE_UPDATE)}, or leave it out"
            )
        if self.rollout_engine == "vllm":
            check_vllm(f"{key}.rollout_engine", hardware)

    @property
    def has_group_baseline(self) -> bool:
        """Whether a rollout is compared with its group; False = with the whole update."""
        return self.advantage not in _GLOBAL_BASELINE

    def group_size_of(self, problem: Problem) -> int:
        """Rollouts of a problem in a step, before any that hard prompts get more."""
        domain = self.domains.get(problem.domain)
        return (domain and domain.group_size) or self.group_size

    @property
    def largest_group_size(self) -> int:
        """Of all domains."""
        group_sizes = [domain.group_size or 0 for domain in self.domains.values()]
        return max([self.group_size, *group_sizes])

    @property
    def batches_ahead(self) -> int:
        """How many batches are sampled, in whole or in part, beside the one that trains."""
        if self.partial_rollouts == "continue":
            return self.staleness // 2 + 1
        return self.staleness

    @property
    def samples_apart(self) -> bool:
        """Whether a copy samples whose weights are not those that train."""
        return self.staleness > 0 or self.rollout_noise > 0

    def sampling_dtype(self, model: ModelConfig) -> str:
        return model.sampling_dtype if self.rollout_dtype == "auto" else self.rollout_dtype

    @property
    def completion_tokens(self) -> int:
        """Most tokens of a rollout, once `auto` is a number.

        Raises:
            ValueError: It is none yet.
        """
        if isinstance(self.max_new_tokens, str):
            raise ValueError(f"how many tokens are {self.max_new_tokens}? ask completion_limit")
        return self.max_new_tokens

    def _check_partial_rollouts(self, key: str) -> None:
        if self.partial_rollouts != "continue":
            return
        if self.staleness < 2:
            raise UserError(
                f"{key}.partial_rollouts=continue: a rollout that goes on over an update is at "
                f"least two steps old when it trains; set {key}.staleness to 2 or more"
            )
        for name, value in (
            ("dynamic_sampling_rounds", self.dynamic_sampling_rounds),
            ("filter.hard_rollouts", self.filter.hard_rollouts),
        ):
            if value:
                raise UserError(
                    f"{key}.{name}={value}: with partial_rollouts=continue a step samples no "
                    f"further rollouts; leave it out, or set {key}.partial_rollouts=finish"
                )

    def _check_domains(self, key: str, tokens: int) -> None:
        for name, domain in self.domains.items():
            if domain.rewards:
                WeightedRewards(domain.rewards, tokens, f"{key}.domains.{name}.rewards")
            elif domain.group_size is None:
                raise UserError(
                    f"{key}.domains.{name}: nothing is otherwise there; set group_size or rewards"
                )
        has_rewards = any(domain.rewards for domain in self.domains.values())
        compares_domains = self.standardize_over == "update" and (
            self.advantage in _STANDARDIZE_UPDATE
        )
        if has_rewards and compares_domains:
            raise UserError(
                f"{key}.domains: {self.advantage} would compare rewards of different kinds; set "
                f"{key}.standardize_over=domain"
            )

    def _check_curriculum(self, key: str) -> None:
        draw, rest_steps = self.curriculum.draw, self.curriculum.rest_steps
        if draw == "epochs" and self.curriculum != CurriculumConfig():
            raise UserError(
                f"{key}.curriculum: draw=epochs looks at no pass rates, and the other keys are "
                f"about these; set {key}.curriculum.draw to learnability or uniform"
            )
        if draw != "epochs" and self.optimization.overfit_batches:
            raise UserError(
                f"{key}.curriculum.draw={draw}: with overfit_batches the same batches come again; "
                "leave one of the two out"
            )
        if rest_steps and not self.has_group_baseline:
            raise UserError(
                f"{key}.curriculum.rest_steps={rest_steps}: {self.advantage} learns from prompts "
                f"that are always solved or failed; leave it out, or change {key}.advantage"
            )

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
        return [self.problems.draw(f"{key}.problems"), *super().problem_draws(key)]

    @property
    def validation_levels(self) -> Sequence[int] | None:
        return self.validation.levels or self.problems.levels

    @property
    def validation_max_new_tokens(self) -> int | None:
        own = None if isinstance(self.max_new_tokens, str) else self.max_new_tokens
        return self.validation.max_new_tokens or own

    @property
    def validation_weights(self) -> DrawWeights:
        weights = self.problems.weights
        return replace(weights, levels={}) if self.validation.levels else weights

    def with_counts(self, key: str, count: CountProblems) -> Self:
        return replace(self, problems=self.problems.with_counts(f"{key}.problems", count))

    def frozen_copies(self) -> int:
        """The reference."""
        return int(bool(self.kl.weight or self.kl.log_every_steps))

    def sampling_copies(self) -> int:
        """What samples, if apart, and weights with which it is still to sample."""
        waits = self.staleness > 1 and self.partial_rollouts == "finish"
        return int(self.samples_apart) + (self.staleness if waits else 0)

    def workload(self) -> Workload:
        """As if no prompt were dropped or replaced, and every rollout trained."""
        steps, validation = self.optimization.planned_steps, self.validation
        pool = self.problems.known_count
        if steps is None or pool is None:
            return Workload()
        prompts = steps * self.optimization.batch_size
        validated = -(-steps // validation.every_steps) * validation.count * validation.samples
        screened = pool * self.screen_group_size if self.has_group_baseline else 0
        group_size = self.largest_group_size
        rows = prompts * group_size + screened + validated
        hard = prompts * self.filter.hard_rollouts
        trained = (prompts * group_size + hard) * self.epochs
        of_step = self.optimization.batch_size * (group_size + self.filter.hard_rollouts)
        if isinstance(self.max_new_tokens, str):
            return Workload(rows=rows, engine=self.rollout_engine)
        sampled = (1 + self.batches_ahead) * of_step
        in_memory = max(screened, sampled + validation.count * validation.samples)
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
        return None if isinstance(tokens, str) else self.largest_group_size * tokens


@dataclass
class OPDStage(RLStage):
    """On-policy distillation: a teacher grades every token that the policy samples.

    A token's advantage is how much likelier the teacher finds it than the policy does. What is said
    of rewards, signals and advantages concerns what `reward_weight` adds to that.

    Attributes:
        teacher: Grades the tokens at the temperature that sampled; its tokenizer is the policy's.
        reward_weight: Of the advantage that rewards give each token of a rollout, beside the
            teacher's; 0 = rewards are only logged.
        group_size: Rollouts a prompt and step; `optimization.batch_size` counts prompts.
        signal: What must differ within a group for it to train: `none` = nothing, as the teacher
            grades each rollout by itself; otherwise as in `rl`.
    """

    name = "opd"
    implementation = "reasoning_lab.stages.rl.distillation.run"
    version = 1

    teacher: FrozenPolicyConfig = field(default_factory=FrozenPolicyConfig)
    reward_weight: float = number(0.0, least=0.0)
    group_size: int = at_least(1)
    signal: str = choice("none", "correctness", "reward")

    def check(self, key: str, hardware: HardwareConfig) -> None:
        """Refuse a teacher that names no policy, and what `rl` refuses."""
        super().check(key, hardware)
        self.teacher.check(f"{key}.teacher")

    def frozen_policies(self) -> Mapping[str, FrozenPolicyConfig]:
        return {"teacher": self.teacher}

    def workload(self) -> Workload:
        """The teacher reads once what trains, however many epochs do."""
        workload = super().workload()
        if workload.trained is None:
            return workload
        rows = workload.trained.rows // self.epochs
        return replace(workload, graded=replace(workload.trained, rows=rows))
