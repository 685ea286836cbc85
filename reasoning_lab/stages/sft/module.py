"""Fine-tune on a compact, harder subset: not packed, loss on the completion and its end.

Each document is one example, so the model meets the end of every thought where it will have to
write it: this is where it learns when to stop.
"""

import numpy as np

from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.data.curation.selection import harder_subset
from reasoning_lab.data.rollout_index import RolloutIndex
from reasoning_lab.data.tokens.limits import drop_too_long
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.stage import Metrics
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.stages.sft.stage import SFTStage
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.next_token_training import train_next_token
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
    documents = context.documents(subset, tokenizer)
    short = drop_too_long(
        subset,
        documents.lengths,
        config.max_tokens,
        _UNIT,
        context.ledger,
        f"stages.{context.name}.max_tokens",
    )
    return train_next_token(
        student,
        documents.select(short),
        tokenizer,
        config.optimization,
        context,
        config.token_loss(),
    )


def _count_subset(index: RolloutIndex, subset: int, config: SFTStage, ledger: Ledger) -> None:
    """Count what `harder_subset` leaves out, as it was asked to."""
    at_levels = index.problems[np.isin(index.levels, config.levels)]
    problems = len(np.unique(at_levels))
    ledger.take(_UNIT, len(index))
    ledger.drop(_UNIT, "other_level", len(index) - len(at_levels), selected=True)
    ledger.drop(_UNIT, "not_longest_of_problem", len(at_levels) - problems, selected=True)
    ledger.drop(_UNIT, "beyond_count", problems - subset, selected=True)
