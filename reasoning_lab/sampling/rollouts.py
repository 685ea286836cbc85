"""Verified rollouts of a policy, for every stage that samples one and for evaluation."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import cast

from reasoning_lab.config.benchmark import SHARD_ROLLOUTS, SamplingConfig
from reasoning_lab.data.shards import sample_in_shards
from reasoning_lab.sampling.engine import (
    NOTHING_YET,
    Engine,
    InterruptibleEngine,
    OnProgress,
    Sampling,
    rollout_seeds,
    with_instruction,
)
from reasoning_lab.sampling.remote import Outcome, merged, whole_groups
from reasoning_lab.system.ranks import Peers, rank, rank_slice, world_size
from reasoning_lab.tracking.progress import Progress, Task
from reasoning_lab.types import (
    Completion,
    Message,
    Problem,
    Prompt,
    Rollout,
    RolloutGroup,
    UserError,
)
from reasoning_lab.verify import Verifier


def sampling_from_config(config: SamplingConfig) -> Sampling:
    """The engine's sampling options for `resumable_groups`, which needs no logprobs."""
    return Sampling(config.temperature, config.top_p, config.completion_tokens, logprobs=False)


@dataclass(frozen=True, slots=True)
class PartialRollout:
    """A completion that an update may interrupt, before it is verified.

    Attributes:
        problem: What is asked.
        seed: Fixes its random numbers.
        completion: Its tokens so far.
        token_versions: The policy version that sampled each of them.
        ended: True = no token follows.
        rank: The rank that samples it from its first token to its last, and alone has its tokens.
    """

    problem: Problem
    seed: int
    completion: Completion = NOTHING_YET
    token_versions: Sequence[int] = ()
    ended: bool = False
    rank: int = 0


class RolloutSampler:
    """Samples groups of completions and verifies them; ranks share the problems.

    Args:
        make_engine: Makes the engine from a callback, which the engine may call with the
            completions that ended.
        verifier: Gives each completion its verdict.
        author: Names the policy in every rollout.
        progress: Is told of what `resumable_groups` has sampled.
        sync_weights: Gives the engine the policy's weights before each sampling. It gets the engine
            and the policy's version; every rank calls it.
        instruction: Appended to every problem, on a line of its own.
        thought_of: What the chat template writes of a thought after some earlier messages; the
            verifier reads it before each completion, so that a thought without an end holds no
            answer.

    Attributes:
        thought_prefix: The same after no earlier messages; it must be alike for every problem.
        sync_s: Seconds so far in which the engine was given weights.
    """

    def __init__(
        self,
        make_engine: Callable[[OnProgress], Engine],
        verifier: Verifier,
        author: str,
        progress: Progress,
        sync_weights: Callable[[Engine, int], None] = lambda engine, version: None,
        instruction: str = "",
        thought_of: Callable[[tuple[Message, ...]], str] = lambda earlier: "",
    ) -> None:
        self._progress = progress
        self._task: Task | None = None
        self._engine = make_engine(self._advance)
        self._verifier = verifier
        self._author = author
        self._sync_weights = sync_weights
        self.sync_s = 0.0
        self._instruction = instruction
        self._thought_of = thought_of
        self.thought_prefix = thought_of(())
        self._peers = Peers()
        self._extended_version: int | None = None

    def close(self) -> None:
        """Free the engine's resources."""
        self._engine.close()

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """Unverified completions of the policy that came in; every rank calls it."""
        self._sync(0)
        return self._engine.generate(prompts, sampling, seeds)

    def groups(
        self,
        problems: Sequence[Problem],
        group_size: int | Sequence[int],
        sampling: Sampling,
        seed: str,
        policy_version: int = 0,
    ) -> list[RolloutGroup]:
        """`group_size` rollouts of each problem; `seed` and the prompt fix their random numbers.

        `group_size` may be one number, or one for each problem.

        Returns:
            One group a problem, in order. A problem that occurs twice has two groups, each with its
            own random numbers. Of rollouts that another rank drew, this one has what is in
            `remote.py`.
        """
        self._sync(policy_version)
        seeds = rollout_seeds(problems, group_size, seed)
        rank_rollouts = self._sample(
            rank_slice(problems), sampling, rank_slice(seeds), policy_version
        )
        return self._shared_groups(rank_rollouts, problems, list(map(len, seeds)))

    def resumable_groups(
        self,
        problems: Sequence[Problem],
        group_size: int,
        sampling: Sampling,
        seed: str,
        folder: Path,
        part: str | None = None,
    ) -> Iterator[RolloutGroup]:
        """As `groups`, in shards that are saved to `folder`, so that a resumed run reuses them.

        One shard is in memory at a time. The rollouts have no logprobs. `part` names the sampling
        where the stage does other work as well, as in `Progress.task`.
        """
        for shard in self._shards(problems, group_size, sampling, seed, folder, part):
            yield from whole_groups(*shard, self._peers)

    def resumable_shared_groups(
        self,
        problems: Sequence[Problem],
        group_size: int,
        sampling: Sampling,
        seed: str,
        folder: Path,
        part: str | None = None,
    ) -> Iterator[RolloutGroup]:
        """As `resumable_groups`, but each rank has the tokens of what it drew alone."""
        for shard in self._shards(problems, group_size, sampling, seed, folder, part):
            yield from self._shared_groups(*shard)

    def _shards(
        self,
        problems: Sequence[Problem],
        group_size: int,
        sampling: Sampling,
        seed: str,
        folder: Path,
        part: str | None,
    ) -> Iterator[tuple[list[Rollout], Sequence[Problem], list[int]]]:
        """This rank's rollouts of a shard, and the problems and group sizes of all ranks' shards.

        Arguments are those of `resumable_groups`.
        """

        def sample_shard(shard: Sequence[Problem]) -> list[Rollout]:
            before = task.done
            sampled = self._sample(shard, sampling, rollout_seeds(shard, group_size, seed), 0)
            if task.done == before:  # The engine has not told of its completions.
                self._advance([rollout.completion for rollout in sampled])
            return sampled

        self._sync(0)
        shard_problems = max(1, SHARD_ROLLOUTS // group_size)
        rank_problems = rank_slice(problems)
        folder = folder / f"{rank()}-of-{world_size()}" if world_size() > 1 else folder
        total = len(rank_problems) * group_size * world_size()
        with self._progress.task("completion", total, part) as task:
            self._task = task
            shards = sample_in_shards(folder, rank_problems, shard_problems, sample_shard)
            done, stride = 0, shard_problems * world_size()
            for start in range(0, len(problems), stride):
                shard = next(shards, [])  # The last problems may be too few for every rank.
                done += len(shard) * world_size()
                if task.done < done:  # The shard was there already.
                    task.start(done)
                part_problems = problems[start : start + stride]
                yield shard, part_problems, [group_size] * len(part_problems)
            self._task = None

    def extend(
        self,
        rollouts: Sequence[PartialRollout],
        sampling: Sampling,
        most_tokens: int,
        policy_version: int,
    ) -> list[PartialRollout]:
        """Each rollout with at most `most_tokens` more; every rank calls it with the same ones.

        Args:
            rollouts: None has ended. Those that other ranks sample stay as they are, but for
                `ended`.
            sampling: `max_new_tokens` bounds whole rollouts.
            most_tokens: At least 1.
            policy_version: Of the weights that sample; the engine gets them when it changes.
        """
        if policy_version != self._extended_version:
            self._sync(policy_version)
            self._extended_version = policy_version
        of_rank = [rollout for rollout in rollouts if rollout.rank == rank()]
        self._require_one_thought([rollout.problem for rollout in of_rank])
        extended = cast(InterruptibleEngine, self._engine).extend(
            [self._prompt(rollout.problem) for rollout in of_rank],
            [rollout.completion for rollout in of_rank],
            sampling,
            [rollout.seed for rollout in of_rank],
            most_tokens,
        )
        longer = [
            _extended(before, completion, sampling.max_new_tokens, most_tokens, policy_version)
            for before, completion in zip(of_rank, extended, strict=True)
        ]
        of_ranks = self._peers.all_gather([one.ended for one in longer])
        ended = merged((rollout.rank for rollout in rollouts), of_ranks)
        known = iter(longer)
        return [
            next(known) if rollout.rank == rank() else replace(rollout, ended=has_ended)
            for rollout, has_ended in zip(rollouts, ended, strict=True)
        ]

    def verified(self, rollouts: Sequence[PartialRollout], policy_version: int) -> list[Rollout]:
        """Rollouts that have ended, with their verdicts; every rank calls it.

        What this rank has of those that others sampled is in `remote.py`.

        Args:
            rollouts: The same on every rank.
            policy_version: Of the weights now, under which a rollout without a token ended.
        """
        of_rank = [rollout for rollout in rollouts if rollout.rank == rank()]
        judged = self._judged(
            [rollout.problem for rollout in of_rank],
            [rollout.completion for rollout in of_rank],
            policy_version,
        )
        with_versions = [
            replace(
                rollout,
                policy_version=next(iter(before.token_versions), policy_version),
                token_versions=before.token_versions,
            )
            for rollout, before in zip(judged, of_rank, strict=True)
        ]
        return self._shared(
            with_versions, [(rollout.problem, rollout.rank) for rollout in rollouts]
        )

    def _sync(self, policy_version: int) -> None:
        """Give the engine the weights of a version; every rank calls it."""
        started = time.monotonic()
        self._sync_weights(self._engine, policy_version)
        self.sync_s += time.monotonic() - started

    def _shared(
        self, rank_rollouts: Sequence[Rollout], drawn: Sequence[tuple[Problem, int]]
    ) -> list[Rollout]:
        """All ranks' rollouts, of which each keeps its own; every rank calls it.

        Args:
            rank_rollouts: This rank's.
            drawn: Of all ranks' rollouts, in one order, the problem and the rank that drew it.
        """
        of_ranks = self._peers.all_gather(list(map(Outcome.of, rank_rollouts)))
        outcomes = merged((drawing for _, drawing in drawn), of_ranks)
        known = iter(rank_rollouts)
        return [
            next(known) if drawing == rank() else outcome.rollout(problem, self._author, drawing)
            for (problem, drawing), outcome in zip(drawn, outcomes, strict=True)
        ]

    def _shared_groups(
        self, rank_rollouts: Sequence[Rollout], problems: Sequence[Problem], sizes: Sequence[int]
    ) -> list[RolloutGroup]:
        """The groups of `problems`, as `_shared` has their rollouts; every rank calls it."""
        drawn = [
            (problem, number % world_size())
            for number, (problem, size) in enumerate(zip(problems, sizes, strict=True))
            for _ in range(size)
        ]
        rollouts = iter(self._shared(rank_rollouts, drawn))
        return [
            RolloutGroup(problem, list(islice(rollouts, size)))
            for problem, size in zip(problems, sizes, strict=True)
        ]

    def _sample(
        self,
        problems: Sequence[Problem],
        sampling: Sampling,
        seeds: Sequence[Sequence[int]],
        policy_version: int,
    ) -> list[Rollout]:
        """A rollout of each problem for each of its seeds."""
        self._require_one_thought(problems)
        repeated = [
            problem for problem, of_problem in zip(problems, seeds, strict=True) for _ in of_problem
        ]
        prompts = [self._prompt(problem) for problem in repeated]
        completions = self._engine.generate(prompts, sampling, list(chain.from_iterable(seeds)))
        return self._judged(repeated, completions, policy_version)

    def _prompt(self, problem: Problem) -> Prompt:
        return with_instruction(problem.model_prompt, self._instruction)

    def _judged(
        self,
        problems: Sequence[Problem],
        completions: Sequence[Completion],
        policy_version: int,
    ) -> list[Rollout]:
        """A rollout of each completion, with the verifier's verdict."""
        texts = [self.thought_prefix + completion.text for completion in completions]
        judgements = self._verifier.judge(problems, texts)
        return [
            Rollout(
                problem,
                completion,
                judgement.answer,
                judgement.verdict,
                self._author,
                policy_version,
                passed_frac=judgement.passed_frac,
            )
            for problem, completion, judgement in zip(
                problems, completions, judgements, strict=True
            )
        ]

    def _require_one_thought(self, problems: Sequence[Problem]) -> None:
        """Raise UserError for a system message after which the template begins an answer otherwise.

        Rewards and `rescore` know one beginning.
        """
        by_earlier = {problem.earlier_messages: problem for problem in problems}
        for earlier, problem in by_earlier.items():
            if earlier and (thought := self._thought_of(earlier)) != self.thought_prefix:
                raise UserError(
                    f"{problem.origin}: after its system message the chat template begins an "
                    f"answer with {thought!r}, and else with {self.thought_prefix!r}; leave such "
                    "rows out, or ask all alike with model.system_prompt"
                )

    def _advance(self, completions: Sequence[Completion]) -> None:
        """Count these, and as many of each other rank."""
        if self._task is not None:
            tokens = sum(len(completion.token_ids) for completion in completions)
            self._task.advance(len(completions) * world_size(), tokens * world_size())


def _extended(
    before: PartialRollout,
    completion: Completion,
    max_new_tokens: int,
    most_tokens: int,
    policy_version: int,
) -> PartialRollout:
    new_tokens = len(completion.token_ids) - len(before.completion.token_ids)
    has_limit = len(completion.token_ids) >= max_new_tokens or new_tokens < most_tokens
    return replace(
        before,
        completion=completion,
        token_versions=[*before.token_versions, *[policy_version] * new_tokens],
        ended=has_limit or not completion.truncated,
    )
