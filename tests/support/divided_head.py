"""What torchrun starts for test_distributed_logits: two ranks under ZeRO-3, a step of each kind.

Each rank has a number of tokens of its own, and so a number of chunks of its own. It writes what
it computed beside what one process computes from all logits at once.
"""

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from reasoning_lab.data.tokens.batches import token_batch
from reasoning_lab.data.tokens.documents import TrainedPart, document_of
from reasoning_lab.kernels import logit_chunks
from reasoning_lab.kernels.batch import TokenBatch
from reasoning_lab.kernels.binding import bind_kernels
from reasoning_lab.kernels.logprobs import (
    mean_logprob,
    token_entropies,
    token_logprobs,
    token_logprobs_and_entropies,
)
from reasoning_lab.types import Example
from tests.support.tensors import gradient_of, largest_allocation
from tests.support.tiny import tiny_model

# DeepSpeed divides a projection of more than 100,000 weights.
VOCAB, AT_ONCE = 4000, 50
DOCUMENTS, LENGTH = (3, 20), 31

Step = Callable[[PreTrainedModel, TokenBatch], Tensor]
STEPS: dict[str, Step] = {
    "mean": mean_logprob,
    "tokens": lambda model, batch: token_logprobs(model, batch, 0.7).square().mean(),
    "entropies": lambda model, batch: (
        torch.stack(token_logprobs_and_entropies(model, batch, 0.7)).square().mean()
    ),
    "read": lambda model, batch: (
        token_logprobs(model, batch).mean() + token_entropies(model, batch, 0.7).mean()
    ),
}


class Whole(nn.Module):
    """What the engine wraps: a model, of which any function may be computed."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, step: Step, batch: TokenBatch) -> Tensor:
        return step(self.model, batch)


def batch_of(documents: int) -> TokenBatch:
    generator = torch.Generator().manual_seed(documents)
    ids = torch.randint(2, VOCAB, (documents, LENGTH), generator=generator).tolist()
    return token_batch([document_of(Example([], row), trained=TrainedPart.SEQUENCE) for row in ids])


def expected_of(model: PreTrainedModel, step: Step) -> tuple[list[float], dict[str, Tensor]]:
    """Each rank's value, and the gradient of their mean, from all logits at once."""
    model.zero_grad()
    values = [step(model, batch_of(documents)) for documents in DOCUMENTS]
    torch.stack(values).mean().backward()
    gradients = {name: gradient_of(weight).clone() for name, weight in model.named_parameters()}
    return [value.item() for value in values], gradients


def main() -> None:
    import deepspeed
    from deepspeed.utils import safe_get_full_grad

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo")
    rank = torch.distributed.get_rank()
    model = tiny_model("llama", VOCAB, 0, 1, seed=0)
    bind_kernels(model)
    alone = copy.deepcopy(model)
    expected = {name: expected_of(alone, step) for name, step in STEPS.items()}
    logit_chunks.LOGITS_AT_ONCE = AT_ONCE * VOCAB
    engine, *_ = deepspeed.initialize(
        model=Whole(model),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
        config={
            "zero_optimization": {"stage": 3},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "train_micro_batch_size_per_gpu": 1,
        },
    )
    assert model.lm_head.weight.numel() == 0
    results = []
    # Twice, so that what is fetched ahead on a repeated path is fetched as well.
    for name in [*STEPS, *STEPS]:
        values, gradients = expected[name]
        batch = batch_of(DOCUMENTS[rank])
        value: list[float] = []

        def run(
            step: Step = STEPS[name], batch: TokenBatch = batch, value: list[float] = value
        ) -> None:
            loss = engine(step, batch)
            engine.backward(loss)
            value.append(loss.item())

        largest = largest_allocation(run)
        differences = [
            float((safe_get_full_grad(weight) - gradients[key]).abs().max())
            for key, weight in model.named_parameters()
        ]
        engine.step()
        results.append(
            {
                "step": name,
                "value": value[0] - values[rank],
                "gradient": max(differences),
                "largest_gradient": max(float(slope.abs().max()) for slope in gradients.values()),
                "largest_bytes": largest,
                "logits_bytes": 4 * VOCAB * int(batch.loss_mask.sum()),
            }
        )
    Path(sys.argv[1], f"{rank}.json").write_text(json.dumps(results))
    # A rank that ends before the other has closed its connections breaks them under it.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
