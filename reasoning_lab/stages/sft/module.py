"""Fine-tune on a compact, harder subset: not packed, loss on the completion and its end.

Each row is one example, so the model meets the end of every thought where it will have to
write it: this is where it learns when to stop.
"""

from reasoning_lab.data.corpus import read_rollouts
from reasoning_lab.data.curation import harder_subset
from reasoning_lab.models.tokenizer import examples_of
from reasoning_lab.stages.base import Metrics, StageContext
from reasoning_lab.stages.sft.config import SFTConfig
from reasoning_lab.stages.tokens import train_padded
from reasoning_lab.types import UserError


def run(config: SFTConfig, context: StageContext) -> Metrics:
    """Write the fine-tuned policy."""
    policy, tokenizer = context.load_student()
    accepted = read_rollouts(context.inputs["corpus"] / "accepted.parquet")
    subset = harder_subset(accepted, config.levels, config.count, context.seed)
    if not subset:
        raise UserError(
            f"stages.{context.name}.levels: the corpus has no accepted rollout at levels "
            f"{list(config.levels)}; choose levels that were distilled"
        )
    rows = [
        [example]
        for example in examples_of(tokenizer, subset)
        if config.max_tokens is None or example.length <= config.max_tokens
    ]
    if not rows:
        raise UserError(
            f"stages.{context.name}.max_tokens: none of {len(subset)} examples has "
            f"{config.max_tokens} tokens or fewer; raise it"
        )
    return train_padded(policy, rows, tokenizer, config.optimization, context)
