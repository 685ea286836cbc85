"""Rollouts of a policy, verified: shared by the stages that learn from their own samples."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rich import get_console
from rich.progress import Progress

from reasoning_lab.config.benchmark import SamplingConfig
from reasoning_lab.data.curation.selection import group_by_problem
from reasoning_lab.data.shards import in_shards
from reasoning_lab.sampling.engine import Engine, Sampling, rollout_seeds, with_instruction
from reasoning_lab.system.ranks import Peers, rank, rank_slice, world_size
from reasoning_lab.types import Completion, Problem, Rollout, RolloutGroup
from reasoning_lab.verify import Verifier

_SHARD_ROLLOUTS = 1024


def sampling_of(config: SamplingConfig) -> Sampling:
    """What the engine takes, from what the user wrote; for `kept_groups`."""
    return Sampling(config.temperature, config.top_p, config.max_new_tokens, logprobs=False)


class RolloutSampler:
    """Samples groups of completions and has them verified; ranks share the problems.

    Args:
        engine: Makes the engine, which is told whom to call as completions end.
        verifier: Gives each completion its verdict.
        author: Names the policy in every rollout.
        label: What the progress bar of a long sampling says.
        sync: Brings the engine's weights up to the policy's, whose version it is told, before
            each sampling; every rank calls it.
        instruction: Said after every problem, on a line of its own.
    """

    def __init__(
        self,
        engine: Callable[[Callable[[int], None]], Engine],
        verifier: Verifier,
        author: str,
        label: str,
        sync: Callable[[Engine, int], None] = lambda engine, version: None,
        instruction: str = "",
    ) -> None:
        # Elsewhere than in a terminal it would leave an empty line.
        self._progress = Progress(transient=True, disable=not get_console().is_terminal)
        self._label = label
        self._engine = engine(self._advance)
        self._verifier = verifier
        self._author = author
        self._sync = sync
        self._instruction = instruction
        self._peers = Peers()

    def close(self) -> None:
        """Free what the engine holds."""
        self._engine.close()

    def complete(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """The engine's, by the policy as it comes in; every rank calls it."""
        self._sync(self._engine, 0)
        return self._engine.generate(prompts, sampling, seeds)

    def groups(
        self,
        problems: Sequence[Problem],
        group_size: int,
        sampling: Sampling,
        seed: str,
        policy_version: int = 0,
    ) -> list[RolloutGroup]:
        """`group_size` rollouts of each problem; `seed` and the prompt fix their random numbers.

        One group a problem, in order. A problem that comes twice has two groups, each with random
        numbers of its own.
        """
        self._sync(self._engine, policy_version)
        seeds = rollout_seeds(problems, group_size, seed)
        seeds_of = [seeds[at : at + group_size] for at in range(0, len(seeds), group_size)]
        of_rank = [number for group in rank_slice(seeds_of) for number in group]
        drawn = self._sample(rank_slice(problems), group_size, sampling, of_rank, policy_version)
        rollouts = self._of_all(drawn, len(problems), group_size)
        return [
            RolloutGroup(problem, rollouts[number * group_size : (number + 1) * group_size])
            for number, problem in enumerate(problems)
        ]

    def kept_groups(
        self,
        problems: Sequence[Problem],
        group_size: int,
        sampling: Sampling,
        seed: str,
        folder: Path,
    ) -> list[RolloutGroup]:
        """As `groups`, in shards that `folder` keeps for a run that goes on after a kill.

        Shows a progress bar. The rollouts come without logprobs.
        """

        def make(shard: Sequence[Problem]) -> list[Rollout]:
            seeds = rollout_seeds(shard, group_size, seed)
            return self._sample(shard, group_size, sampling, seeds, 0)

        self._sync(self._engine, 0)
        size = max(1, _SHARD_ROLLOUTS // group_size)
        rollouts: list[Rollout] = []
        own = rank_slice(problems)
        folder = folder / f"{rank()}-of-{world_size()}" if world_size() > 1 else folder
        with self._progress:
            task = self._progress.add_task(self._label, total=len(own) * group_size)
            for shard in in_shards(folder, own, size, make):
                rollouts += shard
                self._progress.update(task, completed=len(rollouts))
        return group_by_problem(self._of_all(rollouts, len(problems), group_size))

    def _of_all(self, own: list[Rollout], problems: int, group_size: int) -> list[Rollout]:
        """The rollouts of every rank, in the order of the problems that they shared."""
        of_rank = self._peers.all_gather(own)
        if len(of_rank) == 1:
            return own
        found = []
        for problem in range(problems):
            turn, owner = divmod(problem, len(of_rank))
            found += of_rank[owner][turn * group_size : (turn + 1) * group_size]
        return found

    def _sample(
        self,
        problems: Sequence[Problem],
        group_size: int,
        sampling: Sampling,
        seeds: Sequence[int],
        policy_version: int,
    ) -> list[Rollout]:
        asked = [problem for problem in problems for _ in range(group_size)]
        prompts = [with_instruction(problem.prompt, self._instruction) for problem in asked]
        completions = self._engine.generate(prompts, sampling, seeds)
        verdicts = self._verifier.verify(asked, [completion.text for completion in completions])
        return [
            Rollout(problem, completion, answer, verdict, self._author, policy_version)
            for problem, completion, (answer, verdict) in zip(
                asked, completions, verdicts, strict=True
            )
        ]

    def _advance(self, count: int) -> None:
        for task in self._progress.task_ids[-1:]:
            self._progress.advance(task, count)
