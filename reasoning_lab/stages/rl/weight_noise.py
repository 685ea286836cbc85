"""Noise on the weights that sample, so that a rollout engine is not the trainer, on purpose.

Engines differ from a trainer by kernels and by precision. With noise of a known size one sees what
a policy loss, or an importance weight, bears of that. Rounding to bfloat16 is a relative error of
about 0.001.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class WeightNoise:
    """Gaussian noise, the same on every rank and in a run that was resumed.

    Attributes:
        deviation: Its standard deviation, relative to each weight.
        seed: The run's.
    """

    deviation: float
    seed: int

    def on(
        self, weights: Iterable[tuple[str, Tensor]], policy_version: int
    ) -> Iterator[tuple[str, Tensor]]:
        """Weights with the noise of this version of them, in float32, on their devices."""
        for name, weight in weights:
            key = f"{self.seed}/{policy_version}/{name}/noise"
            # Drawn on the CPU, so that no device decides what it is.
            generator = torch.Generator().manual_seed(random.Random(key).getrandbits(63))
            noise = torch.randn(weight.shape, generator=generator).to(weight.device)
            yield name, weight.float() * (1 + self.deviation * noise)
