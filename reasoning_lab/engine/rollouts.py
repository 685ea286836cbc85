"""Rollouts of a policy, verified: shared by the stages that learn from their own samples."""

import random
from collections.abc import Sequence

from rich.progress import Progress
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.data.curation import group_by_problem
from reasoning_lab.engine import Sampling
from reasoning_lab.engine.hf import HFEngine
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.schema import SamplingConfig
from reasoning_lab.types import Problem, Rollout, RolloutGroup
from reasoning_lab.verify import Verifier


def sampling_of(config: SamplingConfig) -> Sampling:
    """What the engine takes, from what the user wrote."""
    return Sampling(config.temperature, config.top_p, config.max_new_tokens)


class RolloutSampler:
    """Samples groups of completions and has them verified.

    Args:
        policy: Samples as it is at the time of each call.
        tokenizer: The policy's.
        verifier: Gives each completion its verdict.
        batch_size: Rows decoded together.
        author: Names the policy in every rollout.
        label: What the progress bar says; none is shown without one.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        verifier: Verifier,
        batch_size: int,
        author: str,
        label: str | None = None,
    ) -> None:
        self._progress = Progress(transient=True, disable=label is None)
        self._label = label or ""
        self._engine = HFEngine(policy, tokenizer, batch_size, self._advance)
        self._tokenizer = tokenizer
        self._verifier = verifier
        self._author = author

    def groups(
        self,
        problems: Sequence[Problem],
        group_size: int,
        sampling: Sampling,
        seed: str,
        policy_version: int = 0,
    ) -> list[RolloutGroup]:
        """`group_size` rollouts of each problem; `seed` and the prompt fix their random numbers."""
        asked = [problem for problem in problems for _ in range(group_size)]
        prompts = prompt_tokens(self._tokenizer, [problem.prompt for problem in problems])
        repeated = [prompt for prompt in prompts for _ in range(group_size)]
        seeds = [
            random.Random(f"{seed}/{problem.id}/{sample}").getrandbits(63)
            for problem in problems
            for sample in range(group_size)
        ]
        with self._progress:
            self._progress.add_task(self._label, total=len(asked))
            completions = self._engine.generate(repeated, sampling, seeds)
        verdicts = self._verifier.verify(asked, [completion.text for completion in completions])
        return group_by_problem(
            Rollout(problem, completion, answer, verdict, self._author, policy_version)
            for problem, completion, (answer, verdict) in zip(
                asked, completions, verdicts, strict=True
            )
        )

    def _advance(self, count: int) -> None:
        for task in self._progress.task_ids[-1:]:
            self._progress.advance(task, count)
