"""Documents: token ids that a model reads from their beginning, and which of them are trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Bool, Int

from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.types import Example, Problem


class TrainedPart(StrEnum):
    """Which tokens of a document carry loss."""

    SEQUENCE = "sequence"
    COMPLETION = "completion"


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """L tokens.

    Attributes:
        token_ids: `[L]` int64.
        loss_mask: `[L]` bool, True = trained token; the first never is, as nothing predicts it.
        prompt_length: Tokens of the prompt with which it begins.
    """

    token_ids: Int[np.ndarray, " L"]
    loss_mask: Bool[np.ndarray, " L"]
    prompt_length: int

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def trained_tokens(self) -> int:
        return int(self.loss_mask.sum())


def document_of(*examples: Example, trained: TrainedPart = TrainedPart.COMPLETION) -> Document:
    """One document of examples in a row, of which each sees those before it.

    Raises:
        ValueError: They have no token.
    """
    parts = [part for one in examples for part in (one.prompt_ids, one.completion_ids)]
    lengths = [len(part) for part in parts]
    token_ids = np.array([token for part in parts for token in part], dtype=np.int64)
    if not len(token_ids):
        raise ValueError("a document needs at least one token")
    carries = [trained is TrainedPart.SEQUENCE, True] * len(examples)
    loss_mask = np.repeat(carries, lengths)
    loss_mask[0] = False
    return Document(token_ids, loss_mask, lengths[0])


def drop_too_long(
    problems: Sequence[Problem],
    lengths: Sequence[int],
    max_tokens: int | None,
    unit: str,
    ledger: Ledger,
    key: str,
) -> list[int]:
    """Indices of what has at most `max_tokens`; the ledger counts the others as too long.

    Args:
        problems: Of each thing, whose origin names it.
        lengths: Tokens of each.
        max_tokens: None = everything fits.
        unit: What the ledger calls the things, which it has taken.
        ledger: The stage's.
        key: The config key of `max_tokens`.

    Raises:
        UserError: The ledger has nothing left of the unit.
    """
    bound = max(lengths, default=0) if max_tokens is None else max_tokens
    too_long = [index for index, length in enumerate(lengths) if length > bound]
    if too_long:
        longest = max(too_long, key=lengths.__getitem__)
        rows = [
            {
                "origin": problems[index].origin,
                "prompt": problems[index].prompt,
                "tokens": lengths[index],
            }
            for index in too_long
        ]
        ledger.drop(
            unit,
            "too_long",
            len(too_long),
            rows=rows,
            tokens=lengths[longest],
            longest=problems[longest].origin,
        )
    ledger.require_passed(unit, f"{key}={max_tokens}", "raise it")
    return [index for index, length in enumerate(lengths) if length <= bound]
