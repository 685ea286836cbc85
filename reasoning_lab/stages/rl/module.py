"""Policy-gradient training with verifiable rewards: GRPO and its kin (paper, step 4).

Each step samples a group of rollouts for every prompt at the annealed temperature, has them
verified and rewarded, drops the prompts and rollouts that the paper's controls drop, and learns
from the others with the same temperature dividing the logits.
"""

import logging
import random
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.data.corpus import write_prompt_ids
from reasoning_lab.data.tokens.batches import step_batches
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.models.tokenizer import opened_thought
from reasoning_lab.sampling.probe import check_engine
from reasoning_lab.sampling.rollouts import RolloutSampler
from reasoning_lab.stages.rl.ahead import Ahead
from reasoning_lab.stages.rl.config import RLConfig
from reasoning_lab.stages.rl.engines import engine_remedy, sampler_of
from reasoning_lab.stages.rl.health import Health
from reasoning_lab.stages.rl.rollouts import (
    FILTERED,
    Collector,
    PromptBatch,
    StepRollouts,
    count_step,
)
from reasoning_lab.stages.rl.update import (
    Reference,
    entropy,
    rank_batches,
    rollout_batches,
    update,
)
from reasoning_lab.system.ranks import Peers
from reasoning_lab.tracking.tracker import Tracker
from reasoning_lab.training.loop import (
    Metrics,
    PolicyModule,
    StageContext,
    fit,
    save_trained,
)
from reasoning_lab.training.micro_batches import PlannedBatches
from reasoning_lab.training.schedules import optimizer_of, schedule_of
from reasoning_lab.training.strategies import backward, clipped_step
from reasoning_lab.types import Problem, RolloutGroup, Split, UserError, Verdict

log = logging.getLogger(__name__)

_TABLE_GROUPS, _TABLE_ROLLOUTS = 4, 4


class RLModule(PolicyModule):
    """Samples, filters and learns; one update a batch of prompts.

    Args:
        policy: Learns, and samples for itself.
        tokenizer: The policy's.
        collector: Draws a step's rollouts.
        ahead: Says when, and from which weights.
        config: The stage's.
        micro_batch_size: Rollouts a backward pass; None = as `rollout_batches` has it.
        tracker: Where tables of rollouts go.
        name: The stage's name.

    Attributes:
        ledger: Groups and rollouts of all steps so far; a part of the training state.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        collector: Collector,
        ahead: Ahead,
        config: RLConfig,
        micro_batch_size: int | None,
        tracker: Tracker,
        name: str,
    ) -> None:
        optimization = config.optimization
        super().__init__(policy, optimizer_of(optimization, name), schedule_of(optimization))
        self.automatic_optimization = False
        self._tokenizer = tokenizer
        self._collector = collector
        self._ahead = ahead
        self._config = config
        self._micro_batch_size = micro_batch_size
        self._tracker = tracker
        self._name = name
        self._peers = Peers()
        self._health = Health()
        told = config.kl.weight or config.kl.log_every_steps
        self._reference = Reference(policy) if told else None
        self.rollout_tokens = 0
        self.rollouts = 0
        self.ledger = Ledger()

    def training_step(self, batch: PromptBatch, index: int) -> None:
        temperature = self._collector.sampling(batch.step).temperature
        started = time.monotonic()
        version = self.global_step
        collected = self._ahead.rollouts(self._collector, batch, version)
        sampled = time.monotonic()
        entropy_nats = entropy(
            self.policy,
            [rollout for group in collected.drawn for rollout in group.rollouts],
            self._tokenizer,
            self._micro_batch_size,
            self.device,
        )
        batches = rollout_batches(
            collected.trained, self._tokenizer, self._config, self._micro_batch_size, self.device
        )
        self.rollout_tokens += sum(len(part.tokens.input_ids) for part in batches)
        self.rollouts += sum(len(group.rollouts) for group in collected.drawn)
        count_step(collected, self.ledger)
        told = _validation_values(collected.validation)
        if batches:
            optimizer = cast(LightningOptimizer, self.optimizers())
            clip_norm = self._config.optimization.clip_norm
            values = update(
                self.policy,
                rank_batches(batches),
                self._config,
                temperature,
                optimizer,
                partial(backward, self),
                partial(clipped_step, self, optimizer, clip_norm),
                self._peers,
                self._reference if self._looks_back(batch.step) else None,
            )
            values["learning_rate"] = self.trainer.optimizers[0].param_groups[0]["lr"]
            told |= {f"train/{key}": float(value) for key, value in values.items()}
        cast(LRScheduler, self.lr_schedulers()).step()
        trained_tokens = self._config.epochs * sum(part.trained_tokens for part in batches)
        told |= _times(collected, sampled - started, time.monotonic() - sampled, trained_tokens)
        told |= self._rollout_values(collected, entropy_nats, temperature, version)
        if collected.validation or batch.step % self._config.optimization.log_every_steps == 0:
            self.tell(told, batch.step)
        if batch.step % self._config.table_every_steps == 0:
            self._log_table(collected)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["rollouts"] = {"trained_tokens": self.rollout_tokens, "drawn": self.rollouts}
        checkpoint["ahead"] = self._ahead.state_dict()
        checkpoint["ledger"] = self.ledger.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint["rollouts"]
        self.rollout_tokens, self.rollouts = kept["trained_tokens"], kept["drawn"]
        self._ahead.load_state_dict(checkpoint["ahead"])
        self.ledger.load_state_dict(checkpoint["ledger"])

    def _looks_back(self, step: int) -> bool:
        kl = self._config.kl
        return bool(kl.weight) or bool(kl.log_every_steps and step % kl.log_every_steps == 0)

    def _rollout_values(
        self, collected: StepRollouts, entropy_nats: float, temperature: float, version: int
    ) -> dict[str, float]:
        rollouts = [rollout for group in collected.drawn for rollout in group.rollouts]
        verdicts = Counter(rollout.verdict for rollout in rollouts)
        lengths = [len(rollout.completion.token_ids) for rollout in rollouts]
        unjudged = collected.dropped_rollouts["unjudged"]
        judged = max(len(rollouts) - unjudged, 1)
        values = {
            "reward_mean": collected.shares.total() / judged,
            **{f"reward/{name}_mean": share / judged for name, share in collected.shares.items()},
            **{f"{verdict}_frac": verdicts[verdict] / len(rollouts) for verdict in Verdict},
            "entropy": entropy_nats,
            "completion_tokens_mean": sum(lengths) / len(lengths),
            "completion_tokens_max": max(lengths),
            "truncated_frac": sum(r.completion.truncated for r in rollouts) / len(rollouts),
            "temperature": temperature,
            "rollouts": len(rollouts),
            "unjudged": unjudged,
            "balanced_away": collected.dropped_rollouts["balanced_away"],
            "cut_off": collected.dropped_rollouts["cut_off"],
            "hard_prompts": collected.hard,
            "groups_without_signal": collected.dropped["no_signal"],
            "groups_too_easy": collected.dropped["easy"],
            "groups_uneven": collected.dropped["uneven"],
            "groups_unjudged": collected.dropped["unjudged"],
            "groups_cut_off": collected.dropped["cut_off"],
            "groups_trained": len(collected.trained),
            "policy_version": rollouts[0].policy_version,
            "staleness": version - rollouts[0].policy_version,
        }
        for warning in self._health.warnings(values):
            log.warning("stages.%s: %s.", self._name, warning)
        return {f"rollout/{key}": float(value) for key, value in values.items()}

    def _log_table(self, collected: StepRollouts) -> None:
        groups = collected.trained[:_TABLE_GROUPS]
        self._tracker.rollouts(
            "rollout/samples",
            [rollout for group in groups for rollout in group.rollouts[:_TABLE_ROLLOUTS]],
            {
                "reward": [r for group in groups for r in group.rewards[:_TABLE_ROLLOUTS]],
                "advantage": [a for group in groups for a in group.advantages[:_TABLE_ROLLOUTS]],
            },
        )


def _validation_values(groups: Sequence[RolloutGroup]) -> dict[str, float]:
    if not groups:
        return {}
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    return {
        "val/pass@1": sum(group.pass_rate for group in groups) / len(groups),
        "val/truncated_frac": sum(r.completion.truncated for r in rollouts) / len(rollouts),
    }


def _times(
    collected: StepRollouts, generate_s: float, train_s: float, trained_tokens: int
) -> dict[str, float]:
    groups = [*collected.drawn, *collected.validation]
    drawn = sum(len(r.completion.token_ids) for group in groups for r in group.rollouts)
    return {
        "time/generate_s": generate_s,
        "time/train_s": train_s,
        "time/generate_frac": generate_s / (generate_s + train_s),
        "time/generate_tokens_per_s": drawn / generate_s,
        "time/train_tokens_per_s": trained_tokens / train_s,
    }


def run(config: RLConfig, context: StageContext) -> Metrics:
    """Write the policy that reinforcement learning leaves."""
    # The schedule goes on at a step without a group that trains, also before the first update.
    warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler\.step\(\)`")
    policy, tokenizer = context.load_student()
    problems = context.problems(Split.TRAIN, config.problems)
    ahead = Ahead(policy, config.staleness, context.hardware.strategy)
    held = config.validation
    validation = context.source.problems(Split.VALIDATION, config.problems.levels, held.count, 0)
    with sampler_of(config, context, ahead.behaviour, tokenizer) as sampler, closing(ahead):
        if config.engine != "hf" or ahead.behaviour is not policy:
            check_engine(
                policy,
                tokenizer,
                sampler.complete,
                config.temperature.start,
                context.hardware,
                f"stages.{context.name}",
                engine_remedy(config, context),
                getattr(torch, context.model.sampling_dtype),
            )
        collector = Collector(
            config,
            context.seed,
            sampler,
            list(context.readable_golds().of(validation, "validation_problems")),
            f"stages.{context.name}",
            opened_thought(tokenizer),
        )
        pool = _screened(problems, config, sampler, collector, context)
        module = RLModule(
            policy,
            tokenizer,
            collector,
            ahead,
            config,
            context.hardware.micro_batch_size,
            context.tracker,
            context.name,
        )
        batches = _batches(config, pool, context.seed)
        train_s = fit(module, batches, context, config.optimization)
    remedy = "choose other levels, a larger group_size, wider filters or signal=reward"
    module.ledger.require_passed("groups", f"stages.{context.name}", remedy)
    context.ledger.merge(module.ledger)
    save_trained(module, tokenizer, context)
    write_prompt_ids(context.out_dir, problems)
    return {
        "train_tokens": module.rollout_tokens,
        "train_s": train_s,
        "problems": len(problems),
        "pool": len(pool),
        "rollouts": module.rollouts,
    }


def _batches(config: RLConfig, pool: Sequence[Problem], seed: int) -> PlannedBatches:
    """The prompts of every step."""
    optimization = config.optimization
    steps = step_batches([1] * len(pool), optimization.batch_size, optimization.steps, seed)

    def prompts(number: int) -> PromptBatch:
        rows = steps[number]
        taken = set(rows)
        spare = (
            [row for row in range(len(pool)) if row not in taken] if config.backfill_rounds else []
        )
        random.Random(f"{seed}/{number}/spare").shuffle(spare)
        return PromptBatch(number, [pool[row] for row in rows], [pool[row] for row in spare])

    def with_following(number: int) -> PromptBatch:
        ahead_of_time = config.staleness and number + 1 < len(steps)
        following = prompts(number + 1) if ahead_of_time else None
        return replace(prompts(number), following=following)

    return PlannedBatches(range(len(steps)), with_following)


def _screened(
    problems: Sequence[Problem],
    config: RLConfig,
    sampler: RolloutSampler,
    collector: Collector,
    context: StageContext,
) -> Sequence[Problem]:
    """The prompts worth training on, judged once by the policy as it comes in."""
    if config.screen_group_size == 0:
        return problems
    if not config.has_group_baseline:
        log.info(
            "stages.%s: no screening, as %s learns from prompts that are always solved or failed.",
            context.name,
            config.advantage,
        )
        return problems
    groups = sampler.kept_groups(
        problems,
        config.screen_group_size,
        collector.sampling(0),
        f"{context.seed}/screen",
        context.work_dir / "screening",
    )
    pool, dropped = collector.screened(groups)
    for reason, count in dropped.items():
        context.ledger.drop("problems", reason, count, selected=reason in FILTERED)
    counts = {f"rollout/screened_{reason}": number for reason, number in dropped.items()}
    context.tracker.log({"rollout/screened": len(problems), "rollout/pool": len(pool)} | counts)
    if not pool:
        reasons = ", ".join(f"{number} {reason}" for reason, number in dropped.items())
        raise UserError(
            f"stages.{context.name}: no prompt of {len(problems)} passes the filters ({reasons}); "
            "choose other levels, a larger screen_group_size or wider filters"
        )
    return pool
