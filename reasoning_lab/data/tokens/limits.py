"""Documents that are longer than a stage takes: dropped, split or cut off, and counted."""

import logging

import numpy as np
from jaxtyping import Int

from reasoning_lab.data.corpus import RolloutFile
from reasoning_lab.data.tokens.table import Overlong, TokenTable
from reasoning_lab.graph.ledger import Ledger

log = logging.getLogger(__name__)


def drop_too_long(
    rollouts: RolloutFile,
    lengths: Int[np.ndarray, " D"],
    max_tokens: int | None,
    unit: str,
    ledger: Ledger,
    key: str,
) -> Int[np.ndarray, " K"]:
    """Indices of what has at most `max_tokens`; the ledger counts the others as too long.

    Args:
        rollouts: What each thing was made from.
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
        problems = rollouts.select(too_long).problems()
        dropped = [
            {"origin": problem.origin, "prompt": problem.transcript, "tokens": count}
            for count, problem in zip(tokens, problems, strict=True)
        ]
        longest = dropped[tokens.index(max(tokens))]["origin"]
        ledger.drop(
            unit, "too_long", len(dropped), rows=dropped, tokens=max(tokens), longest=str(longest)
        )
    ledger.require_passed(unit, f"{key}={max_tokens}", "raise it")
    return np.flatnonzero(fits)


def fit_to_rows(
    rollouts: RolloutFile,
    documents: TokenTable,
    row_tokens: int,
    overlong: Overlong,
    unit: str,
    ledger: Ledger,
    stage: str,
) -> TokenTable:
    """The documents with at most `row_tokens` tokens each; `overlong` says what becomes of others.

    The ledger, which has taken `unit`, counts what is dropped: documents, tokens that are cut off,
    and pieces without a trained token. The log says how many documents are split.

    Args:
        rollouts: What each document was made from.
        documents: All of them.
        row_tokens: Tokens of a row.
        overlong: What is chosen.
        unit: `documents`, or `validation_documents`.
        ledger: The stage's.
        stage: Its name, for messages.

    Raises:
        UserError: Nothing is left.
    """
    key = f"stages.{stage}.row_tokens"
    if overlong is Overlong.DROP:
        return documents.select(
            drop_too_long(rollouts, documents.lengths, row_tokens, unit, ledger, key)
        )
    pieces = documents.pieces(row_tokens, overlong)
    count = int((documents.lengths > row_tokens).sum())
    if overlong is Overlong.TRUNCATE and count:
        tokens = int(documents.lengths.sum())
        cut_unit = unit.replace("documents", "tokens")
        ledger.take(cut_unit, tokens)
        ledger.drop(cut_unit, "truncated", tokens - int(pieces.lengths.sum()))
    if overlong is Overlong.SPLIT and count:
        parts = count + len(pieces) - len(documents)
        log.info("%s: %d %s are longer and split into %d.", key, count, unit, parts)
    trained = np.flatnonzero(pieces.trained_tokens)
    piece_unit = unit.replace("documents", "pieces")
    ledger.take(piece_unit, len(pieces))
    ledger.drop(piece_unit, "no_trained_token", len(pieces) - len(trained))
    ledger.require_passed(piece_unit, f"{key}={row_tokens}", "raise it")
    return pieces.select(trained)
