"""Next-token training shared by the stages whose loss is cross-entropy."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.config.optimization import OptimizationConfig
from reasoning_lab.data.tokens.batches import token_batch
from reasoning_lab.data.tokens.packing import Rows
from reasoning_lab.data.tokens.table import TokenTable
from reasoning_lab.graph.stage import Metrics
from reasoning_lab.kernels.batch import TokenBatch
from reasoning_lab.kernels.logprobs import mean_logprob, trained_logits
from reasoning_lab.system.ranks import world_size
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.loop import (
    PolicyModule,
    best_metrics,
    fit,
    micro_batches_per_step,
    save_trained,
)
from reasoning_lab.training.micro_batches import MicroBatch, PlannedBatches, micro_batches
from reasoning_lab.training.step_plan import in_steps, step_plan
from reasoning_lab.training.validation import policy_validation

TokenLoss = Callable[[Tensor, Tensor], Tensor]


class NextTokenModule(PolicyModule):
    """Minimises a mean loss over each step's trained tokens.

    Args:
        policy, optimization, stage: As in `PolicyModule`.
        loss: Of `[K, V]` float32 logits and `[K]` int64 targets: their mean, with the logits of
            all trained tokens in memory; None = the next-token loss, which needs those of some
            at a time. Validation takes the next-token loss, whatever trains.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        optimization: OptimizationConfig,
        stage: str,
        loss: TokenLoss | None = None,
    ) -> None:
        super().__init__(policy, optimization, stage)
        self._loss = loss

    def training_step(self, batch: MicroBatch, index: int) -> Tensor:
        if self._loss is None:
            mean = -mean_logprob(self.policy, batch.tokens)
        else:
            mean = self._loss(*trained_logits(self.policy, batch.tokens))
        loss = mean * batch.weight
        tokens = float(len(batch.tokens.input_ids) * self.parts)
        self.log_train({"loss": loss.detach(), "tokens": tokens})
        return loss

    def validation_step(self, batch: MicroBatch, index: int) -> None:
        loss = -mean_logprob(self.policy, batch.tokens)
        # Every rank validates on all of it; the exchange has them agree to the bit.
        self.log(
            "val/loss",
            loss,
            batch_size=int(batch.tokens.loss_mask.sum()),
            prog_bar=True,
            sync_dist=world_size() > 1,
        )


def document_batches(
    documents: TokenTable,
    rows: Rows,
    plan: Int[np.ndarray, "steps batch_size"],
    accumulation: int,
) -> PlannedBatches:
    """Micro-batches of planned rows of documents.

    Args:
        documents: What the rows are made of.
        rows: The documents of each row.
        plan: Per step, the rows that it reads.
        accumulation: Micro-batches of a step.
    """

    def make(numbers: Int[np.ndarray, " K"], weight: float) -> MicroBatch:
        return MicroBatch(tokens=rows_batch(documents, rows, numbers), weight=weight)

    return micro_batches(plan, rows.sums(documents.trained_tokens), accumulation, make)


def validation_batches(documents: TokenTable, rows: Rows, batch_rows: int) -> PlannedBatches:
    """All rows in their order, `batch_rows` at a time."""
    parts = np.split(np.arange(len(rows)), np.arange(batch_rows, len(rows), batch_rows))
    return PlannedBatches(
        parts, lambda numbers: MicroBatch(tokens=rows_batch(documents, rows, numbers))
    )


def rows_batch(documents: TokenTable, rows: Rows, numbers: Int[np.ndarray, " K"]) -> TokenBatch:
    """The documents of some rows."""
    indices = np.concatenate([rows[number] for number in numbers])
    return token_batch([documents[index] for index in indices])


def train_next_token(
    policy: PreTrainedModel,
    documents: TokenTable,
    tokenizer: PreTrainedTokenizerBase,
    optimization: OptimizationConfig,
    context: StageContext,
    loss: TokenLoss | None = None,
    validation: PlannedBatches | None = None,
    validate_every_steps: int | None = None,
) -> Metrics:
    """Train on documents, `batch_size` of them a step, and write the policy.

    Args:
        policy, tokenizer: What learns.
        documents: What it learns from.
        optimization: How it steps.
        context: The stage's.
        loss: As in `NextTokenModule`, on trained tokens only.
        validation, validate_every_steps: As in `fit`.
    """
    lengths = documents.lengths
    optimization = in_steps(
        optimization, context.name, len(documents), float(lengths.mean()), "documents"
    )
    plan = step_plan(lengths, optimization, context.seed)
    parts = micro_batches_per_step(optimization.batch_size, context.hardware)
    batches = document_batches(documents, Rows.single(len(documents)), plan, parts)
    module = NextTokenModule(policy, optimization, context.name, loss)
    callbacks = policy_validation(context, policy, tokenizer)
    train_s = fit(
        module, batches, context, optimization, callbacks, validation, validate_every_steps
    )
    save_trained(module, tokenizer, context)
    return {
        "examples": len(documents),
        "train_tokens": int(lengths[plan].sum()),
        "train_s": train_s,
        "planned_rows": optimization.planned_rows,
        **best_metrics(module),
    }
