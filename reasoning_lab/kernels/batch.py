"""Documents in one row: what every training stage reads.

Documents stand one behind the other, without padding, and none reads another. Packed documents,
padded ones and those that share a prompt are one batch; how it reaches a model is decided by the
kernels that the model has (`reasoning_lab.kernels.rows`).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """D documents of N tokens together, of which K are trained.

    Attributes:
        input_ids: `[N]` int64.
        cu_seqlens: `[D + 1]` int32, where each document begins, and N. On the CPU wherever the
            batch is, since kernels plan by it.
        loss_mask: `[N]` bool, True = trained token; a document's first is never one.
        first_reads: `[N]` int64, as which token each is read: as itself, or, within a prompt with
            which an earlier document begins, as that one's. On the CPU. None = no prompt is
            shared.
    """

    input_ids: Int[Tensor, " N"]
    cu_seqlens: Int[Tensor, " D+1"]
    loss_mask: Bool[Tensor, " N"]
    first_reads: Int[Tensor, " N"] | None = None

    def to(self, device: torch.device) -> "TokenBatch":
        return TokenBatch(
            self.input_ids.to(device),
            self.cu_seqlens,
            self.loss_mask.to(device),
            self.first_reads,
        )

    @property
    def lengths(self) -> Int[Tensor, " D"]:
        """Tokens of each document; on the CPU."""
        return self.cu_seqlens.diff().long()

    @property
    def position_ids(self) -> Int[Tensor, " N"]:
        """Each token's place in its document; on the CPU."""
        starts = self.cu_seqlens[:-1].long().repeat_interleave(self.lengths)
        return torch.arange(len(starts)) - starts

    @property
    def trained_lengths(self) -> Int[Tensor, " D"]:
        """Trained tokens of each document."""
        before = torch.nn.functional.pad(self.loss_mask.cumsum(0), (1, 0))
        return before[self.cu_seqlens.to(before.device, torch.int64)].diff()

    def sum_by_document(self, values: Float[Tensor, " K"]) -> Float[Tensor, " D"]:
        """The sum of each document's trained tokens; 0 where it has none."""
        return torch.segment_reduce(values, "sum", lengths=self.trained_lengths, initial=0)
