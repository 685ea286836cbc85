"""GRPO with a verifiable reward: +1 for a correct rollout, -1 for any other verdict.

Each step samples a group of rollouts for every prompt at the annealed temperature, has them
verified, drops the groups and rollouts that the paper's controls drop, and takes one
gradient step with the same temperature dividing the logits. Everything random is drawn from
(seed, step, prompt), so a resumed run samples what it would have sampled.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.advantages import centered_advantages, group_advantages
from reasoning_lab.data.batches import Example, padded_batch, step_batches
from reasoning_lab.data.corpus import write_prompt_ids
from reasoning_lab.engine import Sampling
from reasoning_lab.engine.rollouts import RolloutSampler
from reasoning_lab.logprobs import token_logprobs
from reasoning_lab.losses.grpo import grpo_loss
from reasoning_lab.models.policy import save_policy
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.schema import OptimizationConfig
from reasoning_lab.stages.base import (
    Metrics,
    PolicyModule,
    StageContext,
    Steps,
    fit,
    optimizer_of,
    schedule_of,
)
from reasoning_lab.stages.rl.config import FilterConfig, RLConfig, TemperatureConfig
from reasoning_lab.stages.rl.controls import (
    balanced,
    informative,
    length_variation,
    temperature_at,
)
from reasoning_lab.tracking import Tracker
from reasoning_lab.types import Problem, RolloutGroup, Split, UserError, Verdict

# Rows sorted by length and cut into such micro-batches hold little padding.
_MICRO_BATCH_ROWS = 32
_ADVANTAGES = {"grpo": group_advantages, "dr_grpo": centered_advantages}


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """The prompts of one step."""

    step: int
    problems: Sequence[Problem]

    def to(self, device: torch.device) -> "PromptBatch":
        return self


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """How a step's rollouts are drawn and which of them train; see `RLConfig`."""

    seed: int
    steps: int
    group_size: int
    max_new_tokens: int
    temperature: TemperatureConfig
    filter: FilterConfig

    def sampling(self, step: int) -> Sampling:
        """Untruncated, so that the engine's and the trainer's distributions are one."""
        annealed = self.temperature
        temperature = temperature_at(
            step, self.steps, annealed.start, annealed.end, annealed.anneal_frac
        )
        return Sampling(temperature, 1.0, self.max_new_tokens)

    def keeps(self, group: RolloutGroup) -> bool:
        """Whether the group's prompt passes the filters and its rewards differ."""
        bound = self.filter.max_length_variation
        return (
            informative(group)
            and group.pass_rate <= self.filter.max_pass_rate
            and (bound is None or length_variation(group) <= bound)
        )

    def trained(self, groups: Sequence[RolloutGroup], step: int) -> list[RolloutGroup]:
        """The groups that train in this step, each with the rollouts that do."""
        kept = [group for group in groups if self.keeps(group)]
        if self.filter.balance == "all":
            return kept
        return [balanced(group, f"{self.seed}/{step}") for group in kept]


class RLModule(PolicyModule):
    """Samples, filters and learns; one optimizer step a batch of prompts.

    Args:
        policy: Learns, and samples for itself.
        tokenizer: The policy's.
        sampler: Draws verified rollouts from `policy`.
        plan: How rollouts are drawn and chosen.
        optimization: Optimizer, schedule, clip norm.
        advantage: grpo or dr_grpo.
        clip_low: Lower clip of the probability ratio.
        clip_high: Upper clip.
        micro_batch_size: Rollouts a backward pass; None = 32, so that little is padding.
        table_every_steps: How often a table of rollouts is logged.
        tracker: Where it is logged.
        name: The stage's name.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        sampler: RolloutSampler,
        plan: RolloutPlan,
        optimization: OptimizationConfig,
        advantage: str,
        clip_low: float,
        clip_high: float,
        micro_batch_size: int | None,
        table_every_steps: int,
        tracker: Tracker,
        name: str,
    ) -> None:
        super().__init__(policy, optimizer_of(optimization, name), schedule_of(optimization))
        self.automatic_optimization = False
        self._tokenizer = tokenizer
        self._sampler = sampler
        self._plan = plan
        self._clip_norm = optimization.clip_norm
        self._advantages = _ADVANTAGES[advantage]
        self._clip = (clip_low, clip_high)
        self._micro_batch_size = micro_batch_size
        self._table_every_steps = table_every_steps
        self._tracker = tracker
        self.rollout_tokens = 0

    def training_step(self, batch: PromptBatch, index: int) -> None:
        sampling = self._plan.sampling(batch.step)
        started = time.monotonic()
        groups = self._sampler.groups(
            batch.problems,
            self._plan.group_size,
            sampling,
            f"{self._plan.seed}/{batch.step}",
            self.global_step,
        )
        sampled = time.monotonic()
        trained = self._plan.trained(groups, batch.step)
        if trained:
            self._learn(trained, sampling.temperature)
        cast(LRScheduler, self.lr_schedulers()).step()
        self._log(groups, trained, sampling.temperature)
        self.log("time/generate_s", sampled - started)
        self.log("time/train_s", time.monotonic() - sampled)
        if batch.step % self._table_every_steps == 0:
            rollouts = [rollout for group in groups[:4] for rollout in group.rollouts[:4]]
            self._tracker.rollouts("rollout/samples", rollouts)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["rollout_tokens"] = self.rollout_tokens

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.rollout_tokens = checkpoint["rollout_tokens"]

    def _learn(self, groups: Sequence[RolloutGroup], temperature: float) -> None:
        """One optimizer step over all rollouts of `groups`, in micro-batches."""
        optimizer = cast(LightningOptimizer, self.optimizers())
        optimizer.zero_grad()
        advantages = [
            advantage
            for group in groups
            for advantage in self._advantages(
                torch.tensor([[1.0 if r.correct else -1.0 for r in group.rollouts]])
            )[0].tolist()
        ]
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        prompts = prompt_tokens(self._tokenizer, [r.problem.prompt for r in rollouts])
        examples = [
            Example(prompt, rollout.completion.token_ids)
            for prompt, rollout in zip(prompts, rollouts, strict=True)
        ]
        trained_tokens = sum(len(example.completion_ids) for example in examples)
        self.rollout_tokens += sum(example.length for example in examples)
        order = sorted(range(len(examples)), key=lambda row: examples[row].length)
        size = self._micro_batch_size or _MICRO_BATCH_ROWS
        clipped = 0.0
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            tokens = padded_batch([examples[row] for row in rows], self._tokenizer.pad_token_id)
            tokens = tokens.to(self.device)
            old = torch.zeros(tokens.input_ids.shape, device=self.device).masked_scatter(
                tokens.completion_mask,
                torch.tensor(
                    [p for row in rows for p in rollouts[row].completion.logprobs],
                    device=self.device,
                ),
            )
            result = grpo_loss(
                token_logprobs(self.policy, tokens, temperature),
                old,
                torch.tensor([advantages[row] for row in rows], device=self.device),
                tokens.completion_mask,
                *self._clip,
            )
            share = sum(len(examples[row].completion_ids) for row in rows) / trained_tokens
            clipped += share * float(result.clip_frac)
            self.manual_backward(result.loss * share)
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self._clip_norm)
        optimizer.step()
        self.log_train({"gradient_norm": norm, "clip_frac": clipped, "rollouts": len(rollouts)})

    def _log(
        self,
        groups: Sequence[RolloutGroup],
        trained: Sequence[RolloutGroup],
        temperature: float,
    ) -> None:
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        verdicts = Counter(rollout.verdict for rollout in rollouts)
        lengths = [len(rollout.completion.token_ids) for rollout in rollouts]
        correct_frac = verdicts[Verdict.CORRECT] / len(rollouts)
        values = {
            "reward_mean": 2 * correct_frac - 1,
            "completion_tokens_mean": sum(lengths) / len(lengths),
            "completion_tokens_max": max(lengths),
            "truncated_frac": sum(r.completion.truncated for r in rollouts) / len(rollouts),
            "temperature": temperature,
            "groups_without_signal": sum(not informative(group) for group in groups),
            "groups_trained": len(trained),
            **{f"{verdict}_frac": verdicts[verdict] / len(rollouts) for verdict in Verdict},
        }
        self.log_dict({f"rollout/{key}": float(value) for key, value in values.items()})


def run(config: RLConfig, context: StageContext) -> Metrics:
    """Write the policy that reinforcement learning leaves."""
    policy, tokenizer = context.load_policy()
    problems = context.problems(Split.TRAIN, config.problems)
    sampler = context.sampler(policy, tokenizer)
    optimization = config.optimization
    plan = RolloutPlan(
        context.seed,
        optimization.steps,
        config.group_size,
        config.max_new_tokens,
        config.temperature,
        config.filter,
    )
    pool = _screened(problems, config.screen_group_size, sampler, plan, context)
    steps = step_batches([1] * len(pool), optimization.batch_size, optimization.steps, context.seed)
    module = RLModule(
        policy,
        tokenizer,
        sampler,
        plan,
        optimization,
        config.advantage,
        config.clip_low,
        config.clip_high,
        context.hardware.micro_batch_size,
        config.table_every_steps,
        context.tracker,
        context.name,
    )
    batches = Steps(
        [[number, *rows] for number, rows in enumerate(steps)],
        lambda rows: PromptBatch(rows[0], [pool[row] for row in rows[1:]]),
    )
    train_s = fit(module, batches, context, optimization)
    save_policy(policy, tokenizer, context.out_dir)
    write_prompt_ids(context.out_dir, problems)
    return {
        "train_tokens": module.rollout_tokens,
        "train_s": train_s,
        "problems": len(problems),
        "pool": len(pool),
    }


def _screened(
    problems: Sequence[Problem],
    group_size: int,
    sampler: RolloutSampler,
    plan: RolloutPlan,
    context: StageContext,
) -> Sequence[Problem]:
    """The prompts worth training on, judged once by the policy as it comes in."""
    if group_size == 0:
        return problems
    groups = sampler.kept_groups(
        problems,
        group_size,
        plan.sampling(0),
        f"{plan.seed}/screen",
        context.work_dir / "screening",
    )
    pool = [group.problem for group in groups if plan.keeps(group)]
    context.tracker.log({"rollout/screened": len(problems), "rollout/pool": len(pool)})
    if not pool:
        raise UserError(
            f"stages.{context.name}: no prompt of {len(problems)} passes the filters; choose "
            "other levels, a larger screen_group_size or wider filters"
        )
    return pool
