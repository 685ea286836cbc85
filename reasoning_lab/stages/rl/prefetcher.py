"""Rollouts of the next step while this one trains, from a copy of the policy.

The copy takes the policy's weights before each update. What a step learns from was therefore
sampled exactly one update ago, however fast the machine is.
"""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from transformers import PreTrainedModel

from reasoning_lab.models.adapters import trainable_weights
from reasoning_lab.stages.rl.records import PromptBatch, StepRollouts
from reasoning_lab.stages.rl.rollouts import RolloutCollector
from reasoning_lab.training.strategies import copy_weights, sampling_model


class RolloutPrefetcher:
    """Gives each step its rollouts; with `staleness` 1 they are sampled during the step before.

    Args:
        policy: The policy that learns.
        staleness: 0 = each step's rollouts are sampled when it begins.
        strategy: `hardware.strategy`.

    Attributes:
        sampling_policy: The model that samples: the policy itself, or a copy; see `sampling_model`.
    """

    def __init__(self, policy: PreTrainedModel, staleness: int, strategy: str) -> None:
        self._policy = policy
        self._prefetches = staleness > 0
        self.sampling_policy = sampling_model(policy, strategy, is_apart=self._prefetches)
        self._policy_version = 0
        self._pending: Future[StepRollouts] | None = None
        self._worker = ThreadPoolExecutor(1)

    def rollouts(
        self, collector: RolloutCollector, batch: PromptBatch, policy_version: int
    ) -> StepRollouts:
        """The step's rollouts; sampling for `batch.next_batch` begins in the background.

        `collector` samples with `sampling_policy`; the policy has seen `policy_version` updates.
        """
        if not self._prefetches:
            self.update()
            return collector.collect(batch, policy_version)
        pending, self._pending = self._pending, None
        step_rollouts = (
            pending.result() if pending else collector.collect(batch, self._policy_version)
        )
        self.update()
        self._policy_version = policy_version
        if batch.next_batch is not None:
            self._pending = self._worker.submit(collector.collect, batch.next_batch, policy_version)
        return step_rollouts

    def update(self) -> None:
        """Bring what samples up to the policy's weights; every rank calls it."""
        copy_weights(self._policy, self.sampling_policy)

    def close(self) -> None:
        """Wait for rollouts that are still being sampled."""
        self._worker.shutdown(cancel_futures=True)

    def state_dict(self) -> dict[str, Any]:
        """The weights, and their version, that sample the next step's rollouts."""
        weights = trainable_weights(self.sampling_policy) if self._prefetches else {}
        return {"policy_version": self._policy_version, "weights": weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._policy_version = state["policy_version"]
        if self._prefetches:
            self.sampling_policy.load_state_dict(state["weights"], strict=False)
