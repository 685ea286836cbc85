"""Documents that are longer than a stage takes: dropped, split or cut off, and counted."""

import logging
from pathlib import Path

import numpy as np
from jaxtyping import Int

from reasoning_lab.data.corpus import problems_of_rows
from reasoning_lab.data.tokens.table import Overlong, TokenTable
from reasoning_lab.graph.ledger import Ledger

log = logging.getLogger(__name__)


def drop_too_long(
    file: Path,
    rows: Int[np.ndarray, " D"],
    lengths: Int[np.ndarray, " D"],
    max_tokens: int | None,
    unit: str,
    ledger: Ledger,
    key: str,
) -> Int[np.ndarray, " K"]:
    """Indices of what has at most `max_tokens`; the ledger counts the others as too long.

    Args:
        file: Of rollouts.
        rows: The row of the file that each thing was made from, ascending.
        lengths: Tokens of each thing.
        max_tokens: None = everything fits.
        unit: What the ledger calls the things, which it has taken.
        ledger: The stage's.
        key: The config key of `max_tokens`.

    Raises:
        UserError: The ledger has nothing left of the unit.
    """
    fits = np.full(len(lengths), True) if max_tokens is None else lengths <= max_tokens
    too_long = np.flatnonzero(~fits)
    if len(too_long):
        tokens = lengths[too_long].tolist()
        dropped = [
            {"origin": problem.origin, "prompt": problem.prompt, "tokens": count}
            for count, problem in zip(tokens, problems_of_rows(file, rows[too_long]), strict=True)
        ]
        longest = dropped[tokens.index(max(tokens))]["origin"]
        ledger.drop(
            unit, "too_long", len(dropped), rows=dropped, tokens=max(tokens), longest=str(longest)
        )
    ledger.require_passed(unit, f"{key}={max_tokens}", "raise it")
    return np.flatnonzero(fits)


def fit_to_rows(
    file: Path,
    documents: TokenTable,
    row_tokens: int,
    overlong: Overlong,
    unit: str,
    ledger: Ledger,
    stage: str,
) -> TokenTable:
    """The documents with at most `row_tokens` tokens each; `overlong` says what becomes of others.

    The ledger, which has taken `unit`, counts documents that are dropped and tokens that are cut
    off; the log says how many documents are split.

    Raises:
        UserError: Nothing is left.
    """
    key = f"stages.{stage}.row_tokens"
    if overlong is Overlong.DROP:
        rows, lengths = documents.rows, documents.lengths
        return documents.select(drop_too_long(file, rows, lengths, row_tokens, unit, ledger, key))
    pieces = documents.pieces(row_tokens, overlong)
    count = int((documents.lengths > row_tokens).sum())
    if overlong is Overlong.TRUNCATE and count:
        tokens = int(documents.lengths.sum())
        ledger.take("tokens", tokens)
        ledger.drop("tokens", "truncated", tokens - int(pieces.lengths.sum()))
    if overlong is Overlong.SPLIT and count:
        parts = count + len(pieces) - len(documents)
        log.info("%s: %d %s are longer and split into %d.", key, count, unit, parts)
    trained = np.flatnonzero(pieces.trained_tokens)
    ledger.take("pieces", len(pieces))
    ledger.drop("pieces", "no_trained_token", len(pieces) - len(trained), selected=True)
    ledger.require_passed("pieces", f"{key}={row_tokens}", "raise it")
    return pieces.select(trained)
