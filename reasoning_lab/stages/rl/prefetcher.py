"""When each step's rollouts are sampled, and by which weights.

With `staleness` k the rollouts of step t are sampled by the weights that were there before step
t - k, in a thread, while the steps in between train. All is decided by numbers of steps, never by a
clock. So a run learns from the same rollouts however fast the machine is, and a resumed run too.

Here whole steps are sampled ahead: rollouts that are unfinished at an update are finished under the
weights that began them. `partial_rollouts.py` has the other choice.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from reasoning_lab.stages.rl.prompts import PromptPlan
from reasoning_lab.stages.rl.records import PromptBatch, StepRollouts
from reasoning_lab.stages.rl.rollouts import RolloutCollector
from reasoning_lab.stages.rl.saved_rollouts import read_step, saved_step
from reasoning_lab.stages.rl.weight_noise import WeightNoise
from reasoning_lab.system.ranks import Peers, rank
from reasoning_lab.training.strategies import load_weights, snapshot, whole_weights
from reasoning_lab.types import UserError


class RolloutSchedule(ABC):
    """Gives each step its rollouts.

    Args:
        policy: The policy that learns.
        sampling_policy: The model that samples: the policy itself, or a copy; see `sampling_model`.
        noise: On the weights that sample, which are a copy then; None = none.

    Attributes:
        sampling_policy: The same.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        sampling_policy: PreTrainedModel,
        noise: WeightNoise | None,
    ) -> None:
        self._policy, self.sampling_policy, self._noise = policy, sampling_policy, noise
        self._worker = ThreadPoolExecutor(1)
        self._peers = Peers()

    @abstractmethod
    def rollouts(
        self, collector: RolloutCollector, plan: PromptPlan, step: int, policy_version: int
    ) -> StepRollouts:
        """The rollouts of `step`; sampling for later steps goes on in the background.

        Args:
            collector: Samples with `sampling_policy`.
            plan: The prompts of every step.
            step: Steps are asked for in their order.
            policy_version: How many updates the policy has seen.
        """

    def state_dict(self) -> dict[str, Any]:
        """What is sampled and has not been trained on; sampling that was begun is waited for.

        Every rank calls it. Rank 0, which writes the state, has what all of them know.
        """
        return {"of_rank": self._peers.gather_on_rank0(self._rank_state())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` described.

        Raises:
            UserError: An earlier version saved it.
        """
        if "of_rank" not in state:
            raise UserError(
                "this stage's folder in paths.runs/work has a training state of an earlier "
                "version, which cannot be resumed; move it away, and the stage starts anew"
            )
        self._load_rank_state(state["of_rank"][rank()])

    @abstractmethod
    def _rank_state(self) -> dict[str, Any]:
        """What this rank knows."""

    @abstractmethod
    def _load_rank_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `_rank_state` described."""

    def update(self, policy_version: int) -> None:
        """Bring what samples up to the policy's weights, of that version; every rank calls it."""
        if self.sampling_policy is not self._policy:
            load_weights(self.sampling_policy, self._weights(policy_version))

    def _weights(self, policy_version: int) -> Iterator[tuple[str, Tensor]]:
        """The policy's weights now, with the noise of that version."""
        weights = whole_weights(self._policy)
        return weights if self._noise is None else self._noise.on(weights, policy_version)

    def close(self) -> None:
        """Wait for rollouts that are still being sampled."""
        self._worker.shutdown(cancel_futures=True)


class RolloutPrefetcher(RolloutSchedule):
    """Samples whole steps ahead, each by the weights before the step `staleness` steps earlier.

    Args:
        policy, sampling_policy, noise: As in `RolloutSchedule`.
        staleness: 0 = each step's rollouts are sampled when it begins.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        sampling_policy: PreTrainedModel,
        noise: WeightNoise | None,
        staleness: int,
    ) -> None:
        super().__init__(policy, sampling_policy, noise)
        self._staleness = staleness
        # Of the next step and those after it, in order.
        self._sampled: deque[Future[StepRollouts]] = deque()
        self._saved: list[dict[str, Any]] = []

    def rollouts(
        self, collector: RolloutCollector, plan: PromptPlan, step: int, policy_version: int
    ) -> StepRollouts:
        if not self._staleness:
            self.update(policy_version)
            step_rollouts = collector.collect(plan[step], policy_version)
            plan.observe_step(step, step_rollouts.groups)
            return step_rollouts
        self._resume(collector, plan, step)
        if not self._sampled:
            self.update(policy_version)
            for batch in plan[step : step + self._staleness]:
                self._submit(collector, batch, policy_version, None)
        step_rollouts = self._sampled.popleft().result()
        plan.observe_step(step, step_rollouts.groups)
        weights = None
        if self._staleness == 1:  # Then nothing is being sampled now.
            self.update(policy_version)
        else:
            weights = snapshot(self._weights(policy_version), self.sampling_policy)
        for batch in plan[step + self._staleness : step + self._staleness + 1]:
            self._submit(collector, batch, policy_version, weights)
        return step_rollouts

    def _submit(
        self,
        collector: RolloutCollector,
        batch: PromptBatch,
        policy_version: int,
        weights: Sequence[tuple[str, Tensor]] | None,
    ) -> None:
        """Have a step sampled after all that was submitted before.

        `weights` are those of `policy_version`; None = `sampling_policy` has them already.
        """

        def sample() -> StepRollouts:
            if weights is not None:
                load_weights(self.sampling_policy, weights)
            return collector.collect(batch, policy_version)

        self._sampled.append(self._worker.submit(sample))

    def _resume(self, collector: RolloutCollector, plan: PromptPlan, step: int) -> None:
        """Take what a state had of `step` and those after it."""
        for number, state in enumerate(self._saved, start=step):
            future: Future[StepRollouts] = Future()
            future.set_result(read_step(state, plan[number], collector.validation))
            self._sampled.append(future)
        self._saved = []

    def _rank_state(self) -> dict[str, Any]:
        """A longer training that goes on from the last step has nothing sampled ahead."""
        return {"steps": [saved_step(future.result()) for future in self._sampled]}

    def _load_rank_state(self, state: Mapping[str, Any]) -> None:
        self._saved = list(state["steps"])
