"""What samples and trains in tests of schedules, without a model: tokens tell their weights."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.sampling.engine import NOTHING_YET, Sampling
from reasoning_lab.sampling.rollouts import RolloutSampler
from reasoning_lab.stages.rl.module import rollout_schedule
from reasoning_lab.stages.rl.prompts import PromptPlan
from reasoning_lab.stages.rl.records import StepRollouts
from reasoning_lab.stages.rl.rollouts import RolloutCollector
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.tracking.progress import Progress
from reasoning_lab.types import Completion, Problem, Prompt
from reasoning_lab.verify import Verifier

# From a rollout's seed to the tokens that it would have without a limit, and its text.
Lengths = Callable[[int], tuple[int, str]]


class Weight(torch.nn.Module):
    """A policy whose only weight is the number of updates that it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.updates = torch.nn.Parameter(torch.zeros(()))


class TellingEngine:
    """Samples its policy's weight as every token; a seed fixes how many of them.

    Attributes:
        tokens: Sampled so far.
    """

    def __init__(self, policy: Weight, lengths: Lengths) -> None:
        self._policy, self._lengths = policy, lengths
        self.tokens = 0

    @property
    def version(self) -> int:
        """Of the weights that sample now."""
        return int(self._policy.updates)

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        started = [NOTHING_YET] * len(prompts)
        return self.extend(prompts, started, sampling, seeds, sampling.max_new_tokens)

    def extend(
        self,
        prompts: Sequence[Prompt],
        started: Sequence[Completion],
        sampling: Sampling,
        seeds: Sequence[int],
        most_tokens: int,
    ) -> list[Completion]:
        completions = []
        for before, seed in zip(started, seeds, strict=True):
            length, text = self._lengths(seed)
            rest = min(length, sampling.max_new_tokens) - len(before.token_ids)
            new = min(rest, most_tokens)
            self.tokens += new
            ids = [*before.token_ids, *[self.version] * new]
            truncated = new < rest or length >= sampling.max_new_tokens
            completions.append(Completion(ids, text, [-1.0] * len(ids), truncated))
        return completions

    def close(self) -> None:
        pass


class Trainer:
    """Asks for the rollouts of each step and makes an update after it.

    Args:
        config: Its rollouts are `engine`'s.
        pool: The prompts.
        verifier: Reads their answers.
        engine: Makes the engine of the policy that samples.
        validation: Problems of the validation.

    Attributes:
        schedule: Under test.
        engine: Of the policy that samples.
    """

    def __init__(
        self,
        config: RLStage,
        pool: Sequence[Problem],
        verifier: Verifier,
        engine: Callable[[Weight], TellingEngine],
        validation: Sequence[Problem] = (),
    ) -> None:
        config.check("stages.rl", HardwareConfig())
        self._policy = Weight()
        policy = cast(PreTrainedModel, self._policy)
        self.schedule = rollout_schedule(policy, config, "single", 0)
        self.engine = engine(cast(Weight, self.schedule.sampling_policy))
        sampler = RolloutSampler(lambda _: self.engine, verifier, "policy", Progress())
        self._collector = RolloutCollector(config, 0, sampler, validation, "stages.rl")
        self._plan = PromptPlan(config, pool, 0)

    def steps(self, first: int, last: int) -> list[StepRollouts]:
        """What these steps train on, the weights before each being its number."""
        results = []
        for step in range(first, last):
            with torch.no_grad():
                self._policy.updates.fill_(step)
            results.append(self.schedule.rollouts(self._collector, self._plan, step, step))
        return results

    def state_dict(self) -> dict[str, Any]:
        """What a training state holds of the schedule and the curriculum, in the order of `rl`."""
        state: dict[str, Any] = {"schedule": self.schedule.state_dict()}
        if self._plan.curriculum is not None:
            state["curriculum"] = self._plan.curriculum.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from it."""
        self.schedule.load_state_dict(state["schedule"])
        if self._plan.curriculum is not None:
            self._plan.curriculum.load_state_dict(state["curriculum"])
