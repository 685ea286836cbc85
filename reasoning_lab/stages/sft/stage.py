"""The `sft` stage: fine-tuning on a compact, harder subset (paper, step 2)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from reasoning_lab.config.fields import ALL, AUTO, at_least, number
from reasoning_lab.config.problems import CorpusSelection, DocumentLimit, known_count
from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.training.stage import OfflineStage


@dataclass
class SFTStage(OfflineStage):
    """Which accepted rollouts are learned from.

    Attributes:
        levels: Difficulty levels of the subset; null = all.
        count: Its most examples; `all` = one of each problem.
        max_tokens: Examples with more, prompt and completion together, are left out of it; null =
            none is, `auto` = as for `row_tokens` of `midtrain`.
        validate_every_steps: Optimizer steps between two measurements of the loss on the corpus's
            validation rollouts, at the levels of `validation`; null = it is not measured.
        validation_batch_rows: Rollouts a batch of these.
    """

    name = "sft"
    implementation = "reasoning_lab.stages.sft.module.run"
    consumes = (Policy, Corpus)
    produces = Policy
    reads = ("model",)
    version = 2

    levels: list[int] | None = MISSING
    count: int | str = at_least(1, ALL)
    max_tokens: int | str | None = number(None, least=2, when_set=True, words=[AUTO])
    validate_every_steps: int | None = number(None, least=1, when_set=True)
    validation_batch_rows: int = number(8, least=1, placement=True)

    @property
    def has_validation_loss(self) -> bool:
        return self.validate_every_steps is not None

    @property
    def validation_levels(self) -> Sequence[int] | None:
        return self.validation.levels or self.levels

    def corpus_selections(self, key: str) -> list[CorpusSelection]:
        return [CorpusSelection(f"{key}.levels", self.levels)]

    def document_limit(self, key: str) -> DocumentLimit | None:
        if self.max_tokens is None or isinstance(self.max_tokens, str):
            return None
        return DocumentLimit(f"{key}.max_tokens", self.max_tokens)

    def epoch_rows(self, input_rows: Mapping[str, int | None]) -> int | None:
        rollouts = input_rows.get(Corpus.kind)
        known = [rows for rows in (known_count(self.count), rollouts) if rows is not None]
        return min(known, default=None)

    def row_tokens_at_most(self) -> int | None:
        return None if isinstance(self.max_tokens, str) else self.max_tokens

    def token_loss(self) -> Callable[..., Any] | None:
        """What is minimised, of `[K, V]` logits and `[K]` targets; None = the next-token loss."""
        return None
