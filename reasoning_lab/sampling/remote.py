"""Rollouts whose tokens another rank has.

Every rank follows all rollouts of a step in one order, so that all decide alike which of them
train. A completion stays on the rank that drew it. The others learn its verdict and its length, and
get the rest only of what they train on or log.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice, repeat, starmap
from typing import Any, NamedTuple

from reasoning_lab.system.ranks import Item, Peers, rank
from reasoning_lab.types import Completion, Problem, Rollout, RolloutGroup, Verdict


@dataclass(frozen=True, slots=True)
class RemoteTokens(Sequence[int]):
    """Tokens of which this rank knows the number alone.

    Raises:
        LookupError: One of them is read.
    """

    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        raise LookupError("another rank has these tokens")


@dataclass(frozen=True, slots=True)
class RemoteCompletion(Completion):
    """A completion that another rank has; it has neither text nor logprobs here.

    Attributes:
        token_ids: `RemoteTokens`.
        rank: The rank that drew it.
    """

    rank: int = 0


class Outcome(NamedTuple):
    """What every rank learns of a rollout.

    Attributes:
        verdict, truncated, policy_version: As in `Rollout` and its completion.
        tokens: Length of the completion.
        version_runs: Each policy version of its tokens and how many it sampled, in order; empty
            where `token_versions` is.
    """

    verdict: Verdict
    tokens: int
    truncated: bool
    policy_version: int
    version_runs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, rollout: Rollout) -> "Outcome":
        """That of a rollout which this rank has."""
        runs = tuple((version, len(list(run))) for version, run in groupby(rollout.token_versions))
        completion = rollout.completion
        return cls(
            rollout.verdict,
            len(completion.token_ids),
            completion.truncated,
            rollout.policy_version,
            runs,
        )

    def rollout(self, problem: Problem, author: str, drawn_by: int) -> Rollout:
        """The rollout as another rank than `drawn_by` knows it: without an answer, for one."""
        tokens = RemoteTokens(self.tokens)
        return Rollout(
            problem,
            RemoteCompletion(tokens, "", truncated=self.truncated, rank=drawn_by),
            None,
            self.verdict,
            author,
            self.policy_version,
            token_versions=list(chain.from_iterable(starmap(repeat, self.version_runs))),
        )


def drawing_rank(rollout: Rollout) -> int:
    """The rank that drew the rollout and has its tokens."""
    completion = rollout.completion
    return completion.rank if isinstance(completion, RemoteCompletion) else rank()


def is_here(rollout: Rollout) -> bool:
    """Whether this rank has the rollout's tokens."""
    return not isinstance(rollout.completion, RemoteCompletion)


def merged(ranks: Iterable[int], of_ranks: Sequence[Iterable[Item]]) -> list[Item]:
    """Items of all ranks in one order, in which `ranks` says whose the next one is."""
    parts = list(map(iter, of_ranks))
    return [next(parts[number]) for number in ranks]


def whole_on_rank0(rollouts: Sequence[Rollout], peers: Peers) -> list[Rollout]:
    """The rollouts with all that is known of them, on rank 0; every rank calls it.

    On other ranks they are returned as they are.
    """
    of_ranks = peers.gather_on_rank0([rollout for rollout in rollouts if is_here(rollout)])
    return merged(map(drawing_rank, rollouts), of_ranks) if rank() == 0 else list(rollouts)


def whole_groups(
    rank_rollouts: Sequence[Rollout],
    problems: Sequence[Problem],
    sizes: Sequence[int],
    peers: Peers,
) -> list[RolloutGroup]:
    """The groups of problems that `rank_slice` shared, whole on every rank; every rank calls it."""
    of_ranks = list(map(iter, peers.all_gather(rank_rollouts)))
    return [
        RolloutGroup(problem, list(islice(of_ranks[number % len(of_ranks)], size)))
        for number, (problem, size) in enumerate(zip(problems, sizes, strict=True))
    ]
