"""Packed next-token training on every accepted chain of thought.

Rows hold several whole documents that do not attend to each other; training stops when the
loss on the corpus's validation problems no longer falls. The weights kept are the last.
"""

from pathlib import Path

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping
from transformers import PreTrainedTokenizerBase

from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.data.tokens.documents import TrainedPart
from reasoning_lab.data.tokens.limits import fit_to_rows
from reasoning_lab.data.tokens.packing import pack
from reasoning_lab.data.tokens.table import Overlong, TokenTable
from reasoning_lab.graph.stage import Metrics
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.stages.midtrain.stage import MidtrainStage
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.loop import fit, micro_batches_per_step, save_trained
from reasoning_lab.training.next_token_training import (
    NextTokenModule,
    document_batches,
    validation_batches,
)
from reasoning_lab.training.step_plan import in_steps, step_plan
from reasoning_lab.types import UserError


class PatienceStopping(EarlyStopping):
    """Early stopping that a run killed just after the decision keeps to when it goes on."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = self.wait_count >= self.patience


def run(config: MidtrainStage, context: StageContext, policy: Policy, corpus: Corpus) -> Metrics:
    """Write the mid-trained policy."""
    student, tokenizer = context.load_student(policy)
    documents = _documents(corpus.accepted_file, tokenizer, config, context, "documents")
    validation = _documents(
        corpus.validation_file, tokenizer, config, context, "validation_documents"
    )
    rows = pack(documents.lengths, config.row_tokens)
    row_lengths = rows.sums(documents.lengths)
    optimization = in_steps(config.optimization, context.name, len(rows), row_lengths.mean())
    equal_lengths = np.full(len(rows), config.row_tokens, np.int32)
    plan = step_plan(equal_lengths, optimization, context.seed)
    parts = micro_batches_per_step(optimization.batch_size, context.hardware)
    validation_rows = pack(validation.lengths, config.row_tokens)
    if optimization.overfit_batches:  # Other rows would only say when to stop memorizing these.
        memorized = np.concatenate([rows[row] for row in np.unique(plan)])
        validation = documents.select(memorized)
        validation_rows = pack(validation.lengths, config.row_tokens)
    module = NextTokenModule(student, optimization, context.name)
    stop = PatienceStopping("val/loss", patience=config.patience, check_on_train_epoch_end=False)
    train_s = fit(
        module,
        document_batches(documents, rows, plan, parts),
        context,
        optimization,
        [stop],
        validation_batches(validation, validation_rows, config.validation_batch_rows),
        config.validate_every_steps,
    )
    save_trained(module, tokenizer, context)
    steps = module.trainer.global_step
    return {
        "train_tokens": int(row_lengths[plan[:steps]].sum()),
        "train_s": train_s,
        "planned_rows": optimization.planned_rows,
        "steps": steps,
        "rows": len(rows),
        "packing_frac": row_lengths.mean() / config.row_tokens,
        "val_loss": float(stop.best_score),
    }


def _documents(
    file: Path,
    tokenizer: PreTrainedTokenizerBase,
    config: MidtrainStage,
    context: StageContext,
    unit: str,
) -> TokenTable:
    """The documents of a file, none longer than a row; the ledger counts the others as `unit`."""
    documents = context.documents(file, tokenizer, TrainedPart(config.trained))
    if not len(documents):
        raise UserError(
            f"stages.{context.name}: the corpus has no {unit.replace('_', ' ')}; distill more "
            "problems, of which some are for validation"
        )
    context.ledger.take(unit, len(documents))
    overlong = Overlong(config.overlong)
    return fit_to_rows(
        file, documents, config.row_tokens, overlong, unit, context.ledger, context.name
    )
