"""Fine-tune on a compact, harder subset: not packed, loss on the completion and its end.

Each document is one example, so the model meets the end of every thought where it will have to
write it: this is where it learns when to stop.
"""

import numpy as np
from transformers import PreTrainedTokenizerBase

from reasoning_lab.config.problems import in_words, known_count
from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.data.curation.selection import at_levels, harder_subset
from reasoning_lab.data.rollout_index import RolloutIndex
from reasoning_lab.data.tokens.automatic import length_table, token_limit
from reasoning_lab.data.tokens.limits import drop_too_long
from reasoning_lab.data.tokens.packing import Rows
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.stage import Metrics
from reasoning_lab.models.policy import context_tokens
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.stages.sft.stage import SFTStage
from reasoning_lab.training.completion_limit import DOCUMENT_TOKENS
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
    count = known_count(config.count)
    subset = accepted.select(harder_subset(index, config.levels, count, context.seed))
    _count_subset(index, len(subset), config, context.ledger)
    if not len(subset):
        raise UserError(
            f"stages.{context.name}.levels: the corpus has no accepted rollout at "
            f"{in_words(config.levels)}; it has levels {np.unique(index.levels).tolist()}, of "
            "which to choose, and null takes all"
        )
    documents = context.documents(subset, tokenizer)
    table, key = length_table(documents.lengths), f"stages.{context.name}.max_tokens"
    max_tokens = token_limit(config.max_tokens, table, context_tokens(student), key)
    short = drop_too_long(subset, documents.lengths, max_tokens, _UNIT, context.ledger, key)
    metrics = train_next_token(
        student,
        documents.select(short),
        tokenizer,
        config.optimization,
        context,
        config.token_loss(),
        _validation(corpus, tokenizer, max_tokens, config, context),
        config.validate_every_steps,
    )
    return {**metrics, DOCUMENT_TOKENS: table, "max_tokens": max_tokens}


def _validation(
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int | None,
    config: SFTStage,
    context: StageContext,
) -> PlannedBatches | None:
    """The corpus's validation rollouts at `validation_levels`; None = no loss is measured on them.

    Raises:
        UserError: There is none.
    """
    if config.validate_every_steps is None:
        return None
    unit, rollouts = "validation_rollouts", corpus.validation()
    eligible = np.flatnonzero(at_levels(rollouts.index.levels, config.validation_levels))
    if not len(eligible):
        raise UserError(
            f"stages.{context.name}.validate_every_steps: the corpus has no validation rollout at "
            f"{in_words(config.validation_levels)}; it has levels "
            f"{np.unique(rollouts.index.levels).tolist()}, of which to choose in "
            f"stages.{context.name}.validation.levels, or leave it out"
        )
    context.ledger.take(unit, len(rollouts))
    context.ledger.drop(unit, "other_level", len(rollouts) - len(eligible), selected=True)
    chosen = rollouts.select(eligible)
    documents = context.documents(chosen, tokenizer)
    key = f"stages.{context.name}.max_tokens"
    short = drop_too_long(chosen, documents.lengths, max_tokens, unit, context.ledger, key)
    rows = Rows.single(len(short))
    return validation_batches(documents.select(short), rows, config.validation_batch_rows)


def _count_subset(index: RolloutIndex, subset: int, config: SFTStage, ledger: Ledger) -> None:
    """Count what `harder_subset` leaves out, as it was asked to."""
    eligible = index.problems[at_levels(index.levels, config.levels)]
    problems = len(np.unique(eligible))
    ledger.take(_UNIT, len(index))
    ledger.drop(_UNIT, "other_level", len(index) - len(eligible), selected=True)
    ledger.drop(_UNIT, "not_longest_of_problem", len(eligible) - problems, selected=True)
    ledger.drop(_UNIT, "beyond_count", problems - subset, selected=True)
