"""Schema of the `midtrain` stage."""

from dataclasses import dataclass

from reasoning_lab.config.fields import at_least, choice, number
from reasoning_lab.config.schema import DocumentLimit, TrainingConfig, register_stage
from reasoning_lab.types import Sequences


@dataclass
class MidtrainConfig(TrainingConfig):
    """How the corpus is packed and when training stops.

    Attributes:
        row_tokens: Tokens of a packed row; `optimization.batch_size` counts rows.
        trained: Which tokens carry loss: sequence (the paper) or completion.
        patience: Validations without a lower loss before training stops.
        validate_every_steps: Optimizer steps between two validations.
        validation_batch_rows: Rows a validation batch.
    """

    row_tokens: int = at_least(2)
    trained: str = choice("sequence", "completion")
    patience: int = at_least(1)
    validate_every_steps: int = at_least(1)
    validation_batch_rows: int = number(8, least=1, placement=True)
    version: int = 2

    def document_limit(self, key: str) -> DocumentLimit:
        return DocumentLimit(f"{key}.row_tokens", self.row_tokens)

    def training_rows(self) -> Sequences | None:
        size = self.optimization.batch_size
        return Sequences(self.optimization.steps * size, self.row_tokens, size, packed=True)


register_stage("midtrain", MidtrainConfig)
