"""Fine-tune on a compact, harder subset: not packed, loss on the completion and its end.

Each document is one example, so the model meets the end of every thought where it will have to
write it: this is where it learns when to stop.
"""

import numpy as np
from transformers import PreTrainedTokenizerBase

from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.data.corpus import RolloutFile
from reasoning_lab.data.curation.selection import harder_subset
from reasoning_lab.data.rollout_index import RolloutIndex
from reasoning_lab.data.tokens.limits import drop_too_long
from reasoning_lab.data.tokens.packing import Rows
from reasoning_lab.data.tokens.table import TokenTable
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.stage import Metrics
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.stages.sft.stage import SFTStage
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.micro_batches import PlannedBatches
from reasoning_lab.training.next_token_training import train_next_token, validation_batches
from reasoning_lab.types import UserError

_UNIT = "rollouts"


def run(config: SFTStage, context: StageContext, policy: Policy, corpus: Corpus) -> Metrics:
    """Write the fine-tuned policy."""
    student, tokenizer = context.load_student(policy)
    accepted = corpus.accepted()
    index = accepted.index
    subset = accepted.select(harder_subset(index, config.levels, config.count, context.seed))
    _count_subset(index, len(subset), config, context.ledger)
    if not len(subset):
        raise UserError(
            f"stages.{context.name}.levels: the corpus has no accepted rollout at levels "
            f"{list(config.levels)}; choose levels that were distilled"
        )
    return train_next_token(
        student,
        _documents(subset, tokenizer, config, context, _UNIT),
        tokenizer,
        config.optimization,
        context,
        config.token_loss(),
        _validation(corpus, tokenizer, config, context),
        config.validate_every_steps,
    )


def _documents(
    rollouts: RolloutFile,
    tokenizer: PreTrainedTokenizerBase,
    config: SFTStage,
    context: StageContext,
    unit: str,
) -> TokenTable:
    """The documents of rollouts that are not too long; the ledger counts the others as `unit`."""
    documents = context.documents(rollouts, tokenizer)
    key = f"stages.{context.name}.max_tokens"
    short = drop_too_long(rollouts, documents.lengths, config.max_tokens, unit, context.ledger, key)
    return documents.select(short)


def _validation(
    corpus: Corpus, tokenizer: PreTrainedTokenizerBase, config: SFTStage, context: StageContext
) -> PlannedBatches | None:
    """The corpus's validation rollouts at the stage's levels; None = no loss is measured on them.

    Raises:
        UserError: There is none.
    """
    if config.validate_every_steps is None:
        return None
    unit, rollouts = "validation_rollouts", corpus.validation()
    at_levels = np.flatnonzero(np.isin(rollouts.index.levels, config.levels))
    if not len(at_levels):
        raise UserError(
            f"stages.{context.name}.validate_every_steps: the corpus has no validation rollout at "
            f"levels {list(config.levels)}; distill more problems, of which some are for "
            "validation, or leave it out"
        )
    context.ledger.take(unit, len(rollouts))
    context.ledger.drop(unit, "other_level", len(rollouts) - len(at_levels), selected=True)
    documents = _documents(rollouts.select(at_levels), tokenizer, config, context, unit)
    rows = Rows.single(len(documents))
    return validation_batches(documents, rows, config.validation_batch_rows)


def _count_subset(index: RolloutIndex, subset: int, config: SFTStage, ledger: Ledger) -> None:
    """Count what `harder_subset` leaves out, as it was asked to."""
    at_levels = index.problems[np.isin(index.levels, config.levels)]
    problems = len(np.unique(at_levels))
    ledger.take(_UNIT, len(index))
    ledger.drop(_UNIT, "other_level", len(index) - len(at_levels), selected=True)
    ledger.drop(_UNIT, "not_longest_of_problem", len(at_levels) - problems, selected=True)
    ledger.drop(_UNIT, "beyond_count", problems - subset, selected=True)
