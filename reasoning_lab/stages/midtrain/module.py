"""Packed next-token training on every accepted chain of thought.

Rows hold several whole documents that do not attend to each other; training stops when the
loss on the corpus's validation problems no longer falls. The weights kept are the last.
"""

from collections.abc import Sequence
from statistics import fmean

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping
from transformers import PreTrainedTokenizerBase

from reasoning_lab.data.corpus import read_rollouts
from reasoning_lab.data.tokens.packing import TrainedPart, pack, packed_batch, unpacked_batch
from reasoning_lab.kernels.logprobs import TokenBatch
from reasoning_lab.models.tokenizer import tokenize_rollouts
from reasoning_lab.stages.midtrain.stage import MidtrainStage
from reasoning_lab.training.loop import (
    Metrics,
    StageContext,
    fit,
    parts_of,
    save_trained,
)
from reasoning_lab.training.micro_batches import Steps
from reasoning_lab.training.schedules import optimizer_of, schedule_of
from reasoning_lab.training.step_plan import in_steps, step_plan
from reasoning_lab.training.token_stage import NextTokenModule, fitting, micro_batches
from reasoning_lab.types import Example, Rollout, UserError


class PatienceStopping(EarlyStopping):
    """Early stopping that a run killed just after the decision keeps to when it goes on."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = self.wait_count >= self.patience


def run(config: MidtrainStage, context: StageContext) -> Metrics:
    """Write the mid-trained policy."""
    policy, tokenizer = context.load_student(packs=config.packing)
    corpus = context.inputs["corpus"]
    accepted = read_rollouts(corpus / "accepted.parquet")
    rows = _rows(accepted, tokenizer, config, context, "documents")
    validation_rollouts = read_rollouts(corpus / "validation.parquet")
    validation_rows = _rows(validation_rollouts, tokenizer, config, context, "validation_documents")
    row_tokens = fmean(sum(document.length for document in row) for row in rows)
    optimization = in_steps(config.optimization, context.name, len(rows), row_tokens)
    plan = step_plan([config.row_tokens] * len(rows), optimization, context.seed)
    if optimization.overfit_batches:  # Other rows would only say when to stop memorizing these.
        validation_rows = [rows[index] for index in sorted({row for step in plan for row in step})]
    trained = TrainedPart(config.trained)

    def collate(rows: Sequence[Sequence[Example]]) -> TokenBatch:
        if config.packing:
            return packed_batch(rows, config.row_tokens, tokenizer.pad_token_id, trained)
        return unpacked_batch(rows, tokenizer.pad_token_id, trained)

    def batches(
        rows: Sequence[Sequence[Example]], plan: Sequence[Sequence[int]], parts: int
    ) -> Steps:
        return micro_batches(
            plan,
            lambda indices: collate([rows[index] for index in indices]),
            [_trained_tokens(row, trained) for row in rows],
            parts,
        )

    size = config.validation_batch_rows
    indices = list(range(len(validation_rows)))
    validation = batches(
        validation_rows, [indices[at : at + size] for at in range(0, len(validation_rows), size)], 1
    )
    module = NextTokenModule(
        policy, optimizer_of(optimization, context.name), schedule_of(optimization)
    )
    stop = PatienceStopping("val/loss", patience=config.patience, check_on_train_epoch_end=False)
    train_s = fit(
        module,
        batches(rows, plan, parts_of(optimization.batch_size, context.hardware)),
        context,
        optimization,
        [stop],
        validation,
        config.validate_every_steps,
    )
    save_trained(module, tokenizer, context)
    steps = module.trainer.global_step
    tokens = sum(document.length for step in plan[:steps] for row in step for document in rows[row])
    filled = sum(document.length for row in rows for document in row)
    return {
        "train_tokens": tokens,
        "train_s": train_s,
        "planned_rows": optimization.planned_rows,
        "steps": steps,
        "rows": len(rows),
        "packing_frac": filled / (len(rows) * config.row_tokens),
        "val_loss": float(stop.best_score),
    }


def _rows(
    rollouts: Sequence[Rollout],
    tokenizer: PreTrainedTokenizerBase,
    config: MidtrainStage,
    context: StageContext,
    unit: str,
) -> list[list[Example]]:
    """The documents that fit, packed; the ledger counts the others as `unit`."""
    if not rollouts:
        raise UserError(
            f"stages.{context.name}: the corpus has no {unit.replace('_', ' ')}; distill more "
            "problems, of which some are for validation"
        )
    documents = tokenize_rollouts(tokenizer, rollouts)
    problems = [rollout.problem for rollout in rollouts]
    lengths = [document.length for document in documents]
    context.ledger.take(unit, len(documents))
    short = fitting(problems, lengths, config.row_tokens, unit, context.ledger)
    key = f"stages.{context.name}.row_tokens={config.row_tokens}"
    context.ledger.require_passed(unit, key, "raise it")
    packing = pack([lengths[index] for index in short], config.row_tokens)
    return [[documents[short[index]] for index in row] for row in packing.rows]


def _trained_tokens(row: Sequence[Example], trained: TrainedPart) -> int:
    if trained is TrainedPart.SEQUENCE:
        return sum(document.length - 1 for document in row)
    return sum(len(document.completion_ids) for document in row)
