"""The `midtrain` stage: next-token training on every accepted chain of thought (paper, step 1)."""

from collections.abc import Mapping
from dataclasses import dataclass

from reasoning_lab.config.fields import AUTO, at_least, choice, number
from reasoning_lab.config.problems import DocumentLimit
from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.training.stage import OfflineStage


@dataclass
class MidtrainStage(OfflineStage):
    """How the corpus is packed and when training stops.

    Attributes:
        row_tokens: Tokens of a packed row; `optimization.batch_size` counts rows. `auto` = the
            smallest multiple of 256 that holds 99% of the documents, at most the model's context.
        trained: Which tokens carry loss: sequence (the paper) or completion.
        overlong: What becomes of a document with more tokens than a row: drop, split
            (each part is read on its own) or truncate.
        patience: Validations without a lower loss before training stops. Where the corpus has no
            validation rollout, it does not stop early.
        decay_on_stop: Periods between two validations over which the learning rate falls to 0
            before training stops early; 0 = it stops at once, at the rate that it has.
        validate_every_steps: Optimizer steps between two validations; a shorter training has one,
            at its end.
        validation_batch_rows: Rows a validation batch.
    """

    name = "midtrain"
    implementation = "reasoning_lab.stages.midtrain.module.run"
    consumes = (Policy, Corpus)
    produces = Policy
    reads = ("model",)
    version = 4
    packs_rows = True

    row_tokens: int | str = at_least(2, AUTO)
    trained: str = choice("sequence", "completion")
    overlong: str = choice("drop", "split", "truncate")
    patience: int = at_least(1)
    decay_on_stop: int = number(1, least=0)
    validate_every_steps: int = at_least(1)
    validation_batch_rows: int = number(8, least=1, placement=True)

    @property
    def has_validation_loss(self) -> bool:
        return True

    @property
    def tokens_of_row(self) -> int:
        """Tokens of a row, once `auto` is a number.

        Raises:
            ValueError: It is none yet.
        """
        if isinstance(self.row_tokens, str):
            raise ValueError(f"how many tokens are {self.row_tokens}? ask token_limit")
        return self.row_tokens

    def document_limit(self, key: str) -> DocumentLimit | None:
        if self.overlong != "drop" or isinstance(self.row_tokens, str):
            return None
        return DocumentLimit(f"{key}.row_tokens", self.row_tokens)

    def epoch_rows(self, input_rows: Mapping[str, int | None]) -> int | None:
        """At worst each rollout fills a row; how many one is split into is not known."""
        return None if self.overlong == "split" else input_rows.get(Corpus.kind)

    def row_tokens_at_most(self) -> int | None:
        return None if isinstance(self.row_tokens, str) else self.row_tokens
