"""Next-token training shared by the stages whose loss is cross-entropy."""

from collections.abc import Callable, Sequence
from statistics import fmean

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.config.optimization import OptimizationConfig
from reasoning_lab.data.tokens.batches import token_batch
from reasoning_lab.data.tokens.documents import Document
from reasoning_lab.graph.stage import Metrics
from reasoning_lab.kernels.logprobs import mean_logprob, trained_logits
from reasoning_lab.system.ranks import world_size
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.loop import PolicyModule, fit, micro_batches_per_step, save_trained
from reasoning_lab.training.micro_batches import MicroBatch, PlannedBatches, micro_batches
from reasoning_lab.training.step_plan import in_steps, step_plan

TokenLoss = Callable[[Tensor, Tensor], Tensor]


class NextTokenModule(PolicyModule):
    """Minimises a mean loss over each step's trained tokens.

    Args:
        policy, optimization, stage: As in `PolicyModule`.
        loss: Of `[K, V]` float32 logits and `[K]` int64 targets: their mean, with the logits of
            all trained tokens in memory; None = the next-token loss, which needs those of some
            at a time. Validation takes the next-token loss, whatever trains.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        optimization: OptimizationConfig,
        stage: str,
        loss: TokenLoss | None = None,
    ) -> None:
        super().__init__(policy, optimization, stage)
        self._loss = loss

    def training_step(self, batch: MicroBatch, index: int) -> Tensor:
        if self._loss is None:
            mean = -mean_logprob(self.policy, batch.tokens)
        else:
            mean = self._loss(*trained_logits(self.policy, batch.tokens))
        loss = mean * batch.weight
        tokens = float(len(batch.tokens.input_ids) * self.parts)
        self.log_train({"loss": loss.detach(), "tokens": tokens})
        return loss

    def validation_step(self, batch: MicroBatch, index: int) -> None:
        loss = -mean_logprob(self.policy, batch.tokens)
        # Every rank validates on all of it; the exchange has them agree to the bit.
        self.log(
            "val/loss",
            loss,
            batch_size=int(batch.tokens.loss_mask.sum()),
            prog_bar=True,
            sync_dist=world_size() > 1,
        )


def document_batches(
    rows: Sequence[Sequence[Document]], plan: Sequence[Sequence[int]], accumulation: int
) -> PlannedBatches:
    """Micro-batches of planned rows of documents.

    Args:
        rows: The documents of each row.
        plan: Per step, the rows that it reads.
        accumulation: Micro-batches of a step.
    """

    def make(indices: Sequence[int], weight: float) -> MicroBatch:
        documents = [document for index in indices for document in rows[index]]
        return MicroBatch(tokens=token_batch(documents), weight=weight)

    trained_tokens = [sum(document.trained_tokens for document in row) for row in rows]
    return micro_batches(plan, trained_tokens, accumulation, make)


def train_next_token(
    policy: PreTrainedModel,
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerBase,
    optimization: OptimizationConfig,
    context: StageContext,
    loss: TokenLoss | None = None,
) -> Metrics:
    """Train on documents, `batch_size` of them a step, and write the policy.

    `loss`, as in `NextTokenModule`, is taken on trained tokens only.
    """
    lengths = [len(document) for document in documents]
    optimization = in_steps(optimization, context.name, len(documents), fmean(lengths), "documents")
    plan = step_plan(lengths, optimization, context.seed)
    parts = micro_batches_per_step(optimization.batch_size, context.hardware)
    batches = document_batches([[document] for document in documents], plan, parts)
    module = NextTokenModule(policy, optimization, context.name, loss)
    train_s = fit(module, batches, context, optimization)
    save_trained(module, tokenizer, context)
    return {
        "examples": len(documents),
        "train_tokens": sum(lengths[index] for indices in plan for index in indices),
        "train_s": train_s,
        "planned_rows": optimization.planned_rows,
    }
