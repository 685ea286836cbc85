"""Limits in tokens that follow from the documents themselves: `auto` in place of a number."""

import logging
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

log = logging.getLogger(__name__)

_QUANTILES = {"50%": 0.5, "90%": 0.9, "99%": 0.99, "longest": 1.0}
_HELD = "99%"
_STEP_TOKENS = 256


def length_table(lengths: Int[np.ndarray, " D"]) -> dict[str, int]:
    """How long documents are: the tokens that half of them, 90%, 99% and all of them have at most.

    `lengths` are the tokens of each document, of which there is one.
    """
    tokens = np.quantile(lengths, list(_QUANTILES.values()), method="inverted_cdf")
    return dict(zip(_QUANTILES, map(int, tokens), strict=True))


def automatic_limit(table: Mapping[str, int], context_tokens: int | None) -> int:
    """The smallest multiple of 256 tokens that holds 99% of the documents.

    Args:
        table: Of `length_table`.
        context_tokens: The longest text that the model reads, which the limit does not exceed;
            None = any.
    """
    limit = -(-table[_HELD] // _STEP_TOKENS) * _STEP_TOKENS
    return limit if context_tokens is None else min(limit, context_tokens)


def token_limit(
    limit: int | str | None, table: Mapping[str, int], context_tokens: int | None, key: str
) -> int | None:
    """`limit`, or what `auto` is for documents of these lengths, which the log says.

    Args:
        limit: As `key` of the config has it; None = any document fits.
        table: Of `length_table`.
        context_tokens: As in `automatic_limit`.
        key: For the log.
    """
    if not isinstance(limit, str):
        return limit
    tokens = automatic_limit(table, context_tokens)
    lengths = ", ".join(f"{share} {count:,}" for share, count in table.items())
    log.info("%s=%s is %s tokens; documents have %s.", key, limit, f"{tokens:,}", lengths)
    return tokens
