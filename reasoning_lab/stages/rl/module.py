"""Policy-gradient training with verifiable rewards: GRPO and its variants (paper, step 4).

Each step gets its rollouts with their advantages (`rollouts.py` tells the way of a rollout) and
makes one update of them (`update.py`), whose logits are divided by the temperature that sampled.
"""

import copy
import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, cast

from torch.optim.lr_scheduler import LRScheduler
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.data.trained_prompts import TrainedPrompts
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.stage import Metrics
from reasoning_lab.losses.policy_losses import PolicyLoss
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.models.tokenizer import template_thought
from reasoning_lab.sampling.remote import whole_on_rank0
from reasoning_lab.stages.rl.graders import FrozenPolicy, Teacher
from reasoning_lab.stages.rl.metrics import (
    Health,
    rollout_metrics,
    second_readings,
    time_metrics,
)
from reasoning_lab.stages.rl.partial_rollouts import PartialRollouts
from reasoning_lab.stages.rl.prefetcher import RolloutPrefetcher, RolloutSchedule
from reasoning_lab.stages.rl.prompts import (
    PromptPlan,
    prompt_batches,
    screened_pool,
    warn_of_absent_domains,
)
from reasoning_lab.stages.rl.records import PromptBatch, StepRollouts, TrainingRow
from reasoning_lab.stages.rl.rollouts import RolloutCollector, step_sampling, training_rows
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.stages.rl.update import (
    LOW_ENTROPY,
    TOKEN_REASONS,
    Objective,
    entropy,
    rollout_batches,
    update,
)
from reasoning_lab.stages.rl.weight_noise import WeightNoise
from reasoning_lab.system.ranks import Peers
from reasoning_lab.training.completion_limit import completion_limit
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.loop import PolicyModule, best_metrics, fit, save_trained
from reasoning_lab.training.rollout_sampler import RolloutEngine, rollout_sampler
from reasoning_lab.training.step_plan import in_steps
from reasoning_lab.training.strategies import sampling_model
from reasoning_lab.training.validation import log_validation, validation_problems
from reasoning_lab.types import RolloutGroup, Split

log = logging.getLogger(__name__)

_TABLE_GROUPS, _TABLE_ROLLOUTS = 4, 4


class RLModule(PolicyModule):
    """One update a batch of prompts.

    Args:
        policy, tokenizer: Of the policy that learns.
        collector: Samples, rewards and selects a step's rollouts.
        schedule: Decides when they are sampled, and by which weights.
        plan: The prompts of every step.
        config, context: The stage's; the config's length is in steps, and the mode of its
            `importance` is not auto.
        policy_loss: What `config.policy_loss` builds.
        teacher: Grades each token; None = rewards alone do.

    Attributes:
        rollouts: Rollouts sampled so far.
        ledger: Groups and rollouts of all steps so far; part of the training state.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        collector: RolloutCollector,
        schedule: RolloutSchedule,
        plan: PromptPlan,
        config: RLStage,
        context: StageContext,
        policy_loss: PolicyLoss,
        teacher: Teacher | None,
    ) -> None:
        super().__init__(policy, config.optimization, context.name)
        self.automatic_optimization = False
        self._tokenizer = tokenizer
        self._collector = collector
        self._rollout_schedule, self._plan = schedule, plan
        self._config = config
        self._policy_loss = policy_loss
        self._teacher = teacher
        self._micro_batch_size = context.hardware.micro_batch_size
        self._context = context
        self._peers = Peers()
        self._health = Health()
        needs_reference = config.kl.weight or config.kl.log_every_steps
        self._reference = FrozenPolicy(copy.deepcopy(policy)) if needs_reference else None
        self.rollouts = 0
        self.ledger = Ledger()

    def training_step(self, batch: PromptBatch, index: int) -> None:
        started, sampler = time.monotonic(), self._collector.sampler
        synced_s = sampler.sync_s
        policy_version, learning_rate = self.global_step, self.learning_rate
        sampling = step_sampling(self._config, batch.step)
        step_rollouts = self._rollout_schedule.rollouts(
            self._collector, self._plan, batch.step, policy_version
        )
        curriculum = self._plan.curriculum
        curriculum_metrics = {} if curriculum is None else curriculum.metrics
        self._validated(step_rollouts.validation, batch.step)
        sampled = time.monotonic()
        entropy_nats = entropy(
            self.policy,
            [record.rollout for record in step_rollouts.rollouts],
            self._tokenizer,
            self._micro_batch_size,
            self.device,
            self._peers,
        )
        rows = training_rows(step_rollouts.trained_groups, self._tokenizer, self._config)
        train_tokens = sum(row.example.length for row in rows)
        self.train_tokens += train_tokens
        self.rollouts += len(step_rollouts.rollouts)
        step_rollouts.record(self.ledger)
        metrics: dict[str, float] = {}
        if rows:
            metrics |= self._update(rows, sampling.temperature, batch.step)
            self._count_tokens(sum(len(row.example.completion_ids) for row in rows), metrics)
        cast(LRScheduler, self.lr_schedulers()).step()
        train_s = time.monotonic() - sampled
        metrics |= time_metrics(
            step_rollouts, sampled - started, train_s, self._config.epochs * train_tokens
        )
        metrics["time/sync_weights_s"] = sampler.sync_s - synced_s
        if self.device_use:
            metrics |= self.device_use.metrics(train_s)
        rollouts = rollout_metrics(step_rollouts, entropy_nats, sampling, policy_version)
        for warning in self._health.warnings({**metrics, **rollouts}):
            log.warning("stages.%s: %s.", self._context.name, warning)
        metrics |= {f"rollout/{key}": float(value) for key, value in rollouts.items()}
        metrics |= {f"curriculum/{key}": value for key, value in curriculum_metrics.items()}
        metrics |= self._second_readings(step_rollouts, batch.step)
        self.last_metrics = {"train/learning_rate": learning_rate, **metrics}
        is_logged = batch.step % self._config.optimization.log_every_steps == 0
        if step_rollouts.validation or is_logged:
            self.log_step(metrics, batch.step)
        if self.best_weights is not None and batch.step + 1 == self._config.optimization.steps:
            self._validate_last(batch.step + 1)
        if batch.step % self._config.table_every_steps == 0:
            self._log_table(step_rollouts)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["rollouts"] = {"train_tokens": self.train_tokens, "sampled": self.rollouts}
        checkpoint["schedule"] = self._rollout_schedule.state_dict()
        if self._plan.curriculum is not None:
            # After the schedule's, which waits for sampling that draws prompts.
            checkpoint["curriculum"] = self._plan.curriculum.state_dict()
        checkpoint["ledger"] = self.ledger.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        counts = checkpoint["rollouts"]
        self.train_tokens, self.rollouts = counts["train_tokens"], counts["sampled"]
        self._rollout_schedule.load_state_dict(checkpoint["schedule"])
        if self._plan.curriculum is not None:
            self._plan.curriculum.load_state_dict(checkpoint["curriculum"])
        self.ledger.load_state_dict(checkpoint["ledger"])

    def _update(
        self, rows: Sequence[TrainingRow], temperature: float, step: int
    ) -> dict[str, float]:
        """Train on the step's rollouts; what is logged of it."""
        kl = self._config.kl
        batches = rollout_batches(rows, self._micro_batch_size, self.device, self._peers)
        measures_kl = kl.weight or (kl.log_every_steps and step % kl.log_every_steps == 0)
        reference = self._reference if measures_kl else None
        objective = Objective(
            self.policy,
            batches,
            self._config,
            self._policy_loss,
            temperature,
            self._peers,
            reference,
            self._teacher,
        )
        return update(self, objective)

    def _count_tokens(self, trained: int, metrics: Mapping[str, float]) -> None:
        """Count the update's completion tokens, `trained`, where some may be left out by reason."""
        reasons = [reason for reason in TOKEN_REASONS if f"train/{reason}_frac" in metrics]
        if not reasons:
            return
        self.ledger.take("completion_tokens", trained)
        for reason in reasons:
            count = round(metrics[f"train/{reason}_frac"] * trained)
            self.ledger.drop("completion_tokens", reason, count, selected=reason == LOW_ENTROPY)

    def _second_readings(self, step_rollouts: StepRollouts, step: int) -> dict[str, float]:
        """What a second verifier says of some correct rollouts, at the steps that it reads."""
        config = self._config.second_verifier
        if not config.count or step % config.every_steps:
            return {}
        return second_readings(
            [record.rollout for record in step_rollouts.rollouts],
            config.count,
            self._context.verifier,
            self._collector.thought_prefix,
            f"{self._context.seed}/{step}/second",
            self._peers,
        )

    def _validate_last(self, step: int) -> None:
        """The weights that no step follows are validated as well where the best are looked for."""
        self._rollout_schedule.update(self.global_step)
        self._validated(self._collector.validate(step, self.global_step), step)

    def _validated(self, groups: Sequence[RolloutGroup], step: int) -> None:
        if groups:
            log_validation(self, self._context, groups, step, self._peers)

    def _log_table(self, step_rollouts: StepRollouts) -> None:
        records = [
            record
            for group in step_rollouts.trained_groups[:_TABLE_GROUPS]
            for record in group.compared[:_TABLE_ROLLOUTS]
        ]
        self._context.tracker.log_rollouts(
            "rollout/samples",
            whole_on_rank0([record.rollout for record in records], self._peers),
            {
                "reward": [record.reward or 0.0 for record in records],
                "advantage": [record.advantage for record in records],
                "policy_version": [record.rollout.policy_version for record in records],
                "last_policy_version": [record.rollout.last_policy_version for record in records],
            },
        )


def rollout_schedule(
    policy: PreTrainedModel, config: RLStage, strategy: str, seed: int
) -> RolloutSchedule:
    """What becomes of rollouts that are unfinished at an update: `config.partial_rollouts`."""
    noise = WeightNoise(config.rollout_noise, seed) if config.rollout_noise else None
    in_bfloat16 = config.rollout_dtype == "bfloat16"
    sampling_policy = sampling_model(policy, strategy, config.samples_apart, in_bfloat16)
    if config.partial_rollouts == "continue":
        return PartialRollouts(policy, sampling_policy, noise, config)
    return RolloutPrefetcher(policy, sampling_policy, noise, config.staleness)


def _resolved(config: RLStage, context: StageContext, policy: Policy) -> RLStage:
    """With a number in place of `auto`, and the importance weights that suit its engine."""
    tokens = completion_limit(
        config.max_new_tokens, policy, f"stages.{context.name}.max_new_tokens"
    )
    importance = config.importance.resolved(
        config.rollout_engine != "hf"
        or config.sampling_dtype(context.model) != context.model.dtype
        or config.rollout_noise > 0
    )
    return replace(config, max_new_tokens=tokens, importance=importance)


def _in_steps(config: RLStage, context: StageContext, pool: int) -> RLStage:
    """With its length in steps, of a pool of so many prompts."""
    tokens = config.largest_group_size * config.completion_tokens
    optimization = in_steps(config.optimization, context.name, pool, tokens, "prompts")
    return replace(config, optimization=optimization)


def run(
    config: RLStage, context: StageContext, policy: Policy, teacher: Teacher | None = None
) -> Metrics:
    """Train the policy, on the grades of a teacher too if there is one, and write it."""
    # The schedule advances at steps without a group that trains, also before the first update.
    warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler\.step\(\)`")
    key = f"stages.{context.name}"
    policy_loss = config.policy_loss.build(f"{key}.policy_loss")
    student, tokenizer = context.load_student(policy)
    config = _resolved(config, context, policy)
    problems = context.problems(Split.TRAIN, config.problems)
    warn_of_absent_domains(config.domains, problems, key)
    schedule = rollout_schedule(student, config, context.hardware.strategy, context.seed)
    with (
        rollout_sampler(
            RolloutEngine(
                config.rollout_engine,
                config.sampling_dtype(context.model),
                config.temperature.start,
                key,
            ),
            context,
            student,
            schedule.sampling_policy,
            tokenizer,
        ) as sampler,
        closing(schedule),
    ):
        pool = screened_pool(problems, config, sampler, context)
        config = _in_steps(config, context, len(pool))
        collector = RolloutCollector(
            config,
            context.seed,
            sampler,
            validation_problems(context),
            key,
            template_thought(tokenizer),
        )
        plan = PromptPlan(config, pool, context.seed)
        module = RLModule(
            student, tokenizer, collector, schedule, plan, config, context, policy_loss, teacher
        )
        train_s = fit(module, prompt_batches(plan), context, config.optimization)
    remedy = "choose other levels, a larger group_size, wider filters or signal=reward"
    module.ledger.require_passed("groups", key, remedy)
    context.ledger.merge(module.ledger)
    if plan.curriculum is not None:
        plan.curriculum.record(context.ledger)
    save_trained(module, tokenizer, context)
    TrainedPrompts.of(problems).write(context.out_dir)
    return {
        "train_tokens": module.train_tokens,
        "train_s": train_s,
        "problems": len(problems),
        "pool": len(pool),
        "max_new_tokens": config.max_new_tokens,
        "rollouts": module.rollouts,
        "planned_rows": config.workload().rows,
        **best_metrics(module),
    }
