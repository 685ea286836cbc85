"""Packed next-token training on every accepted chain of thought.

Rows hold several whole documents that do not attend to each other; training stops when the
loss on the corpus's validation problems no longer falls. The weights are the last, at a learning
rate that has fallen to 0, unless `weights` says otherwise.
"""

import logging
from dataclasses import replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.data.corpus import RolloutFile
from reasoning_lab.data.tokens.automatic import length_table, token_limit
from reasoning_lab.data.tokens.documents import TrainedPart
from reasoning_lab.data.tokens.limits import fit_to_rows
from reasoning_lab.data.tokens.packing import pack
from reasoning_lab.data.tokens.table import Overlong, TokenTable
from reasoning_lab.graph.stage import Metrics
from reasoning_lab.models.policy import context_tokens
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.stages.midtrain.stage import MidtrainStage
from reasoning_lab.stages.midtrain.stopping import PatienceStopping
from reasoning_lab.training.completion_limit import DOCUMENT_TOKENS
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.loop import (
    best_metrics,
    fit,
    micro_batches_per_step,
    save_trained,
)
from reasoning_lab.training.next_token_training import (
    NextTokenModule,
    document_batches,
    validation_batches,
)
from reasoning_lab.training.step_plan import in_steps, step_plan
from reasoning_lab.training.validation import policy_validation
from reasoning_lab.types import UserError

log = logging.getLogger(__name__)


def run(config: MidtrainStage, context: StageContext, policy: Policy, corpus: Corpus) -> Metrics:
    """Write the mid-trained policy."""
    student, tokenizer = context.load_student(policy)
    lengths = context.documents(corpus.accepted(), tokenizer, TrainedPart(config.trained)).lengths
    if not len(lengths):
        raise UserError(
            f"stages.{context.name}: the corpus has no accepted rollout; distill more problems"
        )
    table, key = length_table(lengths), f"stages.{context.name}.row_tokens"
    row_tokens = token_limit(config.row_tokens, table, context_tokens(student), key)
    assert row_tokens is not None  # It has no null.
    config = replace(config, row_tokens=row_tokens)
    documents = _documents(corpus.accepted(), tokenizer, config, context, "documents")
    validation = _documents(corpus.validation(), tokenizer, config, context, "validation_documents")
    rows = pack(documents.lengths, row_tokens)
    row_lengths = rows.sums(documents.lengths)
    optimization = in_steps(config.optimization, context.name, len(rows), row_lengths.mean())
    equal_lengths = np.full(len(rows), row_tokens, np.int32)
    plan = step_plan(equal_lengths, optimization, context.seed)
    parts = micro_batches_per_step(optimization.batch_size, context.hardware)
    validation_rows = pack(validation.lengths, row_tokens)
    if optimization.overfit_batches:  # Other rows would only say when to stop memorizing these.
        memorized = np.concatenate([rows[row] for row in np.unique(plan)])
        validation = documents.select(memorized)
        validation_rows = pack(validation.lengths, row_tokens)
    module = NextTokenModule(student, optimization, context.name)
    every_steps = min(config.validate_every_steps, optimization.steps)
    decay_steps = config.decay_on_stop * every_steps
    stop = PatienceStopping(config.patience, decay_steps, optimization.steps, context.name)
    module.rate_factor = stop.rate_factor
    train_s = fit(
        module,
        document_batches(documents, rows, plan, parts),
        context,
        optimization,
        [*([stop] if len(validation) else []), *policy_validation(context, student, tokenizer)],
        validation_batches(validation, validation_rows, config.validation_batch_rows)
        if len(validation)
        else None,
        every_steps if len(validation) else None,
    )
    save_trained(module, tokenizer, context)
    steps = module.trainer.global_step
    return {
        "train_tokens": int(row_lengths[plan[:steps]].sum()),
        "train_s": train_s,
        "planned_rows": optimization.planned_rows,
        "steps": steps,
        "rows": len(rows),
        "packing_frac": row_lengths.mean() / row_tokens,
        "row_tokens": row_tokens,
        DOCUMENT_TOKENS: table,
        "val_loss": float(stop.best_score),
        **best_metrics(module),
    }


def _documents(
    rollouts: RolloutFile,
    tokenizer: PreTrainedTokenizerBase,
    config: MidtrainStage,
    context: StageContext,
    unit: str,
) -> TokenTable:
    """Documents of rollouts, none longer than a row; the ledger counts the others as `unit`."""
    documents = context.documents(rollouts, tokenizer, TrainedPart(config.trained))
    if not len(documents):
        log.warning(
            "stages.%s: the corpus has no %s, so training does not stop early.",
            context.name,
            unit.replace("_", " "),
        )
        return documents
    context.ledger.take(unit, len(documents))
    overlong = Overlong(config.overlong)
    return fit_to_rows(
        rollouts, documents, config.tokens_of_row, overlong, unit, context.ledger, context.name
    )
