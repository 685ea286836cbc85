"""Next-token training shared by the stages whose loss is cross-entropy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.config.optimization import OptimizationConfig
from reasoning_lab.data.tokens.batches import padded_rows, row_length
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.kernels.logprobs import TokenBatch, mean_logprob, trained_logits
from reasoning_lab.system.ranks import world_size
from reasoning_lab.training.loop import (
    Metrics,
    PolicyModule,
    StageContext,
    fit,
    parts_of,
    save_trained,
)
from reasoning_lab.training.micro_batches import Steps
from reasoning_lab.training.schedules import OptimizerFactory, Schedule, optimizer_of, schedule_of
from reasoning_lab.training.step_plan import in_steps, step_plan
from reasoning_lab.types import Example, Problem

TokenLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class NextTokenBatch:
    """One micro-batch.

    Attributes:
        tokens: Its rows.
        weight: Its trained tokens, as a multiple of the mean over the step's micro-batches;
            with it, accumulated gradients are those of the undivided step.
    """

    tokens: TokenBatch
    weight: float

    def to(self, device: torch.device) -> "NextTokenBatch":
        return NextTokenBatch(self.tokens.to(device), self.weight)


class NextTokenModule(PolicyModule):
    """Minimises a mean loss over each step's trained tokens.

    Args:
        policy: As in `PolicyModule`.
        optimizer: As in `PolicyModule`.
        schedule: As in `PolicyModule`.
        loss: Of `[N, V]` float32 logits and `[N]` int64 targets: their mean, with the logits of
            all trained tokens in memory; None = the next-token loss, which needs those of some
            at a time. Validation takes the next-token loss, whatever trains.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        loss: TokenLoss | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self._loss = loss

    def training_step(self, batch: NextTokenBatch, index: int) -> Tensor:
        if self._loss is None:
            mean = -mean_logprob(self.policy, batch.tokens)
        else:
            mean = self._loss(*trained_logits(self.policy, batch.tokens))
        loss = mean * batch.weight
        tokens = float(batch.tokens.input_ids.numel() * self.parts)
        self.log_train({"loss": loss.detach(), "tokens": tokens})
        return loss

    def validation_step(self, batch: NextTokenBatch, index: int) -> None:
        loss = -mean_logprob(self.policy, batch.tokens)
        # Every rank validates on all of it; the exchange has them agree to the bit.
        self.log(
            "val/loss",
            loss,
            batch_size=int(batch.tokens.completion_mask.sum()),
            prog_bar=True,
            sync_dist=world_size() > 1,
        )


def fitting(
    problems: Sequence[Problem],
    lengths: Sequence[int],
    max_tokens: int | None,
    unit: str,
    ledger: Ledger,
) -> list[int]:
    """Indices of what has at most `max_tokens`; the others are dropped as too long.

    Args:
        problems: Of each thing, whose origin names it.
        lengths: Tokens of each.
        max_tokens: None = everything fits.
        unit: What the ledger calls the things, which it has taken.
        ledger: The stage's.
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
    return [index for index, length in enumerate(lengths) if length <= bound]


def micro_batches(
    plan: Sequence[Sequence[int]],
    collate: Callable[[Sequence[int]], TokenBatch],
    trained_tokens: Sequence[int],
    accumulation: int,
) -> Steps:
    """Divide each planned step into `accumulation` micro-batches of equal row counts.

    Args:
        plan: Per step, the rows that it reads.
        collate: Makes the token batch of some rows.
        trained_tokens: Of each row.
        accumulation: Divides every step's row count.
    """
    parts = divided(plan, trained_tokens, accumulation)

    def make(index: Sequence[int]) -> NextTokenBatch:
        rows, weight = parts[index[0]]
        return NextTokenBatch(collate(rows), weight)

    return Steps([[number] for number in range(len(parts))], make)


def divided(
    plan: Sequence[Sequence[int]], trained_tokens: Sequence[int], accumulation: int
) -> list[tuple[Sequence[int], float]]:
    """The rows of each micro-batch, and its trained tokens as a multiple of the step's mean."""
    parts: list[tuple[Sequence[int], float]] = []
    for rows in plan:
        size = len(rows) // accumulation
        step_tokens = sum(trained_tokens[row] for row in rows)
        for start in range(0, len(rows), size):
            micro = rows[start : start + size]
            micro_tokens = sum(trained_tokens[row] for row in micro)
            parts.append((micro, accumulation * micro_tokens / step_tokens))
    return parts


def train_padded(
    policy: PreTrainedModel,
    rows: Sequence[Sequence[Example]],
    tokenizer: PreTrainedTokenizerBase,
    optimization: OptimizationConfig,
    context: StageContext,
    loss: TokenLoss | None = None,
) -> Metrics:
    """Train on padded rows, each one document of examples, and write the policy.

    `loss`, as in `NextTokenModule`, is taken on completions only.
    """
    lengths = [row_length(row) for row in rows]
    optimization = in_steps(optimization, context.name, len(rows), fmean(lengths))
    plan = step_plan(lengths, optimization, context.seed)
    batches = micro_batches(
        plan,
        lambda indices: padded_rows([rows[index] for index in indices], tokenizer.pad_token_id),
        [sum(len(example.completion_ids) for example in row) for row in rows],
        parts_of(optimization.batch_size, context.hardware),
    )
    module = NextTokenModule(
        policy, optimizer_of(optimization, context.name), schedule_of(optimization), loss
    )
    train_s = fit(module, batches, context, optimization)
    save_trained(module, tokenizer, context)
    return {
        "examples": sum(len(row) for row in rows),
        "train_tokens": sum(lengths[index] for indices in plan for index in indices),
        "train_s": train_s,
        "planned_rows": optimization.planned_rows,
    }
