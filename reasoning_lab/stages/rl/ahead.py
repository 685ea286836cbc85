"""Rollouts of the next step while this one trains, from a copy of the policy.

The copy takes the policy's weights before each update, so what a step learns from was drawn one
update ago, never at a moment that depends on the machine.
"""

import copy
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from transformers import PreTrainedModel

from reasoning_lab.config.hardware import SHARDED
from reasoning_lab.kernels.binding import mixes_precision
from reasoning_lab.models.adapters import learning_weights
from reasoning_lab.stages.rl.rollouts import Collector, PromptBatch, StepRollouts
from reasoning_lab.training.strategies import copy_weights


class Ahead:
    """Gives each step its rollouts; with `staleness` 1 they are drawn beside the step before.

    Args:
        policy: Learns.
        staleness: 0 = each step's rollouts are drawn when it begins.
        strategy: Of `hardware`; where no process holds whole weights, a copy draws too. So it does
            from a policy of mixed precision, in bfloat16.

    Attributes:
        behaviour: Draws: the policy, or the copy.
    """

    def __init__(self, policy: PreTrainedModel, staleness: int, strategy: str) -> None:
        self._policy = policy
        self._follows = staleness > 0
        mixed = mixes_precision(policy)
        copied = self._follows or strategy in SHARDED or mixed
        self.behaviour = copy.deepcopy(policy).eval() if copied else policy
        for parameter in self.behaviour.parameters() if mixed else ():
            # Not the buffers: positions are too large for bfloat16.
            parameter.data = parameter.data.bfloat16()
        self._version = 0
        self._pending: Future[StepRollouts] | None = None
        self._worker = ThreadPoolExecutor(1)

    def rollouts(self, collector: Collector, batch: PromptBatch, version: int) -> StepRollouts:
        """The step's rollouts; those of `batch.following` are begun.

        Args:
            collector: Samples `behaviour`.
            batch: The step's prompts.
            version: Updates that the policy has seen.
        """
        if not self._follows:
            if self.behaviour is not self._policy:
                copy_weights(self._policy, self.behaviour)
            return collector.collect(batch, version)
        pending, self._pending = self._pending, None
        found = pending.result() if pending else collector.collect(batch, self._version)
        copy_weights(self._policy, self.behaviour)
        self._version = version
        if batch.following is not None:
            self._pending = self._worker.submit(collector.collect, batch.following, version)
        return found

    def close(self) -> None:
        """Wait for what was begun."""
        self._worker.shutdown(cancel_futures=True)

    def state_dict(self) -> dict[str, Any]:
        """What the next step's rollouts are drawn from."""
        weights = learning_weights(self.behaviour) if self._follows else {}
        return {"version": self._version, "weights": weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._version = state["version"]
        if self._follows:
            self.behaviour.load_state_dict(state["weights"], strict=False)
