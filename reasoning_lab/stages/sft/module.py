"""Fine-tune on a compact, harder subset: not packed, loss on the completion and its end.

Each document is one example, so the model meets the end of every thought where it will have to
write it: this is where it learns when to stop.
"""

from collections.abc import Sequence

from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.data.curation.selection import harder_subset
from reasoning_lab.data.tokens.documents import document_of, drop_too_long
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.stage import Metrics
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.models.tokenizer import tokenize_rollouts
from reasoning_lab.stages.sft.stage import SFTStage
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.next_token_training import train_next_token
from reasoning_lab.types import Rollout, UserError

_UNIT = "rollouts"


def run(config: SFTStage, context: StageContext, policy: Policy, corpus: Corpus) -> Metrics:
    """Write the fine-tuned policy."""
    student, tokenizer = context.load_student(policy)
    accepted = corpus.accepted()
    subset = harder_subset(accepted, config.levels, config.count, context.seed)
    _count_subset(accepted, subset, config, context.ledger)
    if not subset:
        raise UserError(
            f"stages.{context.name}.levels: the corpus has no accepted rollout at levels "
            f"{list(config.levels)}; choose levels that were distilled"
        )
    examples = tokenize_rollouts(tokenizer, subset)
    problems = [rollout.problem for rollout in subset]
    lengths = [example.length for example in examples]
    key = f"stages.{context.name}.max_tokens"
    short = drop_too_long(problems, lengths, config.max_tokens, _UNIT, context.ledger, key)
    documents = [document_of(examples[index]) for index in short]
    return train_next_token(
        student, documents, tokenizer, config.optimization, context, config.token_loss()
    )


def _count_subset(
    accepted: Sequence[Rollout], subset: Sequence[Rollout], config: SFTStage, ledger: Ledger
) -> None:
    """Count what `harder_subset` leaves out, as it was asked to."""
    levels = [rollout for rollout in accepted if rollout.problem.level in config.levels]
    problems = len({rollout.problem.id for rollout in levels})
    ledger.take(_UNIT, len(accepted))
    ledger.drop(_UNIT, "other_level", len(accepted) - len(levels), selected=True)
    ledger.drop(_UNIT, "not_longest_of_problem", len(levels) - problems, selected=True)
    ledger.drop(_UNIT, "beyond_count", problems - len(subset), selected=True)
