"""Documents: token ids that a model reads from their beginning, and which of them are trained."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Bool, Int

from reasoning_lab.types import Example


class TrainedPart(StrEnum):
    """Which tokens of a document carry loss."""

    SEQUENCE = "sequence"
    COMPLETION = "completion"


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """L tokens.

    Attributes:
        token_ids: `[L]` int32 or int64.
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
