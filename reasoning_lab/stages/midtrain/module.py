"""Packed next-token training on every accepted chain of thought.

Rows hold several whole documents that do not attend to each other; training stops when the
loss on the corpus's validation problems no longer falls. The weights kept are the last.
"""

from collections.abc import Sequence
from statistics import fmean

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping
from transformers import PreTrainedTokenizerBase

from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.data.tokens.documents import Document, TrainedPart, document_of, drop_too_long
from reasoning_lab.data.tokens.packing import pack
from reasoning_lab.graph.stage import Metrics
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.models.tokenizer import tokenize_rollouts
from reasoning_lab.stages.midtrain.stage import MidtrainStage
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.loop import fit, micro_batches_per_step, save_trained
from reasoning_lab.training.next_token_training import NextTokenModule, document_batches
from reasoning_lab.training.step_plan import in_steps, step_plan
from reasoning_lab.types import Rollout, UserError


class PatienceStopping(EarlyStopping):
    """Early stopping that a run killed just after the decision keeps to when it goes on."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = self.wait_count >= self.patience


def run(config: MidtrainStage, context: StageContext, policy: Policy, corpus: Corpus) -> Metrics:
    """Write the mid-trained policy."""
    student, tokenizer = context.load_student(policy)
    accepted = corpus.accepted()
    rows = _rows(accepted, tokenizer, config, context, "documents")
    validation_rollouts = corpus.validation()
    validation_rows = _rows(validation_rollouts, tokenizer, config, context, "validation_documents")
    row_tokens = fmean(sum(len(document) for document in row) for row in rows)
    optimization = in_steps(config.optimization, context.name, len(rows), row_tokens)
    plan = step_plan([config.row_tokens] * len(rows), optimization, context.seed)
    if optimization.overfit_batches:  # Other rows would only say when to stop memorizing these.
        validation_rows = [rows[index] for index in sorted({row for step in plan for row in step})]
    size = config.validation_batch_rows
    indices = range(len(validation_rows))
    validation_plan = [indices[start : start + size] for start in indices[::size]]
    module = NextTokenModule(student, optimization, context.name)
    stop = PatienceStopping("val/loss", patience=config.patience, check_on_train_epoch_end=False)
    train_s = fit(
        module,
        document_batches(
            rows, plan, micro_batches_per_step(optimization.batch_size, context.hardware)
        ),
        context,
        optimization,
        [stop],
        document_batches(validation_rows, validation_plan, 1),
        config.validate_every_steps,
    )
    save_trained(module, tokenizer, context)
    steps = module.trainer.global_step
    row_lengths = [sum(len(document) for document in row) for row in rows]
    return {
        "train_tokens": sum(row_lengths[row] for step in plan[:steps] for row in step),
        "train_s": train_s,
        "planned_rows": optimization.planned_rows,
        "steps": steps,
        "rows": len(rows),
        "packing_frac": sum(row_lengths) / (len(rows) * config.row_tokens),
        "val_loss": float(stop.best_score),
    }


def _rows(
    rollouts: Sequence[Rollout],
    tokenizer: PreTrainedTokenizerBase,
    config: MidtrainStage,
    context: StageContext,
    unit: str,
) -> list[list[Document]]:
    """The documents that fit, packed; the ledger counts the others as `unit`."""
    if not rollouts:
        raise UserError(
            f"stages.{context.name}: the corpus has no {unit.replace('_', ' ')}; distill more "
            "problems, of which some are for validation"
        )
    part = TrainedPart(config.trained)
    documents = [document_of(one, trained=part) for one in tokenize_rollouts(tokenizer, rollouts)]
    problems = [rollout.problem for rollout in rollouts]
    lengths = [len(document) for document in documents]
    context.ledger.take(unit, len(documents))
    key = f"stages.{context.name}.row_tokens"
    short = drop_too_long(problems, lengths, config.row_tokens, unit, context.ledger, key)
    packing = pack([lengths[index] for index in short], config.row_tokens)
    return [[documents[short[index]] for index in row] for row in packing.rows]
