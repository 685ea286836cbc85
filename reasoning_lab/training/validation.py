"""pass@1 on validation problems while a policy trains: measured, logged and shown as a table.

Random numbers derive from (seed, step, problem), and sampling has generators of its own, so a
training is the same with and without it. RL samples its validation beside its rollouts.
"""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import fmean
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.data.sources.mixture import weighted
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.sampling.remote import whole_on_rank0
from reasoning_lab.sampling.rollouts import RolloutSampler
from reasoning_lab.system.ranks import Peers
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.loop import PolicyModule
from reasoning_lab.training.rollout_sampler import RolloutEngine, rollout_sampler
from reasoning_lab.training.stage import TrainingStage
from reasoning_lab.training.strategies import copy_weights, sampling_model
from reasoning_lab.types import Problem, RolloutGroup, Split

log = logging.getLogger(__name__)

_TABLE = "val/samples"


class PolicyValidation(Callback):
    """Validates the policy every so many optimizer steps, and after the last.

    Args:
        context: The stage's, which validates problems.
        policy: The policy that learns, whole.
        tokenizer: Its tokenizer.

    Raises:
        UserError: The policy cannot be sampled; see `check_engine`.
    """

    def __init__(
        self, context: StageContext, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self._context, self._policy = context, policy
        validation = context.training.validation
        self._problems = validation_problems(context)
        self._model = sampling_model(policy, context.hardware.strategy)
        self._opened = ExitStack()
        self._sampler = self._opened.enter_context(
            rollout_sampler(
                RolloutEngine(
                    context.training.validation_engine,
                    context.model.sampling_dtype,
                    validation.temperature or 1.0,  # The check of the engine divides logits by it.
                    f"stages.{context.name}.validation",
                ),
                context,
                policy,
                self._model,
                tokenizer,
            )
        )
        self._every_steps = validation.every_steps
        self._accumulation = 1
        self._peers = Peers()

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._accumulation = trainer.accumulate_grad_batches
        if trainer.global_step == 0 and Policy.kind in self._context.inputs:
            self._validate(module, 0)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        ends_step = (index + 1) % self._accumulation == 0
        if ends_step and trainer.global_step % self._every_steps == 0:
            self._validate(module, trainer.global_step)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.global_step % self._every_steps:
            self._validate(module, trainer.global_step)
        self._opened.close()

    def on_exception(
        self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._opened.close()

    def _validate(self, module: pl.LightningModule, step: int) -> None:
        copy_weights(self._policy, self._model)
        stage, seed = self._context.training, self._context.seed
        groups = validation_groups(stage, self._problems, self._sampler, seed, step, step)
        log_validation(cast(PolicyModule, module), self._context, groups, step, self._peers)


def policy_validation(
    context: StageContext, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> list[Callback]:
    """The callback that validates as the stage's `validation` says; none where it is off."""
    if not context.training.validation.count:
        return []
    return [PolicyValidation(context, policy, tokenizer)]


def validation_problems(context: StageContext) -> list[Problem]:
    """The validation problems of a training stage with a readable gold; the ledger counts them.

    Raises:
        UserError: There are fewer, or golds cannot be read that the source does not drop.
    """
    stage = context.training
    count, levels = stage.validation.count, stage.validation_levels
    if not count:
        return []
    source = weighted(context.source, stage.validation_weights)
    drawn = source.problems(Split.VALIDATION, levels, count, 0)
    return list(context.readable_golds().filter(drawn, "validation_problems"))


def validation_groups(
    stage: TrainingStage,
    problems: Sequence[Problem],
    sampler: RolloutSampler,
    seed: int,
    step: int,
    policy_version: int = 0,
) -> list[RolloutGroup]:
    """Verified completions of the validation problems, by the policy as it is after `step` steps.

    `policy_version` counts the updates that it has seen.
    """
    validation, max_new_tokens = stage.validation, stage.validation_max_new_tokens
    assert max_new_tokens is not None  # As `check_validation` has it, or `auto` is a number.
    return sampler.groups(
        problems,
        validation.samples,
        Sampling(validation.temperature, validation.top_p, max_new_tokens),
        f"{seed}/{step}/validation",
        policy_version,
    )


def validation_metrics(groups: Sequence[RolloutGroup]) -> dict[str, float]:
    """Accuracy on the validation problems, logged under `val/`; empty without groups.

    Where they are of several domains, each has its own accuracy too.
    """
    if not groups:
        return {}
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    truncated = sum(rollout.completion.truncated for rollout in rollouts)
    pass_rates: dict[str, list[float]] = {}
    for group in groups:
        pass_rates.setdefault(group.problem.domain, []).append(group.pass_rate)
    of_domains = {f"val/{name}/pass@1": fmean(pass_rates[name]) for name in sorted(pass_rates)}
    return {
        "val/pass@1": fmean(group.pass_rate for group in groups),
        "val/truncated_frac": truncated / len(rollouts),
        **(of_domains if len(of_domains) > 1 else {}),
    }


def log_validation(
    module: PolicyModule,
    context: StageContext,
    groups: Sequence[RolloutGroup],
    step: int,
    peers: Peers,
) -> None:
    """Log, show and keep what the policy's completions after `step` steps say; at least one group.

    The tracker gets the first of them as a table, with their verdicts; every rank calls it.
    """
    metrics = validation_metrics(groups)
    module.log_validation(metrics, step)
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    rows = rollouts[: context.training.validation.table_rollouts]
    if rows:
        rows = whole_on_rank0(rows, peers)
        context.tracker.log_rollouts(_TABLE, rows, {"step": [step] * len(rows)})
    log.info(
        "stages.%s: pass@1 %.1f%% on %d validation problems after step %d.",
        context.name,
        100 * metrics["val/pass@1"],
        len(groups),
        step,
    )
