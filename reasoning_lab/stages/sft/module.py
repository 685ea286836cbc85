"""Fine-tune on a compact, harder subset: not packed, loss on the completion and its end.

Each document is one example, so the model meets the end of every thought where it will have to
write it: this is where it learns when to stop.
"""

import numpy as np

from reasoning_lab.config.problems import in_words, known_count
from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.data.curation.selection import at_levels, harder_subset
from reasoning_lab.data.rollout_index import RolloutIndex
from reasoning_lab.data.tokens.automatic import length_table, token_limit
from reasoning_lab.data.tokens.limits import drop_too_long
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.stage import Metrics
from reasoning_lab.models.policy import context_tokens
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.stages.sft.stage import SFTStage
from reasoning_lab.training.completion_limit import DOCUMENT_TOKENS
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.next_token_training import train_next_token
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
    )
    return {**metrics, DOCUMENT_TOKENS: table, "max_tokens": max_tokens}


def _count_subset(index: RolloutIndex, subset: int, config: SFTStage, ledger: Ledger) -> None:
    """Count what `harder_subset` leaves out, as it was asked to."""
    eligible = index.problems[at_levels(index.levels, config.levels)]
    problems = len(np.unique(eligible))
    ledger.take(_UNIT, len(index))
    ledger.drop(_UNIT, "other_level", len(index) - len(eligible), selected=True)
    ledger.drop(_UNIT, "not_longest_of_problem", len(eligible) - problems, selected=True)
    ledger.drop(_UNIT, "beyond_count", problems - subset, selected=True)
