"""Policy-gradient training with verifiable rewards: GRPO and its variants (paper, step 4).

Each step gets its rollouts with their advantages (`rollouts.py` tells the way of a rollout) and
makes one update of them (`update.py`), whose logits are divided by the temperature that sampled.
"""

import logging
import time
import warnings
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, cast

from torch.optim.lr_scheduler import LRScheduler
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.data.corpus import write_prompt_ids
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.stage import Metrics
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.models.tokenizer import template_thought
from reasoning_lab.stages.rl.engines import rollout_sampler
from reasoning_lab.stages.rl.metrics import (
    Health,
    rollout_metrics,
    time_metrics,
)
from reasoning_lab.stages.rl.prefetcher import RolloutPrefetcher
from reasoning_lab.stages.rl.prompts import prompt_batches, screened_pool
from reasoning_lab.stages.rl.records import PromptBatch, StepRollouts
from reasoning_lab.stages.rl.rollouts import RolloutCollector, step_sampling
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.stages.rl.update import (
    Reference,
    RolloutBatch,
    entropy,
    rank_batches,
    rollout_batches,
    update,
)
from reasoning_lab.system.ranks import Peers
from reasoning_lab.training.completion_limit import completion_limit
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.loop import PolicyModule, best_metrics, fit, save_trained
from reasoning_lab.training.step_plan import in_steps
from reasoning_lab.training.validation import log_validation, validation_problems
from reasoning_lab.types import RolloutGroup, Split

log = logging.getLogger(__name__)

_TABLE_GROUPS, _TABLE_ROLLOUTS = 4, 4


class RLModule(PolicyModule):
    """One update a batch of prompts.

    Args:
        policy, tokenizer: Of the policy that learns.
        collector: Samples, rewards and selects a step's rollouts.
        prefetcher: Decides when they are sampled, and by which weights.
        config, context: The stage's; the config's length is in steps.

    Attributes:
        rollouts: Rollouts sampled so far.
        ledger: Groups and rollouts of all steps so far; part of the training state.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        collector: RolloutCollector,
        prefetcher: RolloutPrefetcher,
        config: RLStage,
        context: StageContext,
    ) -> None:
        super().__init__(policy, config.optimization, context.name)
        self.automatic_optimization = False
        self._tokenizer = tokenizer
        self._collector = collector
        self._prefetcher = prefetcher
        self._config = config
        self._micro_batch_size = context.hardware.micro_batch_size
        self._context = context
        self._peers = Peers()
        self._health = Health()
        needs_reference = config.kl.weight or config.kl.log_every_steps
        self._reference = Reference(policy) if needs_reference else None
        self.rollouts = 0
        self.ledger = Ledger()

    def training_step(self, batch: PromptBatch, index: int) -> None:
        started = time.monotonic()
        policy_version, learning_rate = self.global_step, self.learning_rate
        sampling = step_sampling(self._config, batch.step)
        step_rollouts = self._prefetcher.rollouts(self._collector, batch, policy_version)
        self._validated(step_rollouts.validation, batch.step)
        sampled = time.monotonic()
        entropy_nats = entropy(
            self.policy,
            [record.rollout for record in step_rollouts.rollouts],
            self._tokenizer,
            self._micro_batch_size,
            self.device,
        )
        step_batches = rollout_batches(
            step_rollouts.trained_groups,
            self._tokenizer,
            self._config,
            self._micro_batch_size,
            self.device,
        )
        train_tokens = sum(len(part.tokens.input_ids) for part in step_batches)
        self.train_tokens += train_tokens
        self.rollouts += len(step_rollouts.rollouts)
        step_rollouts.record(self.ledger)
        metrics: dict[str, float] = {}
        if step_batches:
            metrics |= self._update(step_batches, sampling.temperature, batch.step)
        cast(LRScheduler, self.lr_schedulers()).step()
        train_s = time.monotonic() - sampled
        metrics |= time_metrics(
            step_rollouts, sampled - started, train_s, self._config.epochs * train_tokens
        )
        if self.device_use:
            metrics |= self.device_use.metrics(train_s)
        rollouts = rollout_metrics(step_rollouts, entropy_nats, sampling, policy_version)
        for warning in self._health.warnings(rollouts):
            log.warning("stages.%s: %s.", self._context.name, warning)
        metrics |= {f"rollout/{key}": float(value) for key, value in rollouts.items()}
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
        checkpoint["prefetcher"] = self._prefetcher.state_dict()
        checkpoint["ledger"] = self.ledger.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        counts = checkpoint["rollouts"]
        self.train_tokens, self.rollouts = counts["train_tokens"], counts["sampled"]
        self._prefetcher.load_state_dict(checkpoint["prefetcher"])
        self.ledger.load_state_dict(checkpoint["ledger"])

    def _update(
        self, step_batches: list[RolloutBatch], temperature: float, step: int
    ) -> dict[str, float]:
        """Train on the step's rollouts; what is logged under `train/`."""
        kl, batches = self._config.kl, rank_batches(step_batches)
        measures_kl = kl.weight or (kl.log_every_steps and step % kl.log_every_steps == 0)
        reference = self._reference if measures_kl else None
        values = update(self, batches, self._config, temperature, self._peers, reference)
        return {f"train/{key}": float(value) for key, value in values.items()}

    def _validate_last(self, step: int) -> None:
        """The weights that no step follows are validated as well where the best are looked for."""
        self._prefetcher.update()
        self._validated(self._collector.validate(step, self.global_step), step)

    def _validated(self, groups: Sequence[RolloutGroup], step: int) -> None:
        if groups:
            log_validation(self, self._context, groups, step)

    def _log_table(self, step_rollouts: StepRollouts) -> None:
        records = [
            record
            for group in step_rollouts.trained_groups[:_TABLE_GROUPS]
            for record in group.compared[:_TABLE_ROLLOUTS]
        ]
        self._context.tracker.log_rollouts(
            "rollout/samples",
            [record.rollout for record in records],
            {
                "reward": [record.reward or 0.0 for record in records],
                "advantage": [record.advantage for record in records],
            },
        )


def run(config: RLStage, context: StageContext, policy: Policy) -> Metrics:
    """Train the policy and write it."""
    # The schedule advances at steps without a group that trains, also before the first update.
    warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler\.step\(\)`")
    student, tokenizer = context.load_student(policy)
    key = f"stages.{context.name}"
    tokens = completion_limit(config.max_new_tokens, policy, f"{key}.max_new_tokens")
    config = replace(config, max_new_tokens=tokens)
    problems = context.problems(Split.TRAIN, config.problems)
    prefetcher = RolloutPrefetcher(student, config.staleness, context.hardware.strategy)
    sampling_policy = prefetcher.sampling_policy
    with (
        rollout_sampler(config, context, student, sampling_policy, tokenizer) as sampler,
        closing(prefetcher),
    ):
        pool = screened_pool(problems, config, sampler, context)
        optimization = in_steps(
            config.optimization,
            context.name,
            len(pool),
            config.group_size * config.completion_tokens,
            "prompts",
        )
        config = replace(config, optimization=optimization)
        collector = RolloutCollector(
            config,
            context.seed,
            sampler,
            validation_problems(context),
            key,
            template_thought(tokenizer),
        )
        module = RLModule(student, tokenizer, collector, prefetcher, config, context)
        batches = prompt_batches(config, pool, context.seed)
        train_s = fit(module, batches, context, optimization)
    remedy = "choose other levels, a larger group_size, wider filters or signal=reward"
    module.ledger.require_passed("groups", key, remedy)
    context.ledger.merge(module.ledger)
    save_trained(module, tokenizer, context)
    write_prompt_ids(context.out_dir, (problem.id for problem in problems))
    return {
        "train_tokens": module.train_tokens,
        "train_s": train_s,
        "problems": len(problems),
        "pool": len(pool),
        "max_new_tokens": tokens,
        "rollouts": module.rollouts,
        "planned_rows": config.workload().rows,
        **best_metrics(module),
    }
