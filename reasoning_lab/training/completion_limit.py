"""The most tokens of a completion where the config leaves it to the data: `auto`."""

import logging

from reasoning_lab.data.tokens.automatic import automatic_limit
from reasoning_lab.models.policy_artifact import Policy

log = logging.getLogger(__name__)

# The metric of a training stage's record that says how long its documents were.
DOCUMENT_TOKENS = "document_tokens"
# Of a policy that was trained on no document here; engines end a text at the model's own context.
_UNTRAINED_TOKENS = 4096


def completion_limit(limit: int | str, policy: Policy, key: str) -> int:
    """`limit`, or what `auto` is for this policy, which the log says.

    A policy writes about as much as it learned to write. So `auto` is the smallest multiple of 256
    that holds 99% of the documents, prompts included, on which it was trained last. It is 4,096 for
    a policy that was trained on none.

    Args:
        limit: As `key` of the config has it.
        policy: What samples.
        key: For the log.
    """
    if not isinstance(limit, str):
        return limit
    for record in policy.ancestors():
        if table := record.metrics.get(DOCUMENT_TOKENS):
            tokens = automatic_limit(table, None)
            log.info(
                "%s=%s is %s tokens, by the documents that '%s' was trained on (99%%: %s).",
                key,
                limit,
                f"{tokens:,}",
                record.stage,
                f"{table['99%']:,}",
            )
            return tokens
    log.info("%s=%s is %s tokens.", key, limit, f"{_UNTRAINED_TOKENS:,}")
    return _UNTRAINED_TOKENS
