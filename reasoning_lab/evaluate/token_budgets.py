"""pass@1 by token budget: what a completion cut at a part of its token limit would have got.

An answer counts if it is given within the budget. A longer completion is cut there, decoded and
verified again, as if the limit had ended it; a shorter one keeps its verdict.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from transformers import PreTrainedTokenizerBase

from reasoning_lab.evaluate.completion_metrics import PREFIX
from reasoning_lab.evaluate.statistics import mean_with_interval
from reasoning_lab.sampling.engine import completions_of
from reasoning_lab.types import Rollout, RolloutGroup, Verdict
from reasoning_lab.verify import Verifier

_BATCH_GROUPS = 128


def budget_means(
    budgets: Sequence[float],
    max_new_tokens: int,
    groups: Iterable[RolloutGroup],
    tokenizer: PreTrainedTokenizerBase,
    verifier: Verifier,
    thought_prefix: str = "",
) -> dict[str, list[float] | None]:
    """pass@1 within each budget and the ends of its 95% interval, by `metric/pass@1 at BUDGET`.

    Args:
        budgets: Parts of `max_new_tokens`, from 0 to 1.
        max_new_tokens: Under which the completions were drawn.
        groups: One a problem; read once. None is the value of fewer than two problems, and where a
            completion has no tokens, as a server's may.
        tokenizer: The policy's.
        verifier: Reads the answers of what was cut.
        thought_prefix: What the chat template writes of a thought before a completion.
    """
    of_problems: dict[float, list[float]] = {budget: [] for budget in budgets}
    has_tokens = True
    remaining = iter(groups)
    while batch := list(islice(remaining, _BATCH_GROUPS)):
        rollouts = [rollout for group in batch for rollout in group.rollouts]
        has_tokens &= all(rollout.completion.token_ids for rollout in rollouts)
        for budget in budgets:
            tokens = int(budget * max_new_tokens)
            correct = _correct(rollouts, tokens, tokenizer, verifier, thought_prefix)
            for group in batch:
                of_group = [next(correct) for _ in group.rollouts]
                of_problems[budget].append(float(np.mean(of_group)))
    return {
        f"{PREFIX}pass@1 at {budget:g}": mean_with_interval(means)
        if has_tokens and len(means) > 1
        else None
        for budget, means in of_problems.items()
    }


def _correct(
    rollouts: Sequence[Rollout],
    tokens: int,
    tokenizer: PreTrainedTokenizerBase,
    verifier: Verifier,
    thought_prefix: str,
) -> Iterator[bool]:
    """Whether each rollout is correct within its first `tokens` tokens."""
    longer = [rollout for rollout in rollouts if len(rollout.completion.token_ids) > tokens]
    outputs = [(list(one.completion.token_ids[:tokens]), (), True) for one in longer]
    cut = completions_of(tokenizer, outputs) if outputs else []
    texts = [thought_prefix + completion.text for completion in cut]
    verdicts = iter(verifier.verify([one.problem for one in longer], texts))
    for rollout in rollouts:
        is_cut = len(rollout.completion.token_ids) > tokens
        verdict = next(verdicts)[1] if is_cut else rollout.verdict
        yield verdict is Verdict.CORRECT
